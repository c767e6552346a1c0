//! Why a model cannot be opened or a job cannot be run. Knows no remedies beyond those its parts name.
//!
//! A variant that writes its cause into its text does not also hand it out as a source: whoever prints the chain of
//! sources would print it twice.

use std::path::PathBuf;

use thiserror::Error;
use trimtab_base::RewardError;
use trimtab_checkpoint::{CheckpointError, WriteError};
use trimtab_decode::DecodeError;
use trimtab_engine::EngineError;
use trimtab_kernels::pool::PoolError;
use trimtab_model::ModelError;
use trimtab_scorer::ScorerError;
use trimtab_tokenizer::TokenizerError;

/// Errors of this crate.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The file could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of an export could not be written.
    #[error(transparent)]
    Write(Box<WriteError>),
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
    /// The prompt writes a control token out, and the chat template does not tell it from its own.
    #[error(
        "the prompt or the system message holds a control token of the model, and its chat template changes what it \
         is given, so the token cannot be kept as text; remove it, or use --raw"
    )]
    ControlTokens,
    /// A decoding method cannot be built.
    #[error("{}{cause}", prefix(label))]
    Decode {
        /// [`Job::label`](crate::Job::label).
        label: String,
        /// Why.
        cause: DecodeError,
    },
    /// The engine refused a prompt or failed on it.
    #[error("{}{cause}", prefix(label))]
    Engine {
        /// [`Job::label`](crate::Job::label).
        label: String,
        /// Why.
        cause: Box<EngineError>,
    },
    /// An engine cannot be had, or stopped as a whole.
    #[error("{cause}")]
    Step {
        /// Why.
        cause: EngineError,
    },
    /// The threads cannot be had.
    #[error("{cause}")]
    Threads {
        /// Why.
        cause: PoolError,
    },
    /// A reward could not be computed.
    #[error("{}", scoring_problem(label, cause))]
    Reward {
        /// [`Job::label`](crate::Job::label).
        label: String,
        /// Why. Items are the job's candidates, in order of their index.
        cause: Box<RewardError>,
    },
    /// The thread that scores has died, so rewards will never come.
    #[error(
        "the reward stopped working in the middle of a score; this is a bug of the reward, please report it"
    )]
    ScorerDied,
    /// A response does not fit the model.
    #[error(
        "response {idx}: a prompt of {prompt} tokens and a response of {response} exceed the context of {context}; leave \
         the response out, or draw with fewer new tokens"
    )]
    ResponseTooLong {
        /// Its place among the items.
        idx: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the response.
        response: usize,
        /// Context of the model.
        context: usize,
    },
    /// A sequence classifier was asked for text.
    #[error(
        "the model is a sequence classifier (labels {}), which writes no text; use it as a reward, head:MODEL",
        labels.join(", ")
    )]
    NoLanguageModel {
        /// Its labels.
        labels: Vec<String>,
    },
    /// A reward was asked of a sequence classifier by a label that it does not have, or by none where it has many.
    #[error("label {label:?}: expected one of {}, as in head:MODEL#{}", labels.join(", "), labels[0])]
    NoLabel {
        /// The label as given, empty if none.
        label: String,
        /// The labels that it has, at least one.
        labels: Vec<String>,
    },
    /// A prompt without a token has no state.
    #[error("response {idx}: its prompt has no tokens, expected at least one")]
    EmptyPromptIds {
        /// Its place among the items.
        idx: usize,
    },
    /// Token features were made for another model.
    #[error(
        "token features for a vocabulary of {features} tokens, the model has {model}; make them from this model"
    )]
    OtherVocabulary {
        /// Tokens that have features.
        features: usize,
        /// Tokens of the model.
        model: usize,
    },
    /// A scorer reads hidden states of another width than the model has.
    #[error(
        "scorer {scorer} reads hidden states of {expected}, the model has {got}; use the model that it was trained on"
    )]
    OtherWidth {
        /// Name of the scorer.
        scorer: String,
        /// Width that it reads.
        expected: usize,
        /// Width that the model has.
        got: usize,
    },
    /// A steering term that nobody answers.
    #[error("no scorer is called {name}, which the job's steering asks for values")]
    NoScorer {
        /// Name of the term.
        name: String,
    },
    /// A value is NaN, so that blocks cannot be ordered.
    #[error(
        "{}scorer {name}: expected a number as value, got NaN for the response that begins {text:?}; fix the scorer, \
         or leave it out",
        prefix(label)
    )]
    NanValue {
        /// The scorer.
        name: String,
        /// [`Job::label`](crate::Job::label).
        label: String,
        /// The response's beginning.
        text: String,
    },
    /// A scorer cannot be read or used.
    #[error(transparent)]
    Scorer(Box<ScorerError>),
    /// Rewards are needed and no reward was given.
    #[error("{decode} chooses by reward and none is given; name one, e.g. --reward length")]
    NoReward {
        /// The decoding method.
        decode: String,
    },
}

impl From<WriteError> for RuntimeError {
    fn from(error: WriteError) -> Self {
        Self::Write(Box::new(error))
    }
}

impl From<ScorerError> for RuntimeError {
    fn from(error: ScorerError) -> Self {
        Self::Scorer(Box::new(error))
    }
}

/// A label before a message; nothing for the one job of a run that needs no name.
fn prefix(label: &str) -> String {
    if label.is_empty() {
        String::new()
    } else {
        format!("{label}: ")
    }
}

/// Why a job has no rewards. A reward numbers the items of its batch, which mean nothing to users: they have prompts
/// and candidates.
fn scoring_problem(label: &str, cause: &RewardError) -> String {
    let (of_label, the_prompt) = if label.is_empty() {
        (String::new(), "the prompt")
    } else {
        (format!(" of {label}"), label)
    };
    match cause {
        RewardError::BadReward {
            reward,
            item_idx,
            got,
        } => format!(
            "reward {reward}: candidate {item_idx}{of_label}: expected a number as reward, got {got}; fix the reward \
             for this response"
        ),
        RewardError::MissingField { reward, field, .. } => {
            format!("reward {reward}: {the_prompt} has no field {field:?}; its record must carry it")
        }
        RewardError::BadField {
            reward,
            field,
            expected,
            got,
            ..
        } => format!("reward {reward}: {the_prompt} has {field} = {got}; expected {expected}"),
        RewardError::External { .. } | RewardError::WrongCount { .. } => {
            format!("scoring {the_prompt}: {cause}")
        }
    }
}
