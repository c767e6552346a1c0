//! How far chosen blocks drift from the policy they are drawn from. Knows counts and values, no tokens.

use super::settings::{BlockChoice, CdBlockConfig};
use crate::trace::BlockKl;

/// The drift of one response as its choices are made.
pub(super) struct Drift {
    num_candidates: usize,
    first_nats: f64,
    per_choice_nats: f64,
    estimate_nats: Option<f64>,
}

impl Drift {
    /// Nothing chosen yet.
    ///
    /// Bounds, all by the chain rule over blocks. The best of K by one fixed order: `log K - (K-1)/K` a choice (CD
    /// section 4.4). Any other rule that keeps one of K: `log K`, because no block is kept more often than it is drawn.
    /// The best B of B K: a response is among the candidates at most `B K^n` times as often as the policy draws it,
    /// whence `log B + n log K`. Draws with replacement can copy a candidate B times: `n log(B K)`.
    pub(super) fn new(config: &CdBlockConfig, has_floor: bool) -> Self {
        let (num_candidates, beams) = (config.num_candidates as f64, config.beams as f64);
        let (first_nats, per_choice_nats) = match config.choice {
            BlockChoice::Best if config.beams == 1 && !has_floor => {
                (0.0, num_candidates.ln() - (num_candidates - 1.0) / num_candidates)
            }
            BlockChoice::Best => (beams.ln(), num_candidates.ln()),
            BlockChoice::Proportional { .. } => (0.0, (beams * num_candidates).ln()),
        };
        Self {
            num_candidates: config.num_candidates,
            first_nats,
            per_choice_nats,
            estimate_nats: (config.audit > 0).then_some(0.0),
        }
    }

    /// Adds what one choice is estimated to drift, from the values of blocks drawn for this alone.
    pub(super) fn add_estimate(&mut self, kept_value: f64, audit_values: &[f64]) {
        if let Some(estimate) = &mut self.estimate_nats {
            *estimate += log_ratio_estimate(self.num_candidates, kept_value, audit_values);
        }
    }

    /// The drift of an answer that `num_blocks` choices have made.
    pub(super) fn of_answer(&self, num_blocks: u64) -> BlockKl {
        let first_nats = if num_blocks == 0 { 0.0 } else { self.first_nats };
        BlockKl {
            num_choices: num_blocks,
            bound_nats: first_nats + num_blocks as f64 * self.per_choice_nats,
            estimate_nats: self.estimate_nats,
        }
    }
}

/// `log(P(z) / pi(z))` of a block `z` kept as the best of K, with the law of values estimated from other blocks.
///
/// With `F(v)` the probability of a value of at most `v` and `F(v-)` that of less, best-of-K keeps `z` with
/// `P(z) = pi(z) (F(v)^K - F(v-)^K) / (F(v) - F(v-))`, which without ties is the paper's `log K + (K-1) log F(V)`. The
/// quotient is the sum `sum_j F(v)^j F(v-)^(K-1-j)`, which needs no ties to be finite. The kept block itself is counted
/// once among the ties: where all blocks are equal the estimate is exactly 0, and where none of the others is as low it
/// is not minus infinity.
fn log_ratio_estimate(num_candidates: usize, kept_value: f64, audit_values: &[f64]) -> f64 {
    let num_below = audit_values.iter().filter(|&&value| value < kept_value).count() as f64;
    let num_tied = audit_values.iter().filter(|&&value| value == kept_value).count() as f64;
    let num_all = audit_values.len() as f64 + 1.0;
    let below = num_below / num_all;
    let at_most = (num_below + num_tied + 1.0) / num_all;
    let powers = num_candidates as f64;
    ((at_most.powf(powers) - below.powf(powers)) / (at_most - below)).ln()
}

#[cfg(test)]
mod tests;
