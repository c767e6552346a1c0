//! The enumerable model behind a paged store: tokens live in blocks, so a wrong fork, copy or reuse changes results.

use std::sync::{Arc, Mutex};

use trimtab_base::testing::{LetterTokens, TableLm};
use trimtab_base::{PromptKey, Seed, TokenId};
use trimtab_decode::{DecodeSpec, Decoder, DecoderInputs, Outcome, Steering, StopRules};
use trimtab_engine::{Backend, Engine, EngineConfig, EngineError, Event, Prompt, Request, RequestId, Usage};
use trimtab_kernels::pool::Pool;
use trimtab_model::{BatchRow, ForwardOutput, ModelError, RowInput};

/// Positions per block: small, so that short prompts span several.
pub(crate) const BLOCK_LEN: usize = 3;

/// What happened inside the backend.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) rows: usize,
    pub(crate) largest_batch: usize,
    pub(crate) blocks_copied: usize,
}

/// A [`Backend`] whose next-token law is a [`TableLm`]'s, read back from the blocks.
pub(crate) struct TableBackend {
    model: TableLm,
    prompt_len: usize,
    blocks: Vec<[Option<TokenId>; BLOCK_LEN]>,
    context_len: usize,
    hidden: Hidden,
    counts: Arc<Mutex<Counts>>,
    pool: Pool,
}

/// What the hidden state of a position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// One number that any wrong token before changes.
    Hash,
    /// A 1 at the place of the answer so far, [`place_of`]: a linear head can say any value.
    OneHot,
}

/// Length of [`Hidden::OneHot`]: one place for each sequence of up to 6 of 4 tokens.
pub(crate) const NUM_PLACES: usize = 5461;

/// The place of a sequence of tokens below 4 among all of them, the shorter first.
pub(crate) fn place_of(tokens: &[TokenId]) -> usize {
    tokens
        .iter()
        .fold(0, |place, token| place * 4 + token.index() + 1)
}

impl TableBackend {
    /// A store of `num_blocks` blocks; the model sees what follows the first `prompt_len` positions.
    pub(crate) fn new(num_blocks: usize, prompt_len: usize) -> (Self, Arc<Mutex<Counts>>) {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let backend = Self {
            model: TableLm {
                vocab: 4,
                max_len: 6,
                salt: 3,
            },
            prompt_len,
            blocks: vec![[None; BLOCK_LEN]; num_blocks],
            context_len: 40,
            hidden: Hidden::Hash,
            counts: Arc::clone(&counts),
            pool: Pool::new(2),
        };
        (backend, counts)
    }

    /// The same with one-hot hidden states, on `num_threads` threads.
    pub(crate) fn one_hot(
        num_blocks: usize,
        prompt_len: usize,
        num_threads: usize,
    ) -> (Self, Arc<Mutex<Counts>>) {
        let (backend, counts) = Self::new(num_blocks, prompt_len);
        let (hidden, pool) = (Hidden::OneHot, Pool::new(num_threads));
        (
            Self {
                hidden,
                pool,
                ..backend
            },
            counts,
        )
    }

    /// The hidden state at the last of `tokens`.
    fn push_hidden(&self, tokens: &[TokenId], hidden: &mut Vec<f32>) {
        match self.hidden {
            // A function of everything before, so that a wrong token anywhere shows in it.
            Hidden::Hash => {
                let hash = |hash: f32, token: &TokenId| (hash * 5.0 + token.0 as f32) % 9973.0;
                hidden.push(tokens.iter().fold(0.0, hash));
            }
            Hidden::OneHot => {
                let start = hidden.len();
                hidden.resize(start + NUM_PLACES, 0.0);
                hidden[start + place_of(&tokens[self.prompt_len.min(tokens.len())..])] = 1.0;
            }
        }
    }

    fn tokens_to(&self, row: &BatchRow<'_>) -> Vec<TokenId> {
        let token_at = |position: usize| {
            let block = row.blocks[position / BLOCK_LEN] as usize;
            self.blocks[block][position % BLOCK_LEN].expect("every earlier position has been written")
        };
        (0..=row.position as usize).map(token_at).collect()
    }
}

impl Backend for TableBackend {
    fn vocab_len(&self) -> usize {
        self.model.vocab
    }

    fn hidden_len(&self) -> usize {
        match self.hidden {
            Hidden::Hash => 1,
            Hidden::OneHot => NUM_PLACES,
        }
    }

    fn context_len(&self) -> usize {
        self.context_len
    }

    fn block_len(&self) -> usize {
        BLOCK_LEN
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn forward(
        &mut self,
        rows: &[BatchRow<'_>],
        outputs: &[usize],
        out: &mut ForwardOutput,
    ) -> Result<(), ModelError> {
        for row in rows {
            let token = match row.input {
                RowInput::Token(token) => token,
                // An embedding row stands for the token whose id it holds.
                RowInput::Embedding(values) => TokenId(values[0] as u32),
            };
            let block = row.blocks[row.position as usize / BLOCK_LEN] as usize;
            self.blocks[block][row.position as usize % BLOCK_LEN] = Some(token);
        }
        out.hidden.clear();
        out.logits.clear();
        for &idx in outputs {
            let tokens = self.tokens_to(&rows[idx]);
            self.push_hidden(&tokens, &mut out.hidden);
            let answered = &tokens[self.prompt_len.min(tokens.len())..];
            let shift: u64 = tokens
                .iter()
                .take(self.prompt_len)
                .map(|token| u64::from(token.0))
                .sum();
            let model = TableLm {
                salt: self.model.salt + shift,
                ..self.model
            };
            out.logits.extend(model.logits(answered));
        }
        let mut counts = self.counts.lock().expect("no test panics while counting");
        counts.rows += rows.len();
        counts.largest_batch = counts.largest_batch.max(rows.len());
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.blocks[to as usize] = self.blocks[from as usize];
        self.counts
            .lock()
            .expect("no test panics while counting")
            .blocks_copied += 1;
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }
}

/// Token ids from plain numbers.
pub(crate) fn tokens(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().map(|&id| TokenId(id)).collect()
}

/// A decoder for a prompt, with the end token of the enumerable model as the only stop rule; it asks for the rewards of
/// its candidates.
pub(crate) fn decoder(spec: &str, prompt: &[u32], seed: u64) -> Box<dyn Decoder> {
    let spec: DecodeSpec = spec.parse().expect("specs of tests are valid");
    spec.build_scored(inputs(prompt, seed, Arc::default()))
        .expect("settings of tests are valid")
}

/// A decoder with prefix scorers, which asks for rewards only to choose by them.
pub(crate) fn steered_decoder(
    spec: &str,
    prompt: &[u32],
    seed: u64,
    steering: Arc<Steering>,
) -> Box<dyn Decoder> {
    let spec: DecodeSpec = spec.parse().expect("specs of tests are valid");
    spec.build(inputs(prompt, seed, steering))
        .expect("settings of tests are valid")
}

fn inputs(prompt: &[u32], seed: u64, steering: Arc<Steering>) -> DecoderInputs {
    DecoderInputs {
        prompt_key: PromptKey::of_tokens(&tokens(prompt)),
        seed: Seed(seed),
        stop: StopRules {
            stop_tokens: vec![TableLm::EOS],
            stop_strings: Vec::new(),
            max_new_tokens: 6,
        },
        token_bytes: Arc::new(LetterTokens),
        steering,
        trace: false,
    }
}

/// A request for [`decoder`].
pub(crate) fn request(spec: &str, prompt: &[u32], seed: u64) -> Request {
    Request {
        prompt: Prompt::tokens(tokens(prompt)),
        decoder: decoder(spec, prompt, seed),
    }
}

/// The reward of all engine tests: the number of `a` in the text.
pub(crate) fn reward(text: &str) -> f64 {
    text.matches('a').count() as f64
}

/// A request with its result.
pub(crate) type Ended = (RequestId, Result<(Outcome, Usage), EngineError>);

/// Runs an engine until it is idle, answering rewards; results in the order of their ends.
pub(crate) fn run_to_end(engine: &mut Engine) -> Vec<Ended> {
    let mut ended = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().expect("the model accepts every batch") {
            match event {
                Event::RewardsWanted { request, candidates } => {
                    let rewards = candidates
                        .iter()
                        .map(|candidate| reward(&candidate.text))
                        .collect();
                    engine
                        .answer_rewards(request, rewards)
                        .expect("rewards are numbers");
                }
                Event::Finished {
                    request,
                    outcome,
                    usage,
                } => ended.push((request, Ok((outcome, usage)))),
                Event::Failed { request, error } => ended.push((request, Err(error))),
                Event::ValuesWanted { .. } => panic!("nothing here is asked for values"),
                Event::Committed { .. } => {}
            }
        }
    }
    ended
}

/// An engine over the enumerable model.
pub(crate) fn engine(
    num_blocks: usize,
    prompt_len: usize,
    config: EngineConfig,
) -> (Engine, Arc<Mutex<Counts>>) {
    let (backend, counts) = TableBackend::new(num_blocks, prompt_len);
    (
        Engine::new(Box::new(backend), config).expect("limits are positive"),
        counts,
    )
}
