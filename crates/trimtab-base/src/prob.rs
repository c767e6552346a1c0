//! Probability arithmetic on slices; the only place with this math outside the kernels.
//!
//! Everything accumulates in f64: this is the reference the fast paths are compared with.

/// `log(sum_i exp(x_i))`, stable; negative infinity for an empty slice or one that is all negative infinity.
pub fn log_sum_exp(logits: &[f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !max.is_finite() {
        return max;
    }
    max + logits.iter().map(|&logit| (logit - max).exp()).sum::<f64>().ln()
}

/// Normalises logits in place to log-probabilities (natural logarithm).
pub fn log_softmax_in_place(logits: &mut [f64]) {
    let log_norm = log_sum_exp(logits);
    for logit in logits {
        *logit -= log_norm;
    }
}

/// Log-probabilities of f32 logits, accumulated in f64. `[vocab] -> [vocab]`.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let mut log_probs: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    log_softmax_in_place(&mut log_probs);
    log_probs
}

/// `KL(policy || reference) = sum_i p_i (log p_i - log q_i)` in nats, of two distributions given as log-probabilities.
///
/// Terms with `p_i = 0` count zero; a token the policy can emit and the reference cannot makes it infinite.
pub fn kl_nats(policy_log_probs: &[f64], reference_log_probs: &[f64]) -> f64 {
    assert_eq!(
        policy_log_probs.len(),
        reference_log_probs.len(),
        "distributions over different vocabularies"
    );
    policy_log_probs
        .iter()
        .zip(reference_log_probs)
        .filter(|(p, _)| **p > f64::NEG_INFINITY)
        .map(|(&p, &q)| p.exp() * (p - q))
        .sum()
}

/// Index drawn from a categorical distribution by inverting its cumulative sum at `coin` in `[0, 1)`.
///
/// `log_probs` must sum to one after `exp`; rounding that leaves the coin beyond the last sum gives the last
/// index with positive probability. `None` if no index has positive probability.
pub fn categorical(log_probs: &[f64], coin: f64) -> Option<usize> {
    let mut cumulative = 0.0;
    let mut last_possible = None;
    for (idx, log_prob) in log_probs.iter().enumerate() {
        let prob = log_prob.exp();
        if prob > 0.0 {
            last_possible = Some(idx);
        }
        cumulative += prob;
        if coin < cumulative {
            return Some(idx);
        }
    }
    last_possible
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kl_of_two_coins_is_closed_form() {
        let coin = |p: f64| [p.ln(), (1.0 - p).ln()];
        let expected = 0.3_f64 * (0.3_f64 / 0.5).ln() + 0.7_f64 * (0.7_f64 / 0.5).ln();
        assert!((kl_nats(&coin(0.3), &coin(0.5)) - expected).abs() < 1e-15);
        assert_eq!(kl_nats(&[0.0, f64::NEG_INFINITY], &coin(0.5)), 2.0_f64.ln());
        assert_eq!(kl_nats(&coin(0.5), &[0.0, f64::NEG_INFINITY]), f64::INFINITY);
    }

    #[test]
    fn categorical_inverts_the_cumulative_sum() {
        let log_probs = [0.25_f64.ln(), f64::NEG_INFINITY, 0.75_f64.ln()];
        let check =
            |coin: f64, expect: usize| assert_eq!(categorical(&log_probs, coin), Some(expect), "coin {coin}");
        check(0.0, 0);
        check(0.2499, 0);
        check(0.2501, 2);
        check(0.999_999_999, 2);
        assert_eq!(categorical(&[f64::NEG_INFINITY], 0.5), None);
    }

    proptest! {
        #[test]
        fn log_softmax_sums_to_one_and_ignores_shifts(
            logits in prop::collection::vec(-80.0_f32..80.0, 1..40), shift in -50.0_f32..50.0,
        ) {
            let log_probs = log_softmax(&logits);
            let total: f64 = log_probs.iter().map(|p| p.exp()).sum();
            prop_assert!((total - 1.0).abs() < 1e-12);
            let shifted: Vec<f32> = logits.iter().map(|l| l + shift).collect();
            for (a, b) in log_probs.iter().zip(log_softmax(&shifted)) {
                // The shift itself rounds in f32; 1e-5 relative to magnitudes of up to 130.
                prop_assert!((a - b).abs() < 1e-4);
            }
        }

        #[test]
        fn kl_is_not_negative(
            a in prop::collection::vec(-9.0_f32..9.0, 5), b in prop::collection::vec(-9.0_f32..9.0, 5),
        ) {
            prop_assert!(kl_nats(&log_softmax(&a), &log_softmax(&b)) > -1e-12);
        }
    }
}
