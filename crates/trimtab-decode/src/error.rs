//! What can go wrong while a decoder is described, built or driven.

use thiserror::Error;

/// Why a decoder cannot be built or cannot go on.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum DecodeError {
    /// A setting lies outside its range.
    #[error("{setting}: expected {expected}, got {got}")]
    InvalidSetting {
        /// The setting as the user writes it.
        setting: String,
        /// Its range, with the way to say what was probably meant.
        expected: String,
        /// The value.
        got: String,
    },
    /// No decoding method has this name.
    #[error("expected one of {known} as decoding method, got {got:?}{hint}")]
    UnknownMethod {
        /// The name as written.
        got: String,
        /// Names that exist.
        known: String,
        /// The nearest of them as a question, or nothing.
        hint: String,
    },
    /// A decoding method has no such option.
    #[error("{method}: expected one of {known} as option, got {got:?}{hint}")]
    UnknownOption {
        /// The method.
        method: String,
        /// The option as written.
        got: String,
        /// Options that exist.
        known: String,
        /// The nearest of them as a question, or nothing.
        hint: String,
    },
    /// An option is given twice.
    #[error("{method}: expected option {option} once, got it twice; remove one")]
    RepeatedOption {
        /// The method.
        method: String,
        /// The option.
        option: String,
    },
    /// The pattern of a majority vote is not a regular expression.
    #[error("pattern: expected a regular expression, got {pattern:?}: {problem}")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// What the regular expression library says.
        problem: String,
    },
    /// A row of logits is no distribution.
    #[error(
        "expected logits below infinity with at least one finite, got {num_nan} NaN, {num_infinite} +inf and \
         {num_impossible} -inf of {vocab_len}; the weights are damaged or the precision overflows: verify the \
         checkpoint or run in f32"
    )]
    UnusableLogits {
        /// Length of the row.
        vocab_len: usize,
        /// NaN among them.
        num_nan: usize,
        /// Positive infinities among them.
        num_infinite: usize,
        /// Negative infinities among them.
        num_impossible: usize,
    },
    /// A row lacks the values that steer a draw or a choice.
    #[error(
        "scorer {scorer}: expected its {kind} values with the row, got those of {num_scorers} scorers; load the scorer \
         (tokenwise control needs one with an action head)"
    )]
    MissingValues {
        /// `"action"` or `"state"`.
        kind: &'static str,
        /// Place of the scorer among those of the engine.
        scorer: usize,
        /// Scorers that came with the row.
        num_scorers: usize,
    },
    /// Values that, times their weight, leave nothing to draw from.
    #[error(
        "scorer {scorer}: expected a weight times value that leaves a token to draw, got {weight} * {value}; take a \
         weight nearer to 0, or retrain the scorer if its value is not finite"
    )]
    UnusableTilt {
        /// Place of the scorer among those of the engine.
        scorer: usize,
        /// The term's weight, the method's own weight included.
        weight: f64,
        /// A value that it meets.
        value: f64,
    },
    /// A value is not finite, so that blocks cannot be compared.
    #[error(
        "scorer {name}: expected a finite number as value of {num_tokens} tokens, got {value}; take another scorer or \
         retrain it"
    )]
    UnusableValue {
        /// The scorer.
        name: String,
        /// Length of the response that was valued.
        num_tokens: usize,
        /// The value.
        value: f64,
    },
    /// A steered method without anything to steer by.
    #[error("{method} is steered by prefix scorers and none is given; name one, e.g. --scorer DIR")]
    NoScorer {
        /// The method.
        method: &'static str,
    },
    /// A reward is NaN, so candidates cannot be ordered.
    #[error(
        "candidate {candidate_idx}: expected a number as reward, got NaN; fix the reward for this response"
    )]
    NanReward {
        /// Whose reward.
        candidate_idx: u64,
    },
    /// An answer is of another kind than the need.
    #[error("expected an answer with {expected}, got one with {got}; answer what `next_need` says")]
    UnexpectedAnswer {
        /// What the need asks for.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// An answer has a wrong number of entries.
    #[error("expected {expected} {what}, got {got}; answer every entry of the need, in order")]
    WrongAnswerCount {
        /// Kind of entry.
        what: &'static str,
        /// Entries asked for.
        expected: usize,
        /// Entries that came.
        got: usize,
    },
}

impl DecodeError {
    /// A setting out of range.
    pub(crate) fn invalid(setting: &str, expected: &str, got: &dyn std::fmt::Display) -> Self {
        Self::InvalidSetting {
            setting: setting.to_owned(),
            expected: expected.to_owned(),
            got: got.to_string(),
        }
    }
}
