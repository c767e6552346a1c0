//! Likelihood of given responses. With the weights of best-of-N winners: best-of-N distillation.

use super::token_loss::{Reads, ResponseTokens, TokenDerivatives, TokenLoss};

/// `-weight sum_t log pi(y_t)`: its optimum is the law that drew the responses, reweighted.
#[derive(Debug, Clone, Copy)]
pub struct Sft;

impl TokenLoss for Sft {
    fn reads(&self) -> Reads {
        Reads::Nothing
    }

    fn num_items(&self, unit: &[ResponseTokens<'_>]) -> u64 {
        unit.len() as u64
    }

    fn derivatives(&self, unit: &[ResponseTokens<'_>]) -> TokenDerivatives {
        let of_response = |tokens: &ResponseTokens<'_>| {
            let len = tokens.item.token_ids.len();
            std::iter::repeat_n(-tokens.item.weight, len)
        };
        let value = unit
            .iter()
            .map(|tokens| -tokens.item.weight * tokens.log_probs.iter().sum::<f64>());
        TokenDerivatives {
            value: value.sum(),
            log_prob: unit.iter().flat_map(of_response).collect(),
            ..TokenDerivatives::default()
        }
    }
}
