//! The engine: `step() = schedule -> run -> postprocess`. Knows ids and needs; no texts, rewards or randomness.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use trimtab_decode::{Answer, BranchId, Need};
use trimtab_model::forward::ForwardOutput;
use trimtab_scorer::ScorerSet;

use crate::active::Active;
use crate::backend::Backend;
use crate::block_manager::BlockManager;
use crate::error::EngineError;
use crate::prefix_cache::PrefixCache;
use crate::request::{Event, Request, RequestId};

mod admission;
mod postprocess;
mod run;
mod scoring;

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
    /// Wall time that prefix scorers took: heads, and their product over the vocabulary.
    pub scorer_time: Duration,
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
    scorers: Option<Arc<ScorerSet>>,
    /// Memory for tilts, kept between steps.
    tilts: Vec<f32>,
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
            scorers: None,
            tilts: Vec::new(),
            stats: EngineStats::default(),
        })
    }

    /// Sets who sees each computed row.
    pub fn observe_rows(&mut self, observer: Box<dyn RowObserver>) {
        self.observer = Some(observer);
    }

    /// Sets the prefix scorers whose values decoders may ask for with their rows; their places in the set are the
    /// scorers' numbers in [`trimtab_decode::ValueSource::Row`]. Running requests see the new ones from the next step on.
    ///
    /// # Errors
    /// [`EngineError::ScorersOfOtherModel`] if they read other hidden states than this model's or say values of another
    /// vocabulary.
    pub fn set_scorers(&mut self, scorers: Arc<ScorerSet>) -> Result<(), EngineError> {
        let vocab_len = self.backend.vocab_len();
        let of_scorers = (scorers.hidden_len(), scorers.vocab_len().unwrap_or(vocab_len));
        let of_model = (self.backend.hidden_len(), vocab_len);
        if of_scorers != of_model {
            return Err(EngineError::ScorersOfOtherModel { of_scorers, of_model });
        }
        self.scorers = Some(scorers);
        Ok(())
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
        let waits = |need: &Need| matches!(need, Need::Rewards(_));
        self.answer_asked(id, "rewards", waits, Answer::Rewards(rewards))
    }

    /// Answers [`Event::ValuesWanted`]: for each prefix one value per asked term, in the terms' order.
    /// `[prefixes][asked terms]`
    ///
    /// # Errors
    /// The request does not wait for values, or its decoder refuses them (NaN, wrong count); it has failed then.
    pub fn answer_values(&mut self, id: RequestId, values: Vec<Vec<f64>>) -> Result<(), EngineError> {
        let waits = |need: &Need| matches!(need, Need::Values(_));
        self.answer_asked(id, "values", waits, Answer::Values(values))
    }

    /// Hands an answer to a request that was asked for it, and that nothing has answered yet.
    fn answer_asked(
        &mut self,
        id: RequestId,
        what: &'static str,
        waits: impl Fn(&Need) -> bool,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let active = self.active.get_mut(&id);
        let active = active.filter(|active| active.is_asked && active.need.as_ref().is_some_and(waits));
        let active = active.ok_or(EngineError::NotWaiting { id: id.0, what })?;
        let fed = active.feed(answer, &mut self.blocks);
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

    /// Runs one batch and tells what happened. An empty answer on a busy engine means that requests wait for
    /// rewards or values.
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
