//! The largest logits of a row.

use std::cmp::Ordering;

/// Entries that are compared with the threshold at once.
const BLOCK: usize = 64;

/// Indices of the `k` largest logits (fewer if the row is shorter), best first, ties by lower index. NaN is never
/// among them.
///
/// # Shapes
/// `logits`: `[vocab]`.
pub fn top_k_row(logits: &[f32], k: usize) -> Vec<u32> {
    if k == 0 {
        return Vec::new();
    }
    let mut best = Best {
        k,
        threshold: None,
        entries: Vec::new(),
    };
    for (block_idx, block) in logits.chunks(BLOCK).enumerate() {
        if best.may_enter(block) {
            for (idx, &logit) in block.iter().enumerate() {
                best.offer((block_idx * BLOCK + idx) as u32, logit);
            }
        }
    }
    best.entries.sort_unstable_by(|a, b| better_first(*a, *b));
    best.entries.truncate(k);
    best.entries.into_iter().map(|(idx, _)| idx).collect()
}

/// The best entries so far, and up to as many again that were better than the threshold when they came.
struct Best {
    k: usize,
    /// The `k`-th best logit at the last cut. Later entries that equal it have higher indices, so they lose to it.
    threshold: Option<f32>,
    entries: Vec<(u32, f32)>,
}

impl Best {
    fn may_enter(&self, block: &[f32]) -> bool {
        // Counting does not stop early, so that it is vectorised.
        let is_above = |threshold| {
            block
                .iter()
                .map(|&logit| u32::from(logit > threshold))
                .sum::<u32>()
                > 0
        };
        self.threshold.is_none_or(is_above)
    }

    fn offer(&mut self, idx: u32, logit: f32) {
        if logit.is_nan() || self.threshold.is_some_and(|threshold| logit <= threshold) {
            return;
        }
        self.entries.push((idx, logit));
        if self.entries.len() >= self.k.saturating_mul(2) {
            let (_, kth, _) = self
                .entries
                .select_nth_unstable_by(self.k - 1, |a, b| better_first(*a, *b));
            self.threshold = Some(kth.1);
            self.entries.truncate(self.k);
        }
    }
}

/// Larger logits first, then lower indices.
fn better_first(a: (u32, f32), b: (u32, f32)) -> Ordering {
    b.1.partial_cmp(&a.1)
        .unwrap_or(Ordering::Equal)
        .then(a.0.cmp(&b.0))
}
