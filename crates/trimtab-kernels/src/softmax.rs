//! Probabilities of a stretch of logits whose normaliser is known. Knows floats, no vocabulary.

use crate::exp::exp;
use crate::isa::{Isa, for_isa};

/// `probs[i] = e^(logits[i] - log_sum_exp)`, within 1e-6 relative per unit of the exponent; 0 where that underflows.
///
/// The same to the last bit on every instruction set. The normaliser is an argument so that a row can be taken in
/// stretches.
///
/// # Panics
/// If the lengths differ.
pub fn probs_of(logits: &[f32], log_sum_exp: f64, probs: &mut [f32]) {
    assert_eq!(logits.len(), probs.len(), "expected one probability per logit");
    let isa = Isa::detect();
    let shift = log_sum_exp as f32;
    for_isa!(isa, exp_shifted(logits: &[f32], shift: f32, probs: &mut [f32]));
}

#[inline(always)]
fn exp_shifted(logits: &[f32], shift: f32, probs: &mut [f32]) {
    for (prob, &logit) in probs.iter_mut().zip(logits) {
        *prob = exp(logit - shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::log_sum_exp_row;

    #[test]
    fn probabilities_are_those_of_the_formula() {
        let logits: Vec<f32> = (0..1000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 8.0)
            .collect();
        let log_sum_exp = log_sum_exp_row(&logits);
        let mut probs = vec![f32::NAN; logits.len()];
        let (head, tail) = probs.split_at_mut(300);
        probs_of(&logits[..300], log_sum_exp, head);
        probs_of(&logits[300..], log_sum_exp, tail);
        let exact: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
        let total: f64 = exact.iter().sum();
        for (prob, exact) in probs.iter().zip(&exact) {
            assert!((f64::from(*prob) / (exact / total) - 1.0).abs() < 1e-5);
        }
        let sum: f64 = probs.iter().map(|&prob| f64::from(prob)).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }

    #[test]
    fn impossible_tokens_have_no_probability() {
        let mut probs = [1.0; 2];
        probs_of(&[f32::NEG_INFINITY, 0.0], 0.0, &mut probs);
        assert_eq!(probs, [0.0, 1.0]);
    }
}
