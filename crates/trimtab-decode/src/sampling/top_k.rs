//! Top-k truncation (Fan et al. 2018, arXiv 1805.04833).

use super::by_probability;

/// Cuts all but the `count` most probable tokens, ties by lower token id. `[vocab]`
pub(super) fn apply(log_probs: &mut [f64], count: usize) {
    for idx in by_probability(log_probs).into_iter().skip(count) {
        log_probs[idx] = f64::NEG_INFINITY;
    }
}
