//! The engine: `step() = schedule -> run -> postprocess`. Knows ids and needs; no texts, rewards or randomness.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use trimtab_decode::{Answer, BranchId, DecodeError, Need, RowAnswer, RowOp};
use trimtab_model::ModelError;
use trimtab_model::forward::{BatchRow, ForwardOutput};

use crate::active::Active;
use crate::backend::Backend;
use crate::block_manager::BlockManager;
use crate::prefix_cache::PrefixCache;
use crate::request::{Event, Request, RequestId, Span, Usage};
use crate::row_ops;
use crate::scheduler::{self, Planned, StepLimits, Waiting};
use crate::sequence::{RowState, SavedRow};

/// Limits of an engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Most rows in one step.
    pub max_batch_rows: usize,
    /// Most of these that prefill prompts, so that long prompts do not hold up decoding.
    pub prefill_chunk: usize,
    /// Keep whole blocks of prompts for later prompts that begin alike.
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

/// Why a request is refused or the engine stops.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No position to start from.
    #[error("empty prompt: expected at least one token (a model with a start token gives one)")]
    EmptyPrompt,
    /// Embedding rows that are not a whole number of hidden states.
    #[error("embedding span of {len} values is not a multiple of the hidden size {hidden_len}")]
    RaggedEmbeddings {
        /// Values in the span.
        len: usize,
        /// Width of hidden states.
        hidden_len: usize,
    },
    /// Prompt and answer cannot fit in the context.
    #[error(
        "prompt of {prompt} positions plus {new_tokens} new tokens exceeds the context of {context}; \
         shorten the prompt or lower the token limit"
    )]
    PromptTooLong {
        /// Positions of the prompt.
        prompt: usize,
        /// Most new tokens per branch.
        new_tokens: usize,
        /// Context of the model.
        context: usize,
    },
    /// The worst case cannot fit in the key/value store.
    #[error(
        "request needs up to {needed} key/value blocks ({branches} branches), the store has {available}; \
         lower the number of candidates or the token limit, or raise the memory budget"
    )]
    OverBudget {
        /// Worst case.
        needed: usize,
        /// Most branches alive at once.
        branches: usize,
        /// Blocks of the store.
        available: usize,
    },
    /// A limit of [`EngineConfig`] is zero.
    #[error("engine configuration: {field} is 0, expected at least 1")]
    ZeroLimit {
        /// Which.
        field: &'static str,
    },
    /// An id that is not running, or not waiting for what was given.
    #[error("request {id} is not waiting for {what}")]
    NotWaiting {
        /// Its number.
        id: u64,
        /// What was given.
        what: &'static str,
    },
    /// A decoder named a branch that it never made or has pruned.
    #[error("decoder named unknown branch {branch}")]
    UnknownBranch {
        /// The branch.
        branch: u32,
    },
    /// The decoder refused an answer.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The model refused a batch.
    #[error(transparent)]
    Model(#[from] ModelError),
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

/// Sees each computed row before its decoder does; prefix scorers read hidden states here.
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
            backend,
            config,
            cache: PrefixCache::default(),
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
        let hidden_len = self.backend.hidden_len();
        let reserved_blocks = self.admissible(&request, hidden_len)?;
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let prompt_positions = request.prompt.num_positions(hidden_len) as u64;
        let usage = Usage {
            prompt_positions,
            ..Usage::default()
        };
        self.queue
            .push_back((id, Active::new(request, hidden_len, reserved_blocks, usage)));
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
    /// The model refused the batch; requests' own failures are events instead.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        self.admit();
        let planned = self.schedule();
        if !planned.is_empty() {
            self.run(&planned)?;
        }
        Ok(self.postprocess())
    }

    /// Blocks that the request may need at worst.
    fn admissible(&self, request: &Request, hidden_len: usize) -> Result<usize, EngineError> {
        for span in &request.prompt.spans {
            if let Span::Embeddings(rows) = span
                && !rows.len().is_multiple_of(hidden_len)
            {
                return Err(EngineError::RaggedEmbeddings {
                    len: rows.len(),
                    hidden_len,
                });
            }
            if let Span::Tokens(tokens) = span
                && let Some(bad) = tokens
                    .iter()
                    .find(|token| token.index() >= self.backend.vocab_len())
            {
                let vocab_len = self.backend.vocab_len();
                return Err(ModelError::TokenOutOfRange {
                    token: bad.0,
                    vocab_len,
                }
                .into());
            }
        }
        let prompt = request.prompt.num_positions(hidden_len);
        if prompt == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        let (new_tokens, context) = (request.decoder.max_new_tokens(), self.backend.context_len());
        if prompt.saturating_add(new_tokens) > context {
            return Err(EngineError::PromptTooLong {
                prompt,
                new_tokens,
                context,
            });
        }
        let block_len = self.backend.block_len();
        let branches = request.decoder.max_live_branches();
        // One more block per branch, for its copy of the prompt's partly filled last block.
        let per_branch = new_tokens.div_ceil(block_len) + 1;
        let needed = branches
            .saturating_mul(per_branch)
            .saturating_add(prompt.div_ceil(block_len));
        let available = self.blocks.num_blocks();
        if needed > available {
            return Err(EngineError::OverBudget {
                needed,
                branches,
                available,
            });
        }
        Ok(needed)
    }

    /// Starts queued requests, in order, while their worst cases fit together.
    fn admit(&mut self) {
        while let Some((_, next)) = self.queue.front() {
            if self.reserved_blocks + next.reserved_blocks > self.blocks.num_blocks() {
                return;
            }
            let Some((id, mut active)) = self.queue.pop_front() else {
                return;
            };
            self.reserved_blocks += active.reserved_blocks;
            if self.config.prefix_cache {
                self.take_from_cache(&mut active);
            }
            self.active.insert(id, active);
        }
    }

    /// Gives the root the cached blocks of its prompt; at least one position is left to run, for its logits.
    fn take_from_cache(&mut self, active: &mut Active) {
        let block_len = self.backend.block_len();
        let usable = active
            .leading_tokens
            .len()
            .min(active.usage.prompt_positions as usize - 1);
        let found = self
            .cache
            .look_up(&active.leading_tokens[..usable], block_len, &mut self.blocks);
        if let Some(root) = active.branches.get_mut(&BranchId::ROOT) {
            root.num_stored = found.len() * block_len;
            root.pending.drain(..root.num_stored);
            active.usage.cached_positions = root.num_stored as u64;
            root.blocks = found;
        } else {
            for block in found {
                self.blocks.release(block);
            }
        }
    }

    fn schedule(&self) -> Vec<Planned> {
        let mut waiting = Vec::new();
        for (&request, active) in &self.active {
            let stale = active.stale_branches().into_iter();
            waiting.extend(stale.map(|(branch, num_pending)| Waiting {
                request,
                branch,
                num_pending,
            }));
        }
        let limits = StepLimits {
            max_rows: self.config.max_batch_rows,
            max_prefill_rows: self.config.prefill_chunk,
        };
        scheduler::plan(&waiting, limits, self.stats.steps as usize)
    }

    /// Runs the planned positions and marks where their branches' logits are.
    fn run(&mut self, planned: &[Planned]) -> Result<(), EngineError> {
        for plan in planned {
            self.make_room(plan);
        }
        let mut rows = Vec::new();
        let mut outputs = Vec::new();
        for plan in planned {
            let active = &self.active[&plan.request];
            let sequence = &active.branches[&plan.branch];
            for (offset, input) in sequence.pending[..plan.num_positions].iter().enumerate() {
                let position = (sequence.num_stored + offset) as u32;
                let input = active.row_input(input, self.backend.hidden_len());
                rows.push(BatchRow {
                    input,
                    position,
                    blocks: &sequence.blocks,
                });
            }
            if plan.num_positions == sequence.pending.len() {
                outputs.push(rows.len() - 1);
            }
        }
        self.backend.forward(&rows, &outputs, &mut self.output)?;
        self.stats.steps += 1;
        self.stats.rows += rows.len() as u64;
        self.stats.output_rows += outputs.len() as u64;
        self.mark_stored(planned);
        Ok(())
    }

    /// Blocks for the positions of `plan`. Admission has set them aside; cached blocks may have to go first.
    fn make_room(&mut self, plan: &Planned) {
        let Some(sequence) = self
            .active
            .get_mut(&plan.request)
            .and_then(|active| active.branches.get_mut(&plan.branch))
        else {
            return;
        };
        while sequence
            .reserve(plan.num_positions, &mut self.blocks, self.backend.as_mut())
            .is_none()
        {
            let evicted = self.cache.evict_one(&mut self.blocks);
            assert!(
                evicted,
                "admission reserves every block that an admitted request can need"
            );
        }
    }

    fn mark_stored(&mut self, planned: &[Planned]) {
        let (hidden_len, vocab_len) = (self.backend.hidden_len(), self.backend.vocab_len());
        let block_len = self.backend.block_len();
        let mut output_idx = 0;
        for plan in planned {
            let Some(active) = self.active.get_mut(&plan.request) else {
                continue;
            };
            active.usage.rows_run += plan.num_positions as u64;
            let Some(sequence) = active.branches.get_mut(&plan.branch) else {
                continue;
            };
            sequence.pending.drain(..plan.num_positions);
            sequence.num_stored += plan.num_positions;
            if !sequence.pending.is_empty() {
                continue;
            }
            sequence.row = RowState::InOutput(output_idx);
            if let Some(observer) = &mut self.observer {
                let hidden = &self.output.hidden[output_idx * hidden_len..][..hidden_len];
                let logits = &self.output.logits[output_idx * vocab_len..][..vocab_len];
                observer.on_row(plan.request, plan.branch, hidden, logits);
            }
            output_idx += 1;
            if self.config.prefix_cache && plan.branch == BranchId::ROOT {
                let whole = active.leading_tokens.len().min(sequence.num_stored);
                self.cache.insert(
                    &active.leading_tokens[..whole],
                    block_len,
                    &sequence.blocks,
                    &mut self.blocks,
                );
            }
        }
    }

    /// Feeds every decoder whose need is met, until none is, then keeps the rows that are still wanted.
    fn postprocess(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.start_prefilled(&mut events);
        loop {
            self.settle(&mut events);
            let ready: Vec<RequestId> = self
                .active
                .iter()
                .filter(|(_, active)| active.rows_ready())
                .map(|(&id, _)| id)
                .collect();
            if ready.is_empty() {
                break;
            }
            for (id, answers) in self.apply_row_ops(&ready) {
                let Some(active) = self.active.get_mut(&id) else {
                    continue;
                };
                let fed = answers.and_then(|rows| active.feed(Answer::Rows(rows), &mut self.blocks));
                if let Err(error) = fed {
                    self.remove(id);
                    events.push(Event::Failed { request: id, error });
                }
            }
        }
        self.save_rows();
        events
    }

    /// Lets decoders begin whose prompt has been run: forks made earlier would each have prefilled it again.
    fn start_prefilled(&mut self, events: &mut Vec<Event>) {
        let mut failed = Vec::new();
        for (&id, active) in &mut self.active {
            if active.is_prefilled()
                && let Err(error) = active.start(&mut self.blocks)
            {
                failed.push((id, error));
            }
        }
        for (request, error) in failed {
            self.remove(request);
            events.push(Event::Failed { request, error });
        }
    }

    /// Turns finished requests and unasked rewards into events.
    fn settle(&mut self, events: &mut Vec<Event>) {
        let mut done = Vec::new();
        for (&id, active) in &mut self.active {
            match &active.need {
                Some(Need::Done) => done.push(id),
                Some(Need::Rewards(candidates)) if !active.rewards_asked => {
                    active.rewards_asked = true;
                    events.push(Event::RewardsWanted {
                        request: id,
                        candidates: candidates.clone(),
                    });
                }
                _ => {}
            }
        }
        for id in done {
            let Some(active) = self.remove(id) else { continue };
            if let Some(outcome) = active.decoder.outcome() {
                events.push(Event::Finished {
                    request: id,
                    outcome: outcome.clone(),
                    usage: active.usage,
                });
            }
        }
    }

    /// Row operations of all `ready` requests, in parallel.
    fn apply_row_ops(&self, ready: &[RequestId]) -> Vec<(RequestId, Result<Vec<RowAnswer>, EngineError>)> {
        let mut tasks: Vec<(&RowOp, &[f32])> = Vec::new();
        let mut spans = Vec::new();
        for &id in ready {
            let active = &self.active[&id];
            let first = tasks.len();
            if let Some(Need::Rows(requests)) = &active.need {
                for request in requests {
                    if let Some(logits) = self.logits_of(active, request.branch) {
                        tasks.push((&request.op, logits));
                    }
                }
            }
            spans.push((id, first..tasks.len()));
        }
        let answers: Vec<OnceLock<Result<RowAnswer, DecodeError>>> =
            tasks.iter().map(|_| OnceLock::new()).collect();
        self.backend.pool().run(tasks.len(), &|task_idx| {
            let (op, logits) = tasks[task_idx];
            // Each task sets its own slot once, so a slot that is already set cannot occur.
            let _ = answers[task_idx].set(row_ops::apply(op, logits));
        });
        let mut answers: Vec<_> = answers.into_iter().map(OnceLock::into_inner).collect();
        let mut collect = |span: std::ops::Range<usize>| {
            answers[span]
                .iter_mut()
                .filter_map(Option::take)
                .collect::<Result<Vec<_>, _>>()
                .map_err(EngineError::from)
        };
        spans.into_iter().map(|(id, span)| (id, collect(span))).collect()
    }

    fn logits_of<'a>(&'a self, active: &'a Active, branch: BranchId) -> Option<&'a [f32]> {
        let vocab_len = self.backend.vocab_len();
        match &active.branches.get(&branch)?.row {
            RowState::Stale => None,
            RowState::InOutput(idx) => Some(&self.output.logits[idx * vocab_len..][..vocab_len]),
            RowState::Saved(row) => Some(&row.logits),
        }
    }

    /// Copies rows that outlive this step's output; branches forked from one row share one copy.
    fn save_rows(&mut self) {
        let (hidden_len, vocab_len) = (self.backend.hidden_len(), self.backend.vocab_len());
        let mut saved: HashMap<usize, Arc<SavedRow>> = HashMap::new();
        for sequence in self
            .active
            .values_mut()
            .flat_map(|active| active.branches.values_mut())
        {
            if let RowState::InOutput(idx) = sequence.row {
                let output = &self.output;
                let row = saved.entry(idx).or_insert_with(|| {
                    Arc::new(SavedRow {
                        hidden: output.hidden[idx * hidden_len..][..hidden_len].to_vec(),
                        logits: output.logits[idx * vocab_len..][..vocab_len].to_vec(),
                    })
                });
                sequence.row = RowState::Saved(Arc::clone(row));
            }
        }
    }

    /// Takes a request out and frees its blocks; the decoder stays readable.
    fn remove(&mut self, id: RequestId) -> Option<Active> {
        let mut active = self.active.remove(&id)?;
        active.free_branches(&mut self.blocks);
        self.reserved_blocks -= active.reserved_blocks;
        Some(active)
    }
}
