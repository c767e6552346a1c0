//! What goes into the engine and what comes out. Knows no scheduling.

use trimtab_base::TokenId;
use trimtab_decode::{Candidate, Decoder, Outcome, Prefix};

use crate::error::EngineError;

/// Identity of a submitted request, unique per engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A stretch of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Span {
    /// Token ids.
    Tokens(Vec<TokenId>),
    /// Embedding rows from an encoder, one position each. `[positions, hidden]`
    Embeddings(Vec<f32>),
}

/// A prompt: spans in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// The spans.
    pub spans: Vec<Span>,
}

impl Prompt {
    /// A prompt of token ids alone.
    pub fn tokens(tokens: Vec<TokenId>) -> Self {
        Self {
            spans: vec![Span::Tokens(tokens)],
        }
    }

    /// Positions it occupies in a model of width `hidden_len`.
    pub fn num_positions(&self, hidden_len: usize) -> usize {
        let positions = |span: &Span| match span {
            Span::Tokens(tokens) => tokens.len(),
            Span::Embeddings(rows) => rows.len() / hidden_len.max(1),
        };
        self.spans.iter().map(positions).sum()
    }
}

/// A prompt and what to do with it.
pub struct Request {
    /// The prompt.
    pub prompt: Prompt,
    /// The decoding algorithm.
    pub decoder: Box<dyn Decoder>,
}

/// What a request cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Positions of the prompt.
    pub prompt_positions: u64,
    /// Of these, taken from the prefix cache.
    pub cached_positions: u64,
    /// Rows run through the model for this request, prompt rows included.
    pub rows_run: u64,
}

/// Something the caller must know of.
#[derive(Debug)]
pub enum Event {
    /// The decoder wants rewards; answer with [`crate::Engine::answer_rewards`].
    RewardsWanted {
        /// Whose.
        request: RequestId,
        /// Finished candidates, in the order the answer must have.
        candidates: Vec<Candidate>,
    },
    /// The decoder wants values that no scorer of the engine says; answer with [`crate::Engine::answer_values`].
    ValuesWanted {
        /// Whose.
        request: RequestId,
        /// Responses as far as they go, in the order the answer must have.
        prefixes: Vec<Prefix>,
    },
    /// More of the answer is certain, for streaming.
    Committed {
        /// Whose.
        request: RequestId,
        /// The tokens that follow those of earlier events.
        token_ids: Vec<TokenId>,
    },
    /// The request ended.
    Finished {
        /// Which.
        request: RequestId,
        /// Its result.
        outcome: Outcome,
        /// Its cost.
        usage: Usage,
    },
    /// The request failed; its storage is free again, others go on.
    Failed {
        /// Which.
        request: RequestId,
        /// Why.
        error: EngineError,
    },
}
