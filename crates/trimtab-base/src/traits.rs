//! Traits at crate seams: what decoders, rewards and tokenizers promise each other. Knows no implementation.

use thiserror::Error;

use crate::ids::TokenId;

/// Bytes of each token of a vocabulary, as generated text needs them.
///
/// Decoders match stop strings and build texts through this table; they never see a tokenizer.
pub trait TokenBytes: Send + Sync {
    /// Bytes that `token` adds to the text; empty for control tokens and for ids outside the vocabulary.
    fn bytes_of(&self, token: TokenId) -> &[u8];

    /// Text of a whole generated sequence. Invalid UTF-8 becomes U+FFFD.
    fn text_of(&self, tokens: &[TokenId]) -> String {
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|&token| self.bytes_of(token))
            .copied()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// One response to be scored.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreInput {
    /// The prompt as the user wrote it (no chat template).
    pub prompt: String,
    /// The response text.
    pub response: String,
    /// The response's tokens under the generator's tokenizer, end-of-sequence token included if it was drawn.
    pub token_ids: Vec<TokenId>,
    /// `log pi_ref(response | prompt)` in nats under the unmodified reference model at temperature 1.
    pub reference_log_prob: f64,
    /// Fields of the prompt's record besides the prompt, e.g. `answer` for verifiers.
    pub record: serde_json::Map<String, serde_json::Value>,
}

/// A reward `r(x, y)`: any scorer of whole responses, higher is better.
pub trait RewardModel: Send + Sync {
    /// Name as the user wrote it, for reports.
    fn name(&self) -> &str;

    /// Unit of the reward, e.g. "nats" or "1 if correct else 0".
    fn unit(&self) -> &str;

    /// Rewards of a batch, in order. The result has one finite or NaN value per input; the caller refuses NaN.
    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError>;

    /// Refuses a prompt's record that [`Self::score`] would refuse whatever the response, so that a missing field
    /// shows before anything is drawn. The error's `item_idx` is 0.
    ///
    /// # Errors
    /// A field that is missing or that the reward cannot use.
    fn check_record(&self, _record: &serde_json::Map<String, serde_json::Value>) -> Result<(), RewardError> {
        Ok(())
    }
}

/// Why a reward could not be computed.
#[derive(Debug, Error)]
pub enum RewardError {
    /// The record lacks a field that the reward reads.
    #[error("reward {reward}: item {item_idx} has no field {field:?}; the prompt records must carry it")]
    MissingField {
        /// The reward's name.
        reward: String,
        /// Place of the item in the batch.
        item_idx: usize,
        /// The missing field.
        field: String,
    },
    /// The record's field has a value that the reward cannot use.
    #[error("reward {reward}: item {item_idx} has {field} = {got}; expected {expected}")]
    BadField {
        /// The reward's name.
        reward: String,
        /// Place of the item in the batch.
        item_idx: usize,
        /// The field.
        field: String,
        /// What the reward can use.
        expected: String,
        /// The value as JSON.
        got: String,
    },
    /// A scorer's answer for one item is not a reward.
    #[error("reward {reward}: item {item_idx}: expected a number as reward, got {got}")]
    BadReward {
        /// The reward's name.
        reward: String,
        /// Place of the item in the batch.
        item_idx: usize,
        /// The answer, shortened.
        got: String,
    },
    /// An external scorer failed for good.
    #[error("reward {reward}: {problem}")]
    External {
        /// The reward's name.
        reward: String,
        /// What went wrong and what to do.
        problem: String,
    },
    /// A scorer answered with a wrong number of values.
    #[error("reward {reward}: expected {expected} rewards, got {got}")]
    WrongCount {
        /// The reward's name.
        reward: String,
        /// Inputs sent.
        expected: usize,
        /// Values received.
        got: usize,
    },
}
