//! Why a request is refused or fails, and why an engine cannot be had. Knows no states.

use std::sync::Arc;

use thiserror::Error;
use trimtab_decode::DecodeError;
use trimtab_kernels::kv_cache::KvCacheError;
use trimtab_model::ModelError;

/// Why a request is refused or fails, or an engine cannot be had.
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
        "prompt of {prompt} positions plus {new_tokens} new tokens (the last takes no position) exceeds the context \
         of {context}; shorten the prompt or lower the token limit"
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
    /// The system has no room for the key/value store.
    #[error(
        "cannot set aside {} MiB for keys and values: {}; lower the key/value memory budget",
        .source.num_bytes >> 20,
        .source.source
    )]
    KvStore {
        /// With the bytes asked for.
        #[from]
        source: KvCacheError,
    },
    /// A limit of [`crate::EngineConfig`] is zero.
    #[error("engine configuration: {field} is 0, expected at least 1")]
    ZeroLimit {
        /// Which.
        field: &'static str,
    },
    /// Prefix scorers that were trained on another model.
    #[error(
        "scorers read hidden states of {} and a vocabulary of {}, the model has {} and {}; train scorers for this model",
        .of_scorers.0, .of_scorers.1, .of_model.0, .of_model.1
    )]
    ScorersOfOtherModel {
        /// Width of the hidden states they read, tokens whose values they say.
        of_scorers: (usize, usize),
        /// The same of the model.
        of_model: (usize, usize),
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
    /// A decoder keeps more branches than it announced, for which no memory is set aside.
    #[error("decoder keeps {live} branches alive, it announced at most {announced}")]
    TooManyBranches {
        /// Branches alive.
        live: usize,
        /// Most that it announced.
        announced: usize,
    },
    /// A decoder asks for a row beyond the length that it announced, for which no memory is set aside.
    #[error(
        "decoder asks what follows {new_tokens} new tokens of branch {branch}, it announced at most {announced} \
         in all"
    )]
    BranchTooLong {
        /// The branch.
        branch: u32,
        /// Its tokens beyond the prompt.
        new_tokens: usize,
        /// Most that it announced.
        announced: usize,
    },
    /// Every block is held by running requests, which admission rules out.
    #[error("no key/value block is left for branch {branch}; the request's need was underestimated")]
    OutOfBlocks {
        /// The branch.
        branch: u32,
    },
    /// The decoder refused an answer.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The model cannot take the prompt.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model refused the batch that the request was in.
    #[error("the model refused a batch of {num_requests} requests: {source}")]
    BatchRefused {
        /// Requests in the batch, which all fail with it.
        num_requests: usize,
        /// Why.
        source: Arc<ModelError>,
    },
}
