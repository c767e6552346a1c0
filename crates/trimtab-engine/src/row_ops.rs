//! Row operations on logits, vectorised where a kernel exists; everything else falls back to the slow reference.

use trimtab_base::TokenId;
use trimtab_decode::{DecodeError, RowAnswer, RowOp, SampledToken};
use trimtab_kernels::vocab::{KL_ROUNDING_NATS, argmax_row, log_sum_exp_row, sample_row, top_k_row};

/// Applies `op` to one row of logits. `[vocab]`
pub(crate) fn apply(op: &RowOp, logits: &[f32]) -> Result<RowAnswer, DecodeError> {
    match op {
        RowOp::Sample { sampling, coin } if sampling.is_plain() && sampling.temperature > 0.0 => {
            let sampled = sample_row(logits, 1.0 / sampling.temperature as f32, *coin);
            match sampled {
                Some(row) => Ok(RowAnswer::Sampled(SampledToken {
                    token: TokenId(row.token_idx),
                    log_prob: row.log_prob,
                    reference_log_prob: row.reference_log_prob,
                    kl_nats: row.kl_nats,
                })),
                // The reference names what is wrong with the row.
                None => op.apply(logits),
            }
        }
        RowOp::Sample { sampling, .. } if sampling.is_plain() => {
            let Some(token_idx) = argmax_row(logits) else {
                return op.apply(logits);
            };
            let reference_log_prob = f64::from(logits[token_idx as usize]) - log_sum_exp_row(logits);
            // A divergence is not negative; a certain token's may round to just below 0.
            let is_rounding = (0.0..KL_ROUNDING_NATS).contains(&reference_log_prob);
            Ok(RowAnswer::Sampled(SampledToken {
                token: TokenId(token_idx),
                log_prob: 0.0,
                reference_log_prob,
                kl_nats: if is_rounding { 0.0 } else { -reference_log_prob },
            }))
        }
        RowOp::TopLogProbs { count } => {
            let log_norm = log_sum_exp_row(logits);
            let log_prob = |idx: u32| f64::from(logits[idx as usize]) - log_norm;
            if !log_norm.is_finite() {
                return op.apply(logits);
            }
            let top = top_k_row(logits, *count);
            Ok(RowAnswer::Top(
                top.into_iter().map(|idx| (TokenId(idx), log_prob(idx))).collect(),
            ))
        }
        RowOp::Sample { .. } | RowOp::SampleGuided { .. } | RowOp::StateValues => op.apply(logits),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trimtab_decode::Sampling;

    use super::*;

    #[test]
    fn rounding_does_not_make_a_divergence_negative() {
        // The most probable token is all but certain; the scale moves the rounding of the sum.
        for scale in 1..2000_u16 {
            let mut logits = vec![-30.0_f32; 50];
            logits[7] = f32::from(scale) * 0.0371;
            for sampling in [Sampling::GREEDY, Sampling::at_temperature(0.999)] {
                let op = RowOp::Sample {
                    sampling: Arc::new(sampling),
                    coin: 0.5,
                };
                let RowAnswer::Sampled(sampled) = apply(&op, &logits).unwrap() else {
                    panic!("a draw is answered by a token");
                };
                let kl_nats = sampled.kl_nats;
                assert!((0.0..1e-5).contains(&kl_nats), "{scale} {sampling:?} {kl_nats}");
            }
        }
    }
}
