//! What the engine asks of a model runner. Knows rows and blocks, no requests.

use std::sync::Arc;

use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_kernels::pool::Pool;
use trimtab_model::forward::{BatchRow, ForwardOutput, Workspace};
use trimtab_model::stage_times::StageTimes;
use trimtab_model::{Model, ModelError};

use crate::error::EngineError;

/// A model with its key/value store.
pub trait Backend: Send {
    /// Tokens in the vocabulary: the width of logits.
    fn vocab_len(&self) -> usize;
    /// Width of hidden states.
    fn hidden_len(&self) -> usize;
    /// Longest sequence.
    fn context_len(&self) -> usize;
    /// Positions per key/value block.
    fn block_len(&self) -> usize;
    /// Blocks in the store.
    fn num_blocks(&self) -> usize;
    /// Runs `rows` and leaves hidden states and logits of the rows listed in `outputs` in `out`.
    fn forward(
        &mut self,
        rows: &[BatchRow<'_>],
        outputs: &[usize],
        out: &mut ForwardOutput,
    ) -> Result<(), ModelError>;
    /// Copies all layers' keys and values of block `from` to block `to`.
    fn copy_block(&mut self, from: u32, to: u32);
    /// Threads for row operations.
    fn pool(&self) -> &Pool;
    /// Where the forward passes' time went so far; nothing where it is not measured.
    fn stage_times(&self) -> StageTimes {
        StageTimes::default()
    }
}

/// The CPU path: packed weights and a paged key/value cache.
pub struct CpuBackend {
    model: Arc<Model>,
    pool: Arc<Pool>,
    kv: KvCache,
    workspace: Workspace,
}

impl CpuBackend {
    /// [`Self::try_new`] where a refusal is a bug: small stores of known size.
    ///
    /// # Panics
    /// If the system has no address space for the store.
    pub fn new(model: Arc<Model>, pool: Arc<Pool>, kv_budget_bytes: usize) -> Self {
        Self::try_new(model, pool, kv_budget_bytes).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A store of as many blocks as fit in `kv_budget_bytes`; memory is taken as blocks are first used.
    ///
    /// # Errors
    /// [`EngineError::KvStore`] if the system has no address space for the store.
    pub fn try_new(model: Arc<Model>, pool: Arc<Pool>, kv_budget_bytes: usize) -> Result<Self, EngineError> {
        let layout = model.kv_layout();
        let num_blocks = kv_budget_bytes / layout.block_bytes();
        Ok(Self {
            kv: KvCache::try_new(layout, num_blocks)?,
            model,
            pool,
            workspace: Workspace::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

impl Backend for CpuBackend {
    fn vocab_len(&self) -> usize {
        self.model.config().vocab_len
    }

    fn hidden_len(&self) -> usize {
        self.model.config().hidden_len
    }

    fn context_len(&self) -> usize {
        self.model.config().context_len
    }

    fn block_len(&self) -> usize {
        BLOCK_LEN
    }

    fn num_blocks(&self) -> usize {
        self.kv.num_blocks()
    }

    fn forward(
        &mut self,
        rows: &[BatchRow<'_>],
        outputs: &[usize],
        out: &mut ForwardOutput,
    ) -> Result<(), ModelError> {
        self.model
            .forward(&self.pool, &mut self.kv, rows, outputs, &mut self.workspace, out)
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.kv.copy_block(from, to);
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn stage_times(&self) -> StageTimes {
        self.workspace.times
    }
}
