//! Hidden states and logits of given token sequences: nothing is drawn. Knows tokens and blocks, no texts or values.
//!
//! Rows go through the model's own forward pass over a key/value store of this reader, many sequences in a batch, so
//! that each row has the bits that it has in an engine. What sequences begin with is run once: whole blocks stay in a
//! prefix cache, keyed by their tokens, which is also how a text that was re-tokenised differently at its end is rolled
//! back to where it is still the same.

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_engine::EngineError;
use trimtab_engine::block_manager::BlockManager;
use trimtab_engine::prefix_cache::PrefixCache;
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_kernels::pool::Pool;
use trimtab_model::{BatchRow, ForwardOutput, Model, RowInput, Workspace};

use crate::error::RuntimeError;
use crate::loaded::LoadedModel;

/// How much memory the reading of states takes; nothing here changes a bit of what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderLimits {
    /// Most rows in one pass, at least 1. Logits of all of them are held at once: `rows * vocab * 4` bytes.
    pub rows_per_pass: usize,
    /// Positions of earlier sequences that are kept for later ones that begin alike.
    pub kept_positions: usize,
}

impl ReaderLimits {
    /// 256 rows, enough to use the machine's arithmetic, and 8192 positions.
    pub fn standard() -> Self {
        Self {
            rows_per_pass: 256,
            kept_positions: 8192,
        }
    }
}

/// A sequence to run.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    /// All its tokens, at least one and at most the model's context.
    pub(crate) tokens: Vec<TokenId>,
    /// First position whose hidden state and logits are wanted; the later ones are wanted too.
    pub(crate) first_output: usize,
    /// Leading tokens that later sequences may share.
    pub(crate) shared_len: usize,
}

/// Which sequence an output row of a pass belongs to; rows of one sequence come in order of position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputRow {
    pub(crate) sequence: usize,
    /// Whether it is the last of its sequence.
    pub(crate) is_last: bool,
}

/// Takes the wanted rows of one pass.
pub(crate) type OnPass<'a, E> = dyn FnMut(&[OutputRow], &ForwardOutput) -> Result<(), E> + 'a;

/// A sequence under way.
struct Open {
    sequence_idx: usize,
    sequence: Sequence,
    /// In order of position.
    blocks: Vec<u32>,
    /// Positions run or planned.
    num_planned: usize,
}

/// Positions of one open sequence in a pass.
#[derive(Debug, Clone, Copy)]
struct Planned {
    open_idx: usize,
    start: usize,
    end: usize,
}

/// Runs sequences through a model.
pub(crate) struct StateReader {
    model: Arc<Model>,
    pool: Arc<Pool>,
    kv: KvCache,
    blocks: BlockManager,
    cache: PrefixCache,
    max_cached: usize,
    rows_per_pass: usize,
    workspace: Workspace,
    output: ForwardOutput,
}

impl StateReader {
    /// A reader over `model` with a store of its own, whose memory is taken as it is used.
    pub(crate) fn try_new(model: &LoadedModel, limits: ReaderLimits) -> Result<Self, RuntimeError> {
        let packed = Arc::clone(model.model());
        let rows_per_pass = limits.rows_per_pass.max(1);
        // Each row of a pass may open a sequence and so a block; one sequence may be as long as the context.
        let context_blocks = packed.config().context_len.div_ceil(BLOCK_LEN) + 1;
        let max_cached = limits.kept_positions.div_ceil(BLOCK_LEN).max(1);
        let num_blocks = context_blocks + rows_per_pass + max_cached;
        let kv = KvCache::try_new(packed.kv_layout(), num_blocks).map_err(|cause| RuntimeError::Step {
            cause: EngineError::from(cause),
        })?;
        Ok(Self {
            model: packed,
            pool: Arc::clone(model.pool()),
            blocks: BlockManager::new(kv.num_blocks()),
            cache: PrefixCache::new(max_cached),
            max_cached,
            kv,
            rows_per_pass,
            workspace: Workspace::default(),
            output: ForwardOutput::default(),
        })
    }

    /// Runs `sequences` to their ends, handing out the wanted rows of each pass.
    ///
    /// # Errors
    /// A token outside the vocabulary, or whatever `on_pass` returns; the reader is usable afterwards.
    pub(crate) fn run<E: From<RuntimeError>>(
        &mut self,
        sequences: &mut dyn Iterator<Item = Sequence>,
        on_pass: &mut OnPass<'_, E>,
    ) -> Result<(), E> {
        let mut sequences = sequences.enumerate();
        let mut open: Vec<Open> = Vec::new();
        loop {
            let planned = self.plan(&mut sequences, &mut open);
            if planned.is_empty() {
                if open.is_empty() {
                    return Ok(());
                }
                self.forget();
                let cause = EngineError::OutOfBlocks { branch: 0 };
                return Err(RuntimeError::Step { cause }.into());
            }
            let result = self
                .forward(&open, &planned)
                .map_err(E::from)
                .and_then(|rows| on_pass(&rows, &self.output));
            if let Err(error) = result {
                // What is planned and cached may not have been run.
                self.forget();
                return Err(error);
            }
            let blocks = &mut self.blocks;
            open.retain(|open| {
                let is_unfinished = open.num_planned < open.sequence.tokens.len();
                if !is_unfinished {
                    open.blocks.iter().for_each(|&block| blocks.release(block));
                }
                is_unfinished
            });
        }
    }

    /// Frees every block.
    fn forget(&mut self) {
        self.blocks = BlockManager::new(self.kv.num_blocks());
        self.cache = PrefixCache::new(self.max_cached);
    }

    /// Fills a pass: first what the last one left over, then fresh sequences.
    fn plan(
        &mut self,
        fresh: &mut dyn Iterator<Item = (usize, Sequence)>,
        open: &mut Vec<Open>,
    ) -> Vec<Planned> {
        let mut planned = Vec::new();
        let mut room = self.rows_per_pass;
        while room > 0 {
            let is_unfinished = |open: &Open| open.num_planned < open.sequence.tokens.len();
            if !open.last().is_some_and(is_unfinished) {
                let Some((sequence_idx, sequence)) = fresh.next() else {
                    break;
                };
                let next = self.open(sequence_idx, sequence);
                open.push(next);
            }
            let open_idx = open.len() - 1;
            let Some(current) = open.last_mut() else { break };
            let start = current.num_planned;
            let end = current.sequence.tokens.len().min(start + room);
            if !reserve(&mut self.blocks, &mut self.cache, &mut current.blocks, end) {
                // Sequences of this pass hold the rest of the store; they free it afterwards. The first sequence of a
                // pass always finds room, because the store holds a whole context beside what a pass may hold.
                break;
            }
            current.num_planned = end;
            let shared_len = current.sequence.shared_len.min(end);
            // Its rows come before those of whoever finds these blocks, in this pass or an earlier one.
            self.cache.insert(
                &current.sequence.tokens[..shared_len],
                BLOCK_LEN,
                &current.blocks,
                &mut self.blocks,
            );
            room -= end - start;
            planned.push(Planned { open_idx, start, end });
        }
        planned
    }

    fn open(&mut self, sequence_idx: usize, sequence: Sequence) -> Open {
        let usable = sequence.first_output.min(sequence.tokens.len());
        let blocks = self
            .cache
            .look_up(&sequence.tokens[..usable], BLOCK_LEN, &mut self.blocks);
        Open {
            sequence_idx,
            sequence,
            num_planned: blocks.len() * BLOCK_LEN,
            blocks,
        }
    }

    fn forward(&mut self, open: &[Open], planned: &[Planned]) -> Result<Vec<OutputRow>, RuntimeError> {
        let mut rows = Vec::with_capacity(self.rows_per_pass);
        let (mut outputs, mut output_rows) = (Vec::new(), Vec::new());
        for plan in planned {
            let Open {
                sequence_idx,
                sequence,
                blocks,
                ..
            } = &open[plan.open_idx];
            for position in plan.start..plan.end {
                if position >= sequence.first_output {
                    outputs.push(rows.len());
                    output_rows.push(OutputRow {
                        sequence: *sequence_idx,
                        is_last: position + 1 == sequence.tokens.len(),
                    });
                }
                rows.push(BatchRow {
                    input: RowInput::Token(sequence.tokens[position]),
                    position: position as u32,
                    blocks,
                });
            }
        }
        self.model.forward(
            &self.pool,
            &mut self.kv,
            &rows,
            &outputs,
            &mut self.workspace,
            &mut self.output,
        )?;
        Ok(output_rows)
    }
}

/// Blocks for `num_positions`; `false` if running sequences hold all others.
fn reserve(
    blocks: &mut BlockManager,
    cache: &mut PrefixCache,
    held: &mut Vec<u32>,
    num_positions: usize,
) -> bool {
    while held.len() * BLOCK_LEN < num_positions {
        match blocks.allocate() {
            Some(block) => held.push(block),
            None if cache.evict_one(blocks) => {}
            None => return false,
        }
    }
    true
}
