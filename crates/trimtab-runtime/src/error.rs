//! Why a model cannot be opened or a job cannot be run. Knows no remedies beyond those its parts name.

use std::path::PathBuf;

use thiserror::Error;
use trimtab_base::RewardError;
use trimtab_checkpoint::CheckpointError;
use trimtab_decode::DecodeError;
use trimtab_engine::EngineError;
use trimtab_model::ModelError;
use trimtab_tokenizer::TokenizerError;

/// Errors of this crate.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The file could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model could not be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer could not be built, or cannot encode.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A llama2.c model has its vocabulary in a second file.
    #[error(
        "{path} is missing: a llama2.c model needs its vocabulary in the same folder, as tokenizer.bin or \
         tok{vocab_len}.bin"
    )]
    NoTokenizer {
        /// Where it was looked for first.
        path: PathBuf,
        /// Tokens that the model has.
        vocab_len: usize,
    },
    /// A conversation was asked of a model without a chat template.
    #[error("the model has no chat template, so it takes no system message; leave the system message out")]
    NoChatTemplate,
    /// A decoding method cannot be built.
    #[error("prompt {prompt_idx}: {source}")]
    Decode {
        /// Place of the prompt among the jobs.
        prompt_idx: usize,
        /// Why.
        source: DecodeError,
    },
    /// The engine refused a prompt or failed on it.
    #[error("prompt {prompt_idx}: {source}")]
    Engine {
        /// Place of the prompt among the jobs.
        prompt_idx: usize,
        /// Why.
        source: EngineError,
    },
    /// The engine stopped as a whole.
    #[error(transparent)]
    Step(EngineError),
    /// A reward could not be computed.
    #[error("scoring prompts {first_idx} to {last_idx}: {source}")]
    Reward {
        /// First prompt of the scored batch.
        first_idx: usize,
        /// Last prompt of the scored batch.
        last_idx: usize,
        /// Why.
        source: RewardError,
    },
    /// Rewards are needed and no reward was given.
    #[error("{decode} chooses by reward and none is given; name one, e.g. --reward length")]
    NoReward {
        /// The decoding method.
        decode: String,
    },
}
