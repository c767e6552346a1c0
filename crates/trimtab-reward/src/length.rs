//! Length reward. Knows token counts only, not the text.

use trimtab_base::{RewardError, RewardModel, ScoreInput};

/// `r = log(T / T_max)` in nats, with `T` the number of response tokens (a drawn end token counts).
///
/// Implements CD sec 4 "length" (arXiv 2310.17022v3), where `T_max = 1024`.
///
/// An empty response (`T = 0`) is scored as half a token, `log(1 / (2 T_max))`: finite, and below every response
/// that has a token. A response longer than `T_max` gets a positive reward; nothing is clamped.
#[derive(Debug, Clone, PartialEq)]
pub struct Length {
    name: String,
    max_tokens: u32,
}

impl Length {
    /// `T_max` of the paper, in tokens.
    pub const DEFAULT_MAX_TOKENS: u32 = 1024;

    /// The reward with the given `T_max` (tokens, at least 1) under the name used in reports.
    pub fn new(name: impl Into<String>, max_tokens: u32) -> Self {
        assert!(max_tokens > 0, "T_max must be positive");
        Self {
            name: name.into(),
            max_tokens,
        }
    }

    /// `log(T / T_max)` in nats.
    pub fn reward(&self, num_tokens: usize) -> f64 {
        let tokens = if num_tokens == 0 { 0.5 } else { num_tokens as f64 };
        (tokens / f64::from(self.max_tokens)).ln()
    }
}

impl RewardModel for Length {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &'static str {
        "nats, log(tokens / T_max)"
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        Ok(batch
            .iter()
            .map(|input| self.reward(input.token_ids.len()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tokens_input;

    #[test]
    fn matches_the_formula() {
        let check = |num_tokens: usize, expect: f64| {
            let rewards = Length::new("length", 1024)
                .score(&[tokens_input(num_tokens)])
                .unwrap();
            assert!(
                (rewards[0] - expect).abs() < 1e-12,
                "{num_tokens} tokens: {rewards:?}, expected {expect}"
            );
        };
        check(1024, 0.0);
        check(512, -std::f64::consts::LN_2);
        check(1, -(1024.0_f64.ln()));
        check(2048, std::f64::consts::LN_2);
        check(0, -(2048.0_f64.ln()));
    }

    #[test]
    fn is_strictly_increasing_from_empty_on() {
        let length = Length::new("length", 100);
        assert!((0..300).all(|tokens| length.reward(tokens) < length.reward(tokens + 1)));
    }
}
