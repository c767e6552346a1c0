//! One branch of a request: its blocks, what has been run and what has not. Knows no decoder and no model.

use std::sync::Arc;

use trimtab_base::TokenId;

use crate::backend::Backend;
use crate::block_manager::BlockManager;
use crate::request::{Prompt, Span};

/// Hidden state and logits of one row, kept beyond the step that made them.
#[derive(Debug, PartialEq)]
pub(crate) struct SavedRow {
    pub(crate) hidden: Vec<f32>,
    pub(crate) logits: Vec<f32>,
}

/// Where a branch's next-token logits are.
#[derive(Debug, Clone, Default)]
pub(crate) enum RowState {
    /// Not computed for the branch's present end.
    #[default]
    Stale,
    /// Row `n` of the present step's output.
    InOutput(usize),
    /// Kept, because the branch was forked or its decoder waits for others.
    Saved(Arc<SavedRow>),
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

    /// Makes the next `num_positions` positions writable: copies a shared last block, adds new ones.
    ///
    /// `None` if the store has no block left; admission reserves enough that this cannot happen to admitted requests.
    pub(crate) fn reserve(
        &mut self,
        num_positions: usize,
        blocks: &mut BlockManager,
        backend: &mut dyn Backend,
    ) -> Option<()> {
        let block_len = backend.block_len();
        if !self.num_stored.is_multiple_of(block_len) {
            let last = self.num_stored / block_len;
            let shared = self.blocks[last];
            if blocks.is_shared(shared) {
                let own = blocks.allocate()?;
                backend.copy_block(shared, own);
                blocks.release(shared);
                self.blocks[last] = own;
            }
        }
        while self.blocks.len() * block_len < self.num_stored + num_positions {
            self.blocks.push(blocks.allocate()?);
        }
        Some(())
    }
}
