//! Why a response became what it is: what was chosen at each step among what. Knows values, not where they come from.

use serde::{Deserialize, Serialize};
use trimtab_base::TokenId;

/// One decision of a steered decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TraceStep {
    /// A block was chosen among candidates.
    Block {
        /// Tokens committed before it.
        committed_len: usize,
        /// The candidates, in order of their index.
        candidates: Vec<TracedBlock>,
    },
    /// A token was drawn from tilted probabilities.
    Token {
        /// The token.
        token: TokenId,
        /// Its log-probability in nats under the reference.
        reference_log_prob: f64,
        /// Its log-probability in nats under the steered policy.
        log_prob: f64,
        /// Value of the response with this token, one a steering term, in the terms' units.
        values: Vec<f64>,
        /// Weight of each term at this step, the method's own weight and what a floor added included.
        weights: Vec<f64>,
        /// Exact `KL(policy || reference)` of the step, in nats.
        kl_nats: f64,
    },
}

/// A candidate block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracedBlock {
    /// Place of the branch it extends among those kept before; 0 where one is kept.
    pub parent: usize,
    /// Its tokens; none for a branch that had ended before and competes as it is.
    pub token_ids: Vec<TokenId>,
    /// Their text; invalid UTF-8 at its ends is U+FFFD.
    pub text: String,
    /// Log-probability in nats of the block under the reference.
    pub reference_log_prob: f64,
    /// Value of the response with this block, one a steering term, in the terms' units.
    pub values: Vec<f64>,
    /// The weighted sum by which it was chosen, what a floor added included.
    pub mixed_value: f64,
    /// Whether it was kept.
    pub is_kept: bool,
}

/// Drift of a response made of chosen blocks from the policy that blocks are drawn from. Where that policy is not the
/// reference, its own drift comes on top ([`crate::Candidate::log_prob`] less the reference's).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockKl {
    /// Choices that made the answer, one a block.
    pub num_choices: u64,
    /// Upper bound in nats, in expectation over answers: for the best of K `log K - (K-1)/K` a choice, `log K` under a
    /// floor; for B branches `log B` and `log K` a choice; for choices at random `log(B K)` each.
    pub bound_nats: f64,
    /// Sample estimate in nats from blocks drawn for this alone (`audit`), ties counted; `None` without such blocks.
    pub estimate_nats: Option<f64>,
}
