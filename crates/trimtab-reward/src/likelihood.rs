//! Log-likelihood under the reference. Knows the number that the engine attached, not the model.

use trimtab_base::{RewardError, RewardModel, ScoreInput};

/// How the log-likelihood is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LikelihoodScale {
    /// Of the whole response.
    Sequence,
    /// Divided by the number of response tokens, so that length alone does not decide.
    PerToken,
}

/// `log pi_ref(y | x)` in nats, or that divided by the number of tokens.
///
/// A response the reference cannot produce has `-inf`, which becomes NaN and is refused by the caller, since no
/// finite number would rank it honestly. An empty response has log-likelihood 0 on either scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    name: String,
    scale: LikelihoodScale,
}

impl Likelihood {
    /// The reward under the name used in reports.
    pub fn new(name: impl Into<String>, scale: LikelihoodScale) -> Self {
        Self {
            name: name.into(),
            scale,
        }
    }

    fn reward(&self, input: &ScoreInput) -> f64 {
        if !input.reference_log_prob.is_finite() {
            return f64::NAN;
        }
        match self.scale {
            LikelihoodScale::Sequence => input.reference_log_prob,
            LikelihoodScale::PerToken => input.reference_log_prob / input.token_ids.len().max(1) as f64,
        }
    }
}

impl RewardModel for Likelihood {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &'static str {
        match self.scale {
            LikelihoodScale::Sequence => "nats",
            LikelihoodScale::PerToken => "nats per token",
        }
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        Ok(batch.iter().map(|input| self.reward(input)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tokens_input;

    fn reward(scale: LikelihoodScale, num_tokens: usize, reference_log_prob: f64) -> f64 {
        let input = ScoreInput {
            reference_log_prob,
            ..tokens_input(num_tokens)
        };
        Likelihood::new("likelihood", scale).score(&[input]).unwrap()[0]
    }

    #[test]
    fn is_the_reference_log_prob_on_its_scale() {
        assert_eq!(reward(LikelihoodScale::Sequence, 4, -6.0), -6.0);
        assert_eq!(reward(LikelihoodScale::PerToken, 4, -6.0), -1.5);
        assert_eq!(reward(LikelihoodScale::PerToken, 0, 0.0), 0.0);
    }

    #[test]
    fn an_impossible_response_is_nan() {
        assert!(reward(LikelihoodScale::Sequence, 4, f64::NEG_INFINITY).is_nan());
        assert!(reward(LikelihoodScale::PerToken, 4, f64::NEG_INFINITY).is_nan());
    }
}
