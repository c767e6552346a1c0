//! Identity preference optimisation (Azar et al., arXiv 2310.12036, Eq. 17).

use super::token_loss::{Reads, ResponseTokens, TokenDerivatives, TokenLoss, log_ratio, of_pair};

/// `(h - 1 / (2 beta))^2`, where `h` is the difference of the log-ratios of chosen and rejected.
///
/// On pairs of independent responses of the reference, the optimum is `ref exp(P(y beats ref) / beta) / Z`: with
/// preferences by reward, the optimum of the calibrated reward.
#[derive(Debug, Clone, Copy)]
pub struct Ipo {
    /// Coefficient of the KL, in units of probability; the paper's tau.
    pub beta: f64,
}

impl TokenLoss for Ipo {
    fn reads(&self) -> Reads {
        Reads::LogProbs
    }

    fn num_items(&self, _pair: &[ResponseTokens<'_>]) -> u64 {
        1
    }

    fn derivatives(&self, pair: &[ResponseTokens<'_>]) -> TokenDerivatives {
        let weight = pair[0].item.weight;
        let (value, slope, margin) = square_loss(pair, 0.5 / self.beta);
        TokenDerivatives {
            value: weight * value,
            log_prob: of_pair(pair, weight * slope),
            kl: Vec::new(),
            numbers: vec![
                ("reward_margin", self.beta * margin, 1.0),
                ("pair_accuracy", f64::from(margin > 0.0), 1.0),
            ],
        }
    }
}

/// `(h - target)^2`, its slope by `h`, and `h`.
pub(super) fn square_loss(pair: &[ResponseTokens<'_>], target: f64) -> (f64, f64, f64) {
    let margin = log_ratio(&pair[0]) - log_ratio(&pair[1]);
    let error = margin - target;
    (error * error, 2.0 * error, margin)
}
