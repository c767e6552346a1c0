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
                (0.0, best_of_k_bound_nats(num_candidates))
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
            *estimate += choice_estimate_nats(self.num_candidates, kept_value, audit_values);
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

/// What one choice of the best of K adds to the divergence, with the ties estimated from blocks drawn for this alone.
///
/// With `F(v)` the probability of a value of at most `v` and `F(v-)` that of less, best-of-K keeps a block `z` with
/// `P(z) = pi(z) (F(v)^K - F(v-)^K) / (F(v) - F(v-))`. Without ties the mean of the logarithm of that quotient, the
/// paper's `E[log K + (K-1) log F(V)]`, is `log K - (K-1)/K` whatever the law of values; only ties take it lower. So
/// they alone are estimated: were equals told apart by a fair number, the position `u` of the kept block in
/// `[F(v-), F(v)]` would have the density `u^(K-1)`, and its divergence from the even law there is what ties take. In
/// terms of `rho = F(v-) / F(v)` that leaves
///
/// `rho^K (K-1) log(rho) / (1 - rho^K) + log((1 - rho^K) / (1 - rho))`
///
/// of the bound: 0 where all blocks are equal, the bound where none ties. Differs from the paper's logarithm by a term of
/// mean zero, for which it is never negative, never above the bound, and, with as many such blocks as candidates, some
/// hundredths of a nat off on average where the plug-in logarithm is tenths off.
pub(super) fn choice_estimate_nats(num_candidates: usize, kept_value: f64, audit_values: &[f64]) -> f64 {
    let num_candidates = num_candidates as f64;
    let num_below = audit_values.iter().filter(|&&value| value < kept_value).count() as f64;
    let num_tied = audit_values.iter().filter(|&&value| value == kept_value).count() as f64;
    if num_tied == 0.0 {
        return best_of_k_bound_nats(num_candidates);
    }
    if num_below == 0.0 {
        return 0.0;
    }
    let rho = num_below / (num_below + num_tied);
    let power = rho.powf(num_candidates);
    power * (num_candidates - 1.0) * rho.ln() / (1.0 - power) + ((1.0 - power) / (1.0 - rho)).ln()
}

/// `log K - (K-1)/K`.
fn best_of_k_bound_nats(num_candidates: f64) -> f64 {
    num_candidates.ln() - (num_candidates - 1.0) / num_candidates
}

#[cfg(test)]
mod tests;
