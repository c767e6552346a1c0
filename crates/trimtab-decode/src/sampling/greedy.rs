//! Greedy choice as a policy: certainty of the most probable token.

/// Replaces logits by the log-probabilities of their argmax, ties by lower token id. `[vocab]`
pub(super) fn apply(logits: &mut [f64]) {
    let best = argmax(logits);
    logits.fill(f64::NEG_INFINITY);
    if let Some(best) = best {
        logits[best] = 0.0;
    }
}

/// Index of the greatest entry above negative infinity, the first of equals.
fn argmax(logits: &[f64]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (idx, &logit) in logits.iter().enumerate() {
        if logit > best.map_or(f64::NEG_INFINITY, |best| logits[best]) {
            best = Some(idx);
        }
    }
    best
}
