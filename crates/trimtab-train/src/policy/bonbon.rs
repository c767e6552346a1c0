//! `BoNBoN` alignment (Gui et al., arXiv 2406.00832): winners' likelihood and a square loss on best against worst.
//!
//! Recalled, not read again: the mixture, its small share for the likelihood, and the target of the square loss. The
//! target is derived here too: under the law of the best of N on a continuous reward, whose density is `N u^(N-1)` in the
//! quantile `u`, the log-ratio of best and worst differs by `(N - 1) (ln u_max - ln u_min)`, whose mean over N draws is
//! `(N - 1) (1 + 1/2 + .. + 1/(N - 1))`.

use super::ipo::square_loss;
use super::token_loss::{Reads, ResponseTokens, TokenDerivatives, TokenLoss, of_pair};

/// `alpha * -log pi(best) + (1 - alpha) (h - target)^2` over pairs of the best and the worst of N.
#[derive(Debug, Clone, Copy)]
pub struct BonBon {
    /// N, at least 2.
    pub num_candidates: usize,
    /// Share of the likelihood.
    pub alpha: f64,
}

impl BonBon {
    /// What `h` should be on average: `(N - 1) (1 + 1/2 + .. + 1/(N - 1))`; the paper writes it `1 / (2 beta_N)`.
    pub fn target(&self) -> f64 {
        let n = self.num_candidates;
        (n as f64 - 1.0) * (1..n).map(|k| 1.0 / k as f64).sum::<f64>()
    }
}

impl TokenLoss for BonBon {
    fn reads(&self) -> Reads {
        Reads::LogProbs
    }

    fn num_items(&self, _pair: &[ResponseTokens<'_>]) -> u64 {
        1
    }

    fn derivatives(&self, pair: &[ResponseTokens<'_>]) -> TokenDerivatives {
        let weight = pair[0].item.weight;
        let (square, slope, margin) = square_loss(pair, self.target());
        let mut log_prob = of_pair(pair, weight * (1.0 - self.alpha) * slope);
        let num_best = pair[0].log_probs.len();
        for derivative in &mut log_prob[..num_best] {
            *derivative -= weight * self.alpha;
        }
        let likelihood: f64 = pair[0].log_probs.iter().sum();
        TokenDerivatives {
            value: weight * (self.alpha * -likelihood + (1.0 - self.alpha) * square),
            log_prob,
            kl: Vec::new(),
            numbers: vec![
                ("log_ratio_margin", margin, 1.0),
                ("pair_accuracy", f64::from(margin > 0.0), 1.0),
            ],
        }
    }
}
