//! Pure operations on one row of next-token logits. Knows no branches and no model.
//!
//! They are values rather than closures so that an engine can run many in parallel, with a vectorised version
//! that is tested against the slow one here.

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_base::prob::{categorical, kl_nats, log_softmax};

use crate::DecodeError;
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

impl RowOp {
    /// The slow reference: what the operation means. `[vocab]`
    ///
    /// # Errors
    /// [`DecodeError::UnusableLogits`] if the row has NaN or positive infinity, or nothing finite.
    pub fn apply(&self, logits: &[f32]) -> Result<RowAnswer, DecodeError> {
        let has_finite = logits.iter().any(|logit| logit.is_finite());
        if !has_finite
            || logits
                .iter()
                .any(|&logit| logit.is_nan() || logit == f32::INFINITY)
        {
            return Err(unusable(logits));
        }
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
            Self::TopLogProbs { count } => Ok(RowAnswer::Top(top_log_probs(&reference_log_probs, *count))),
        }
    }
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
