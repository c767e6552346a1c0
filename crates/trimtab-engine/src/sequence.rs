//! One branch of a request: its blocks, what has been run and what has not. Knows no decoder and no model.

use trimtab_base::TokenId;

use crate::backend::Backend;
use crate::block_manager::BlockManager;
use crate::request::{Prompt, Span};

/// Where a branch's next-token logits are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RowState {
    /// Not computed for the branch's present end.
    #[default]
    Stale,
    /// Row `n` of the present step's output.
    InOutput(usize),
    /// Computed in an earlier step and not kept.
    Gone,
}

/// One position not yet run.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Token(TokenId),
    /// Row `row` of the embeddings span `span` of the prompt.
    Embedding {
        span: usize,
        row: usize,
    },
}

/// One growing sequence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sequence {
    /// Blocks in order of position; the last may be partly filled.
    pub(crate) blocks: Vec<u32>,
    /// Positions whose keys and values are stored.
    pub(crate) num_stored: usize,
    /// Positions appended but not run, oldest first.
    pub(crate) pending: Vec<Input>,
    /// The newest position that was run here, to run it again if its logits are asked for later.
    newest: Option<Input>,
    /// Next-token logits.
    pub(crate) row: RowState,
}

impl Sequence {
    /// The inputs of a prompt, all pending.
    pub(crate) fn of_prompt(prompt: &Prompt, hidden_len: usize) -> Self {
        let mut pending = Vec::with_capacity(prompt.num_positions(hidden_len));
        for (span_idx, span) in prompt.spans.iter().enumerate() {
            match span {
                Span::Tokens(tokens) => pending.extend(tokens.iter().map(|&token| Input::Token(token))),
                Span::Embeddings(rows) => pending
                    .extend((0..rows.len() / hidden_len).map(|row| Input::Embedding { span: span_idx, row })),
            }
        }
        Self {
            pending,
            ..Self::default()
        }
    }

    /// Whether the logits of its present end are not computed.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self.row, RowState::Stale)
    }

    /// Books the first `num_positions` pending positions as run.
    pub(crate) fn mark_stored(&mut self, num_positions: usize) {
        if let Some(newest) = self.pending.drain(..num_positions).next_back() {
            self.newest = Some(newest);
        }
        self.num_stored += num_positions;
    }

    /// The step whose output has the logits is over. They are not copied: of thousands of branches few are asked for
    /// a row again without a token in between, and these are worth one row more.
    pub(crate) fn forget_row(&mut self) {
        if matches!(self.row, RowState::InOutput(_)) {
            self.row = RowState::Gone;
        }
    }

    /// Makes the newest position pending again if its logits are gone. Run again it stores the same keys and values
    /// and has the same logits, bit for bit.
    pub(crate) fn recall_row(&mut self) {
        if self.row == RowState::Gone
            && let Some(newest) = self.newest.take()
        {
            self.num_stored -= 1;
            self.pending.push(newest);
            self.row = RowState::Stale;
        }
    }

    /// A copy that shares every block.
    pub(crate) fn fork(&self, blocks: &mut BlockManager) -> Self {
        for &block in &self.blocks {
            blocks.retain(block);
        }
        self.clone()
    }

    /// Gives all blocks back.
    pub(crate) fn free(self, blocks: &mut BlockManager) {
        for block in self.blocks {
            blocks.release(block);
        }
    }

    /// Makes the next `num_positions` positions writable: copies a shared block that they begin in, adds new ones.
    ///
    /// `None` if the store has no block left; admission reserves enough that this cannot happen to admitted requests.
    pub(crate) fn reserve(
        &mut self,
        num_positions: usize,
        blocks: &mut BlockManager,
        backend: &mut dyn Backend,
    ) -> Option<()> {
        let block_len = backend.block_len();
        if let Some(first) = self.blocks.get_mut(self.num_stored / block_len)
            && blocks.is_shared(*first)
        {
            let own = blocks.allocate()?;
            backend.copy_block(*first, own);
            blocks.release(*first);
            *first = own;
        }
        while self.blocks.len() * block_len < self.num_stored + num_positions {
            self.blocks.push(blocks.allocate()?);
        }
        Some(())
    }
}
