//! Direct preference optimisation (Rafailov et al., arXiv 2305.18290, Eq. 7).

use super::token_loss::{Reads, ResponseTokens, TokenDerivatives, TokenLoss, log_ratio, of_pair};

/// `-ln sigmoid(beta h)`, where `h` is the difference of the log-ratios of chosen and rejected.
///
/// On pairs whose preference is that of Bradley and Terry for a reward, the optimum is `ref exp(reward / beta) / Z`.
#[derive(Debug, Clone, Copy)]
pub struct Dpo {
    /// Coefficient of the KL, in the unit of the implied reward.
    pub beta: f64,
}

impl TokenLoss for Dpo {
    fn reads(&self) -> Reads {
        Reads::LogProbs
    }

    fn num_items(&self, _pair: &[ResponseTokens<'_>]) -> u64 {
        1
    }

    fn derivatives(&self, pair: &[ResponseTokens<'_>]) -> TokenDerivatives {
        let weight = pair[0].item.weight;
        let margin = self.beta * (log_ratio(&pair[0]) - log_ratio(&pair[1]));
        // ln(1 + e^-m) without overflow.
        let loss = (-margin.abs()).exp().ln_1p() + (-margin).max(0.0);
        let slope = -weight * self.beta / (1.0 + margin.exp());
        TokenDerivatives {
            value: weight * loss,
            log_prob: of_pair(pair, slope),
            kl: Vec::new(),
            numbers: vec![
                ("reward_margin", margin, 1.0),
                ("pair_accuracy", f64::from(margin > 0.0), 1.0),
            ],
        }
    }
}
