//! Min-p truncation (Nguyen et al. 2024, arXiv 2407.01082).

/// Cuts tokens with less than `fraction` of the most probable token's probability. `[vocab]`
pub(super) fn apply(log_probs: &mut [f64], fraction: f64) {
    let threshold = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max) + fraction.ln();
    for log_prob in log_probs {
        if *log_prob < threshold {
            *log_prob = f64::NEG_INFINITY;
        }
    }
}
