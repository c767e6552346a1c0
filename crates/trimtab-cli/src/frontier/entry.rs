//! One finished prompt of one group, as the journal keeps it. Knows outcomes, no file.

use serde::{Deserialize, Serialize};
use trimtab_decode::{BlockKl, Candidate, Outcome};

/// What was drawn, and what stands beside it. Fields that a method has not are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Index into the plan's groups.
    pub(crate) group: usize,
    /// Index into the prompts.
    pub(crate) prompt: usize,
    /// Index into `candidates` of the decoder's own choice.
    pub(crate) chosen: usize,
    /// Tokens drawn in all.
    pub(crate) tokens_generated: u64,
    /// Every candidate drawn to its end.
    pub(crate) candidates: Vec<Candidate>,
    /// Drift by choices among blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) block_kl: Option<BlockKl>,
    /// Tokens drawn until the first part of the answer was certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tokens_to_first_commit: Option<u64>,
    /// What the scorers say of the answer, one a steering term.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) values: Vec<f64>,
    /// Further rewards. `[candidates][rewards_also]`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rewards_also: Vec<Vec<f64>>,
}

impl Entry {
    /// The entry of an outcome without its trace.
    pub(crate) fn new(group: usize, prompt: usize, outcome: Outcome, rewards_also: Vec<Vec<f64>>) -> Self {
        Self {
            group,
            prompt,
            chosen: outcome.chosen,
            tokens_generated: outcome.tokens_generated,
            candidates: outcome.candidates,
            block_kl: outcome.block_kl,
            tokens_to_first_commit: outcome.tokens_to_first_commit,
            values: outcome.values,
            rewards_also,
        }
    }

    /// The outcome that it was made of, without its trace.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome {
            block_kl: self.block_kl,
            tokens_to_first_commit: self.tokens_to_first_commit,
            values: self.values.clone(),
            ..Outcome::unsteered(self.candidates.clone(), self.chosen, self.tokens_generated)
        }
    }
}
