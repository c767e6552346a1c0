//! One running request: its decoder, its branches and what it waits for. Knows no batch and no other request.

use std::collections::{BTreeMap, HashSet};

use trimtab_base::TokenId;
use trimtab_decode::{Action, Answer, BranchId, Decoder, Need, RowAnswer, RowRequest};
use trimtab_model::forward::RowInput;

use crate::block_manager::BlockManager;
use crate::error::EngineError;
use crate::request::{Prompt, Request, Span, Usage};
use crate::sequence::{Input, RowState, Sequence};

/// What a request may come to, as its decoder said when it was submitted; the decoder is held to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    pub(crate) prompt_positions: usize,
    /// Most new tokens per branch; what follows the last is never asked.
    pub(crate) new_tokens: usize,
    /// Most branches alive at once.
    pub(crate) branches: usize,
    /// Key/value blocks that all this needs at worst, set aside at admission.
    pub(crate) blocks: usize,
}

/// A request being run.
pub(crate) struct Active {
    pub(crate) prompt: Prompt,
    /// Token ids before the first embedding span: what the prefix cache may key on.
    pub(crate) leading_tokens: Vec<TokenId>,
    pub(crate) decoder: Box<dyn Decoder>,
    pub(crate) branches: BTreeMap<BranchId, Sequence>,
    /// What the decoder waits for; `None` until the prompt has been run.
    pub(crate) need: Option<Need>,
    /// Answers so far to a need of rows, in its order.
    pub(crate) answers: Vec<Option<RowAnswer>>,
    /// Whether the caller has been asked for the rewards or values that the decoder waits for.
    pub(crate) is_asked: bool,
    /// Committed tokens that the caller has been told of.
    pub(crate) num_committed: usize,
    pub(crate) announced: Announced,
    pub(crate) usage: Usage,
}

impl Active {
    pub(crate) fn new(request: Request, hidden_len: usize, announced: Announced, usage: Usage) -> Self {
        let root = Sequence::of_prompt(&request.prompt, hidden_len);
        let leading_tokens = match request.prompt.spans.first() {
            Some(Span::Tokens(tokens)) => tokens.clone(),
            _ => Vec::new(),
        };
        Self {
            prompt: request.prompt,
            leading_tokens,
            decoder: request.decoder,
            branches: BTreeMap::from([(BranchId::ROOT, root)]),
            need: None,
            answers: Vec::new(),
            is_asked: false,
            num_committed: 0,
            announced,
            usage,
        }
    }

    /// Whether the prompt has been run and the decoder has not begun.
    pub(crate) fn is_prefilled(&self) -> bool {
        self.need.is_none()
            && self
                .branches
                .get(&BranchId::ROOT)
                .is_some_and(|root| !root.is_stale())
    }

    /// Committed tokens that the caller has not been told of; it has been now.
    pub(crate) fn take_committed(&mut self) -> Vec<TokenId> {
        let committed = self.decoder.committed();
        let new = committed.get(self.num_committed..).unwrap_or_default().to_vec();
        self.num_committed += new.len();
        new
    }

    /// Lets the decoder begin.
    pub(crate) fn start(&mut self, blocks: &mut BlockManager) -> Result<(), EngineError> {
        self.execute_actions(blocks)?;
        self.look_at_need()
    }

    /// Gives all blocks back.
    pub(crate) fn free_branches(&mut self, blocks: &mut BlockManager) {
        for sequence in std::mem::take(&mut self.branches).into_values() {
            sequence.free(blocks);
        }
    }

    /// Branches whose logits are wanted and not computed, with their pending positions.
    pub(crate) fn stale_branches(&self) -> Vec<(BranchId, usize)> {
        let root = self.need.is_none().then_some(BranchId::ROOT);
        let wanted = self.unanswered().map(|(_, request)| request.branch).chain(root);
        let mut seen = HashSet::new();
        wanted
            .filter(|&branch| seen.insert(branch))
            .filter_map(|branch| {
                let sequence = self.branches.get(&branch)?;
                sequence.is_stale().then_some((branch, sequence.pending.len()))
            })
            .collect()
    }

    /// Row operations still to be applied, each with its place in the need.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = (usize, &RowRequest)> {
        let requests: &[RowRequest] = match &self.need {
            Some(Need::Rows(requests)) => requests,
            _ => &[],
        };
        let places = requests.iter().zip(&self.answers).enumerate();
        places.filter_map(|(place, (request, answer))| answer.is_none().then_some((place, request)))
    }

    /// Whether all row operations that the decoder waits for have been applied.
    pub(crate) fn rows_answered(&self) -> bool {
        matches!(self.need, Some(Need::Rows(_))) && self.answers.iter().all(Option::is_some)
    }

    /// Where the logits of a branch are.
    pub(crate) fn row_of(&self, branch: BranchId) -> Option<&RowState> {
        self.branches.get(&branch).map(|sequence| &sequence.row)
    }

    pub(crate) fn row_input<'a>(&'a self, input: &Input, hidden_len: usize) -> RowInput<'a> {
        match *input {
            Input::Token(token) => RowInput::Token(token),
            Input::Embedding { span, row } => match &self.prompt.spans[span] {
                Span::Embeddings(rows) => RowInput::Embedding(&rows[row * hidden_len..][..hidden_len]),
                Span::Tokens(_) => RowInput::Embedding(&[]),
            },
        }
    }

    /// Hands an answer to the decoder and executes what it decides.
    pub(crate) fn feed(&mut self, answer: Answer, blocks: &mut BlockManager) -> Result<(), EngineError> {
        self.decoder.feed(answer)?;
        self.is_asked = false;
        self.execute_actions(blocks)?;
        self.look_at_need()
    }

    fn look_at_need(&mut self) -> Result<(), EngineError> {
        let need = self.decoder.next_need();
        self.answers.clear();
        if let Need::Rows(requests) = &need {
            self.answers.resize(requests.len(), None);
            for request in requests {
                self.want_row(request.branch)?;
            }
        }
        self.need = Some(need);
        Ok(())
    }

    /// Sees to it that the logits of `branch` are there or will be computed.
    fn want_row(&mut self, branch: BranchId) -> Result<(), EngineError> {
        let sequence = self
            .branches
            .get_mut(&branch)
            .ok_or(EngineError::UnknownBranch { branch: branch.0 })?;
        let positions = sequence.num_stored + sequence.pending.len();
        let new_tokens = positions.saturating_sub(self.announced.prompt_positions);
        if new_tokens > self.announced.new_tokens.saturating_sub(1) {
            return Err(EngineError::BranchTooLong {
                branch: branch.0,
                new_tokens,
                announced: self.announced.new_tokens,
            });
        }
        sequence.recall_row();
        Ok(())
    }

    fn execute_actions(&mut self, blocks: &mut BlockManager) -> Result<(), EngineError> {
        for action in self.decoder.take_actions() {
            match action {
                Action::Fork { parent, child } => {
                    let parent_sequence = self
                        .branches
                        .get(&parent)
                        .ok_or(EngineError::UnknownBranch { branch: parent.0 })?;
                    let copy = parent_sequence.fork(blocks);
                    if let Some(replaced) = self.branches.insert(child, copy) {
                        replaced.free(blocks);
                    }
                    let (live, announced) = (self.branches.len(), self.announced.branches);
                    if live > announced {
                        return Err(EngineError::TooManyBranches { live, announced });
                    }
                }
                Action::Append { branch, token } => {
                    let sequence = self
                        .branches
                        .get_mut(&branch)
                        .ok_or(EngineError::UnknownBranch { branch: branch.0 })?;
                    sequence.pending.push(Input::Token(token));
                    sequence.row = RowState::Stale;
                }
                Action::Prune { branch } => {
                    let sequence = self
                        .branches
                        .remove(&branch)
                        .ok_or(EngineError::UnknownBranch { branch: branch.0 })?;
                    sequence.free(blocks);
                }
            }
        }
        Ok(())
    }
}
