//! One running request: its decoder, its branches and what it waits for. Knows no batch and no other request.

use std::collections::BTreeMap;

use trimtab_base::TokenId;
use trimtab_decode::{Action, Answer, BranchId, Decoder, Need};
use trimtab_model::forward::RowInput;

use crate::block_manager::BlockManager;
use crate::engine::EngineError;
use crate::request::{Prompt, Request, Span, Usage};
use crate::sequence::{Input, RowState, Sequence};

/// A request being run.
pub(crate) struct Active {
    pub(crate) prompt: Prompt,
    /// Token ids before the first embedding span: what the prefix cache may key on.
    pub(crate) leading_tokens: Vec<TokenId>,
    pub(crate) decoder: Box<dyn Decoder>,
    pub(crate) branches: BTreeMap<BranchId, Sequence>,
    /// What the decoder waits for; `None` until the prompt has been run.
    pub(crate) need: Option<Need>,
    pub(crate) rewards_asked: bool,
    pub(crate) reserved_blocks: usize,
    pub(crate) usage: Usage,
}

impl Active {
    pub(crate) fn new(request: Request, hidden_len: usize, reserved_blocks: usize, usage: Usage) -> Self {
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
            rewards_asked: false,
            reserved_blocks,
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
        let mut stale: Vec<(BranchId, usize)> = Vec::new();
        for branch in self.wanted_branches() {
            let Some(sequence) = self.branches.get(&branch) else {
                continue;
            };
            if sequence.is_stale() && !stale.iter().any(|&(seen, _)| seen == branch) {
                stale.push((branch, sequence.pending.len()));
            }
        }
        stale
    }

    fn wanted_branches(&self) -> Vec<BranchId> {
        match &self.need {
            None => vec![BranchId::ROOT],
            Some(Need::Rows(requests)) => requests.iter().map(|request| request.branch).collect(),
            Some(_) => Vec::new(),
        }
    }

    /// Whether all rows that the decoder waits for are computed.
    pub(crate) fn rows_ready(&self) -> bool {
        let fresh = |branch| {
            self.branches
                .get(&branch)
                .is_some_and(|sequence| !sequence.is_stale())
        };
        matches!(self.need, Some(Need::Rows(_))) && self.wanted_branches().into_iter().all(fresh)
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
        self.rewards_asked = false;
        self.execute_actions(blocks)?;
        self.look_at_need()
    }

    fn look_at_need(&mut self) -> Result<(), EngineError> {
        let need = self.decoder.next_need();
        if let Need::Rows(requests) = &need
            && let Some(unknown) = requests
                .iter()
                .find(|request| !self.branches.contains_key(&request.branch))
        {
            return Err(EngineError::UnknownBranch {
                branch: unknown.branch.0,
            });
        }
        self.need = Some(need);
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
                    self.branches.insert(child, copy);
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
