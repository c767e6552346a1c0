//! Top-p (nucleus) truncation (Holtzman et al. 2019, arXiv 1904.09751, section 3.1).

use super::by_probability;

/// Cuts all tokens after the fewest most probable ones whose probabilities sum to at least `mass`. `[vocab]`
///
/// A token stays if the tokens before it, in order of probability, sum to less than `mass`; so one always stays.
pub(super) fn apply(log_probs: &mut [f64], mass: f64) {
    if mass >= 1.0 {
        // Rounding can bring the running sum to 1 before the last token.
        return;
    }
    let mut sum_before = 0.0;
    for idx in by_probability(log_probs) {
        let prob = log_probs[idx].exp();
        if sum_before >= mass {
            log_probs[idx] = f64::NEG_INFINITY;
        }
        sum_before += prob;
    }
}
