//! Temperature: `p_i proportional to exp(logit_i / temperature)`.

/// Divides logits by a positive temperature. `[vocab]`
///
/// The maximum is taken off first, so that the quotient cannot overflow at temperatures near 0.
pub(super) fn apply(logits: &mut [f64], temperature: f64) {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for logit in logits {
        *logit = (*logit - max) / temperature;
    }
}
