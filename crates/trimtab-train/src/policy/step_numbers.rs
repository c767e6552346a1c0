//! Numbers of a step: means over its responses and tokens. Knows no loss.

use std::collections::{BTreeMap, HashSet};

use super::pieces::Piece;
use super::vocab::TokenNumbers;
use crate::events::Metrics;

/// Tokens of a run whose coming back counts as repetition.
const REPEATED_LEN: usize = 3;

/// Sums of which a step reports the means.
#[derive(Debug, Clone, Default)]
pub struct StepNumbers {
    sums: BTreeMap<&'static str, (f64, f64)>,
}

impl StepNumbers {
    /// Adds `sum` over `count`.
    pub fn add(&mut self, name: &'static str, sum: f64, count: f64) {
        let entry = self.sums.entry(name).or_default();
        entry.0 += sum;
        entry.1 += count;
    }

    /// Adds what a piece's responses and their numbers say: mean reward, length in tokens and repetition of a response;
    /// entropy of a token; the KL of a response under the name `kl_name`, or `kl_at_data_nats` where the reference has drawn
    /// it: along its responses the exact KLs of tokens are no measurement of the policy's.
    pub fn add_piece(&mut self, piece: &Piece, numbers: &TokenNumbers, kl_name: &'static str) {
        for (item, rows) in piece.items.iter().zip(&piece.rows) {
            self.add("reward", item.reward, 1.0);
            self.add("response_len", item.token_ids.len() as f64, 1.0);
            self.add("repetition", repetition(&item.token_ids), 1.0);
            let of = |values: &[f64]| values[rows.clone()].iter().sum::<f64>();
            self.add("entropy_nats", of(&numbers.entropy_nats), rows.len() as f64);
            self.add("nll_nats", -of(&numbers.log_probs), rows.len() as f64);
            if !numbers.kl_nats.is_empty() {
                let name = if item.is_of_reference {
                    "kl_at_data_nats"
                } else {
                    kl_name
                };
                self.add(name, of(&numbers.kl_nats), 1.0);
            }
        }
    }

    /// The means, and forgets them.
    pub fn take(&mut self) -> Metrics {
        std::mem::take(&mut self.sums)
            .into_iter()
            .map(|(name, (sum, count))| (name.to_owned(), if count > 0.0 { sum / count } else { 0.0 }))
            .collect()
    }
}

/// Share of a response's runs of three tokens that it has had before; 0 where it is shorter.
pub fn repetition(token_ids: &[u32]) -> f64 {
    let mut seen = HashSet::new();
    let mut runs = 0_u32;
    let mut repeated = 0_u32;
    for run in token_ids.windows(REPEATED_LEN) {
        runs += 1;
        repeated += u32::from(!seen.insert(run));
    }
    if runs == 0 {
        return 0.0;
    }
    f64::from(repeated) / f64::from(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_is_the_share_of_runs_seen_before() {
        let check = |tokens: &[u32], expect: f64| assert_eq!(repetition(tokens), expect, "{tokens:?}");
        check(&[], 0.0);
        check(&[1, 1], 0.0);
        check(&[1, 2, 3, 4], 0.0);
        check(&[1, 1, 1, 1], 0.5);
        check(&[1, 2, 3, 1, 2, 3], 0.25);
    }

    #[test]
    fn means_are_by_their_own_counts() {
        let mut numbers = StepNumbers::default();
        numbers.add("a", 1.0, 1.0);
        numbers.add("a", 4.0, 4.0);
        numbers.add("b", 0.0, 0.0);
        let means = numbers.take();
        assert_eq!(means["a"], 1.0);
        assert_eq!(means["b"], 0.0);
        assert!(numbers.take().is_empty());
    }
}
