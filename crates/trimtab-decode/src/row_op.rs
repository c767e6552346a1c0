//! Pure operations on one row of next-token logits. Knows no branches and no model.
//!
//! They are values rather than closures so that an engine can run many in parallel, with a vectorised version
//! that is tested against the slow one here.

use std::sync::Arc;

use trimtab_base::TokenId;

use crate::need::SampledToken;
use crate::sampling::Sampling;

/// What to compute from a row of logits `[vocab]`.
#[derive(Debug, Clone)]
pub enum RowOp {
    /// Draw one token from the row under `sampling`, by inverting the cumulative sum at `coin`.
    Sample {
        /// Temperature and truncation.
        sampling: Arc<Sampling>,
        /// Uniform in `[0, 1)`.
        coin: f64,
    },
    /// The `count` most probable tokens under the reference, best first, ties by lower token id.
    TopLogProbs {
        /// How many.
        count: usize,
    },
}

/// The result of a [`RowOp`].
#[derive(Debug, Clone, PartialEq)]
pub enum RowAnswer {
    /// To [`RowOp::Sample`].
    Sampled(SampledToken),
    /// To [`RowOp::TopLogProbs`]: tokens with log-probabilities in nats.
    Top(Vec<(TokenId, f64)>),
}
