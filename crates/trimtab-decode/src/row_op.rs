//! Pure operations on one row of next-token logits. Knows no branches and no model.
//!
//! They are values rather than closures so that an engine can run many in parallel, with a vectorised version
//! that is tested against the slow one here.

mod guided;

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_base::prob::{categorical, kl_nats, log_softmax};

use crate::DecodeError;
use crate::need::SampledToken;
use crate::sampling::Sampling;

pub use guided::FLOOR_HALVINGS;

/// What is known of one position: the model's logits, and what the prefix scorers say.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Next-token logits. `[vocab]`
    pub logits: &'a [f32],
    /// `V([x, y^t])` under each scorer of the engine. `[scorers]`
    pub state_values: &'a [f32],
    /// `V([x, y^t, z])` for every next token `z` under each scorer; may be empty unless
    /// [`RowOp::wants_action_values`]. `[scorers][vocab]`
    pub action_values: &'a [Vec<f32>],
}

impl<'a> Row<'a> {
    /// A row of an engine without scorers. `[vocab]`
    pub fn of_logits(logits: &'a [f32]) -> Self {
        Self {
            logits,
            state_values: &[],
            action_values: &[],
        }
    }
}

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
    /// Draw one token from the row under `sampling`, tilted by values: `p(z) e^{sum_i w_i V_i([x, y^t, z])}`, normalised
    /// (CD Eq. 6; Eq. 3 where the values are exact).
    SampleGuided {
        /// Temperature and truncation of the policy that is tilted.
        sampling: Arc<Sampling>,
        /// Which values, how strongly.
        guide: Arc<Guide>,
        /// Uniform in `[0, 1)`.
        coin: f64,
    },
    /// `V([x, y^t])` under each scorer of the engine.
    StateValues,
}

/// Which action values tilt a draw, and how strongly.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Guide {
    /// The terms.
    pub terms: Vec<GuideTerm>,
    /// A value that must not fall on average.
    pub floor: Option<GuideFloor>,
}

/// One term of a [`Guide`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuideTerm {
    /// Place among the engine's scorers.
    pub scorer: usize,
    /// `lambda * w_i`: the tilt per unit of value, finite.
    pub weight: f64,
}

/// The least weight is added to one term that brings the mean value of the next token, under the tilted law, to a
/// bound; if no weight up to `max_added_weight` does, that weight is added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuideFloor {
    /// Place among [`Guide::terms`].
    pub term: usize,
    /// Least mean value, in the term's unit.
    pub at_least: f64,
    /// Most weight that is added, at least 0.
    pub max_added_weight: f64,
}

/// A token drawn from a tilted policy.
#[derive(Debug, Clone, PartialEq)]
pub struct GuidedToken {
    /// The token; its log-probability is that under the tilted policy.
    pub sampled: SampledToken,
    /// `V([x, y^t, z])` of the drawn token under each term of the guide.
    pub values: Vec<f64>,
    /// Weight of each term, with what the floor added.
    pub weights: Vec<f64>,
}

/// The result of a [`RowOp`].
#[derive(Debug, Clone, PartialEq)]
pub enum RowAnswer {
    /// To [`RowOp::Sample`].
    Sampled(SampledToken),
    /// To [`RowOp::TopLogProbs`]: tokens with log-probabilities in nats.
    Top(Vec<(TokenId, f64)>),
    /// To [`RowOp::SampleGuided`].
    Guided(GuidedToken),
    /// To [`RowOp::StateValues`]. `[scorers]`
    Values(Vec<f64>),
}

impl RowAnswer {
    /// What kind of answer it is, for errors.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Sampled(_) => "sampled tokens",
            Self::Top(_) => "top log-probabilities",
            Self::Guided(_) => "guided tokens",
            Self::Values(_) => "state values",
        }
    }
}

impl RowOp {
    /// Whether [`Row::action_values`] must be there.
    pub fn wants_action_values(&self) -> bool {
        matches!(self, Self::SampleGuided { .. })
    }

    /// Whether [`Row::state_values`] must be there.
    pub fn wants_state_values(&self) -> bool {
        matches!(self, Self::StateValues)
    }

    /// [`Self::apply_row`] without scorers. `[vocab]`
    ///
    /// # Errors
    /// As there.
    pub fn apply(&self, logits: &[f32]) -> Result<RowAnswer, DecodeError> {
        self.apply_row(&Row::of_logits(logits))
    }

    /// The slow reference: what the operation means.
    ///
    /// # Errors
    /// [`DecodeError::UnusableLogits`] if the row has NaN or positive infinity, or nothing finite;
    /// [`DecodeError::MissingValues`] and [`DecodeError::UnusableTilt`] for a guided draw without usable values.
    pub fn apply_row(&self, row: &Row<'_>) -> Result<RowAnswer, DecodeError> {
        // No logits are needed for these, and where a response has ended none need be there.
        if let Self::StateValues = self {
            let values = row.state_values.iter().map(|&value| f64::from(value));
            return Ok(RowAnswer::Values(values.collect()));
        }
        let logits = row.logits;
        check_usable(logits)?;
        let reference_log_probs = log_softmax(logits);
        match self {
            Self::Sample { sampling, coin } => {
                let policy_log_probs = sampling.policy_log_probs(logits);
                let token_idx = categorical(&policy_log_probs, *coin).ok_or_else(|| unusable(logits))?;
                Ok(RowAnswer::Sampled(SampledToken {
                    token: TokenId(token_idx as u32),
                    log_prob: policy_log_probs[token_idx],
                    reference_log_prob: reference_log_probs[token_idx],
                    kl_nats: without_rounding(kl_nats(&policy_log_probs, &reference_log_probs)),
                }))
            }
            Self::SampleGuided {
                sampling,
                guide,
                coin,
            } => {
                let policy_log_probs = sampling.policy_log_probs(logits);
                guided::sample(row, &policy_log_probs, &reference_log_probs, guide, *coin)
                    .map(RowAnswer::Guided)
            }
            Self::TopLogProbs { count } => Ok(RowAnswer::Top(top_log_probs(&reference_log_probs, *count))),
            Self::StateValues => unreachable!("answered above"),
        }
    }
}

/// Refuses a row that is no distribution.
fn check_usable(logits: &[f32]) -> Result<(), DecodeError> {
    let has_finite = logits.iter().any(|logit| logit.is_finite());
    let is_bad = |&logit: &f32| logit.is_nan() || logit == f32::INFINITY;
    if !has_finite || logits.iter().any(is_bad) {
        return Err(unusable(logits));
    }
    Ok(())
}

/// A divergence is not negative; what is below 0 by less than 1e-9 is rounding. Anything more negative stays, to be
/// seen.
fn without_rounding(kl_nats: f64) -> f64 {
    if (-1e-9..0.0).contains(&kl_nats) {
        0.0
    } else {
        kl_nats
    }
}

fn top_log_probs(log_probs: &[f64], count: usize) -> Vec<(TokenId, f64)> {
    let mut ranked: Vec<(TokenId, f64)> = log_probs
        .iter()
        .enumerate()
        .map(|(idx, &log_prob)| (TokenId(idx as u32), log_prob))
        .collect();
    // The sort is stable, so equals stay in order of their ids.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(count);
    ranked
}

fn unusable(logits: &[f32]) -> DecodeError {
    let count = |is_meant: fn(f32) -> bool| logits.iter().filter(|&&logit| is_meant(logit)).count();
    DecodeError::UnusableLogits {
        vocab_len: logits.len(),
        num_nan: count(f32::is_nan),
        num_infinite: count(|logit| logit == f32::INFINITY),
        num_impossible: count(|logit| logit == f32::NEG_INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_does_not_make_a_divergence_negative() {
        for salt in 1..500_u32 {
            let logits: Vec<f32> = (0..200_u32)
                .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_mul(salt) >> 8) as f32 / 1e6 - 12.0)
                .collect();
            for temperature in [1.0, 1.0 - 1e-9, 1.0 + 1e-9] {
                let op = RowOp::Sample {
                    sampling: Arc::new(Sampling::at_temperature(temperature)),
                    coin: 0.5,
                };
                let RowAnswer::Sampled(sampled) = op.apply(&logits).unwrap() else {
                    panic!("a draw is answered by a token");
                };
                assert!((0.0..1e-9).contains(&sampled.kl_nats), "{salt} {temperature}");
            }
        }
    }

    #[test]
    fn what_is_more_than_rounding_is_not_hidden() {
        assert_eq!([-1e-12, -1e-6, 0.5].map(without_rounding), [0.0, -1e-6, 0.5]);
        assert!(without_rounding(f64::NAN).is_nan());
    }
}
