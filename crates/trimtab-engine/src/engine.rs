//! The engine: `step() = schedule -> run -> postprocess`. Knows ids and needs; no texts, rewards or randomness.

use std::collections::{BTreeMap, VecDeque};

use trimtab_decode::{Answer, BranchId};
use trimtab_model::forward::ForwardOutput;

use crate::active::Active;
use crate::backend::Backend;
use crate::block_manager::BlockManager;
use crate::error::EngineError;
use crate::prefix_cache::PrefixCache;
use crate::request::{Event, Request, RequestId};

mod admission;
mod postprocess;
mod run;

/// Limits of an engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Most rows in one step.
    pub max_batch_rows: usize,
    /// Most of these that prefill prompts, so that long prompts do not hold up decoding.
    pub prefill_chunk: usize,
    /// Keep whole blocks of prompts for later prompts that begin alike, in at most half of the store.
    pub prefix_cache: bool,
}

impl EngineConfig {
    /// 512 rows, all of which may be prefill, with a prefix cache.
    pub fn standard() -> Self {
        Self {
            max_batch_rows: 512,
            prefill_chunk: 512,
            prefix_cache: true,
        }
    }
}

/// Counters since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Steps that ran the model.
    pub steps: u64,
    /// Rows run.
    pub rows: u64,
    /// Rows whose logits were wanted.
    pub output_rows: u64,
    /// Key/value blocks held now, the prefix cache's included.
    pub blocks_held: usize,
}

/// Sees each computed row before its decoder does; prefix scorers read hidden states here. A row that a decoder asks
/// for again in a later step is computed and seen again, the same.
pub trait RowObserver: Send {
    /// `hidden` `[hidden]` after the final norm, `logits` `[vocab]`, of the last position of `branch`.
    fn on_row(&mut self, request: RequestId, branch: BranchId, hidden: &[f32], logits: &[f32]);
}

/// Runs many requests in one batch.
pub struct Engine {
    backend: Box<dyn Backend>,
    config: EngineConfig,
    blocks: BlockManager,
    cache: PrefixCache,
    queue: VecDeque<(RequestId, Active)>,
    active: BTreeMap<RequestId, Active>,
    reserved_blocks: usize,
    next_id: u64,
    output: ForwardOutput,
    observer: Option<Box<dyn RowObserver>>,
    stats: EngineStats,
}

impl Engine {
    /// An idle engine over `backend`.
    ///
    /// # Errors
    /// A limit that is zero.
    pub fn new(backend: Box<dyn Backend>, config: EngineConfig) -> Result<Self, EngineError> {
        for (field, value) in [
            ("max_batch_rows", config.max_batch_rows),
            ("prefill_chunk", config.prefill_chunk),
        ] {
            if value == 0 {
                return Err(EngineError::ZeroLimit { field });
            }
        }
        Ok(Self {
            blocks: BlockManager::new(backend.num_blocks()),
            cache: PrefixCache::new(backend.num_blocks() / 2),
            backend,
            config,
            queue: VecDeque::new(),
            active: BTreeMap::new(),
            reserved_blocks: 0,
            next_id: 0,
            output: ForwardOutput::default(),
            observer: None,
            stats: EngineStats::default(),
        })
    }

    /// Sets who sees each computed row.
    pub fn observe_rows(&mut self, observer: Box<dyn RowObserver>) {
        self.observer = Some(observer);
    }

    /// Queues a request.
    ///
    /// # Errors
    /// What can never run: an empty prompt, one beyond the context, more branches than the store holds.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, EngineError> {
        let active = self.admissible(request)?;
        self.next_id += 1;
        let id = RequestId(self.next_id);
        self.queue.push_back((id, active));
        Ok(id)
    }

    /// Ends a request and frees its storage at once. Unknown ids are an error, so that a double cancel is seen.
    pub fn cancel(&mut self, id: RequestId) -> Result<(), EngineError> {
        if let Some(place) = self.queue.iter().position(|(queued, _)| *queued == id) {
            self.queue.remove(place);
            return Ok(());
        }
        self.remove(id).map(drop).ok_or(EngineError::NotWaiting {
            id: id.0,
            what: "a cancellation",
        })
    }

    /// Answers [`Event::RewardsWanted`].
    ///
    /// # Errors
    /// The request does not wait for rewards, or its decoder refuses them (NaN, wrong count); it has failed then.
    pub fn answer_rewards(&mut self, id: RequestId, rewards: Vec<f64>) -> Result<(), EngineError> {
        let waiting = self.active.get_mut(&id).filter(|active| active.rewards_asked);
        let active = waiting.ok_or(EngineError::NotWaiting {
            id: id.0,
            what: "rewards",
        })?;
        let fed = active.feed(Answer::Rewards(rewards), &mut self.blocks);
        if fed.is_err() {
            self.remove(id);
        }
        fed
    }

    /// Whether nothing is queued or running.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.active.is_empty()
    }

    /// Counters so far.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            blocks_held: self.blocks.num_blocks() - self.blocks.num_free(),
            ..self.stats
        }
    }

    /// The model runner, e.g. for its timings.
    pub fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }

    /// Runs one batch and tells what happened. An empty answer on a busy engine means that requests wait for rewards.
    ///
    /// # Errors
    /// None at present: a batch that the model refuses fails the requests in it, as events, and others go on.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        self.admit();
        let mut events = Vec::new();
        self.run_batch(&mut events);
        self.postprocess(&mut events);
        Ok(events)
    }

    /// Ends a request with an error and frees its storage.
    fn fail(&mut self, request: RequestId, error: EngineError, events: &mut Vec<Event>) {
        if self.remove(request).is_some() {
            events.push(Event::Failed { request, error });
        }
    }

    /// Takes a request out and frees its blocks; the decoder stays readable.
    fn remove(&mut self, id: RequestId) -> Option<Active> {
        let mut active = self.active.remove(&id)?;
        active.free_branches(&mut self.blocks);
        self.reserved_blocks -= active.announced.blocks;
        Some(active)
    }
}
