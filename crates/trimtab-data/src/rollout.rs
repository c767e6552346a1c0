//! One response to one prompt, with what training on it needs. Knows no file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::message::{Message, turns};

/// A response to a prompt: sampled from a model, or taken from a data set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Place of the prompt in its set. In a data set that has no such column, consecutive rows with one prompt share it.
    pub prompt_idx: u64,
    /// Place of the response among those to its prompt.
    pub sample_idx: u64,
    /// The prompt as rewards see it: what the user said, without a chat template; a dialogue as a transcript.
    pub prompt: String,
    /// The turns of a dialogue; empty if the prompt is one turn of the user.
    pub messages: Vec<Message>,
    /// The response's text.
    pub response: String,
    /// The prompt as the model got it, chat template included; empty if it was not tokenised.
    pub prompt_token_ids: Vec<u32>,
    /// The response's tokens, one that ends the sequence included if it was drawn; empty if it was not tokenised.
    pub response_token_ids: Vec<u32>,
    /// Why it ended: `stop_token`, `stop_string`, `length`, or empty if nobody knows.
    pub finish: String,
    /// Under the policy that it was drawn from, in nats; `None` if it was not drawn here.
    pub log_prob: Option<f64>,
    /// Under the reference at temperature 1, in nats; `None` if unknown.
    pub reference_log_prob: Option<f64>,
    /// Rewards by name, each finite and in the unit that the manifest says.
    pub rewards: BTreeMap<String, f64>,
    /// The other columns of the prompt's row, e.g. `answer` for rewards that read it.
    pub record: Map<String, Value>,
}

impl Rollout {
    /// The turns of the prompt, at least one.
    pub fn turns(&self) -> Vec<Message> {
        turns(&self.prompt, &self.messages)
    }

    /// A number that is not finite, by the column's name.
    pub(crate) fn not_finite(&self) -> Option<(String, f64)> {
        let log_probs = [
            ("log_prob", self.log_prob),
            ("reference_log_prob", self.reference_log_prob),
        ];
        let log_probs = log_probs
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let rewards = self
            .rewards
            .iter()
            .map(|(name, &value)| (format!("{REWARD_PREFIX}{name}"), value));
        log_probs.chain(rewards).find(|(_, value)| !value.is_finite())
    }
}

/// What stands before a reward's name in the name of its column.
pub(crate) const REWARD_PREFIX: &str = "reward:";
