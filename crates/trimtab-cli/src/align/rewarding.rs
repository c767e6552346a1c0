//! What a response's reward becomes before it is trained on: itself, or a transform of its quantile among the reference's
//! responses to the same prompt (InfAlign B4, B6). Knows numbers, no responses.

use std::collections::HashMap;

use anyhow::{Context, Result};
use trimtab_base::{PromptKey, TokenId};
use trimtab_infalign::{PreparedTransform, ReferenceQuantiles};

use crate::calibrate::{CalibrationFolder, PromptSamples};

/// Quantiles of the reference's rewards by prompt.
#[derive(Debug, Default)]
pub(super) struct Quantiles {
    of_prompt: HashMap<u64, ReferenceQuantiles>,
    /// Prompts whose samples all have one reward.
    pub(super) num_degenerate: u64,
}

impl Quantiles {
    /// Of every prompt of a calibration.
    pub(super) fn read(folder: &CalibrationFolder) -> Result<Self> {
        let mut quantiles = Self::default();
        for prompt in folder.prompts()? {
            let prompt = prompt?;
            quantiles.num_degenerate += u64::from(prompt.quantiles.is_degenerate());
            quantiles.of_prompt.insert(key_of(&prompt), prompt.quantiles);
        }
        Ok(quantiles)
    }

    /// Number of prompts.
    pub(super) fn len(&self) -> usize {
        self.of_prompt.len()
    }
}

/// Identity of a prompt by its tokens.
pub(super) fn key_of(prompt: &PromptSamples) -> u64 {
    let ids = prompt.rows.first().map_or(&[][..], |row| &row.prompt_token_ids);
    let ids: Vec<TokenId> = ids.iter().map(|&id| TokenId(id)).collect();
    PromptKey::of_tokens(&ids).0
}

/// From rewards to what is trained on.
#[derive(Debug)]
pub(super) enum Rewarding<'a> {
    /// As they are.
    Raw,
    /// `Phi(C(r))`.
    Calibrated {
        quantiles: &'a Quantiles,
        transform: Box<PreparedTransform>,
        /// Lines between samples instead of steps.
        interpolated: bool,
    },
}

/// One response's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rewarded {
    /// In `[0, 1]`; `None` for rewards as they are.
    pub(super) calibrated_reward: Option<f64>,
    /// What is trained on.
    pub(super) trained_reward: f64,
}

impl Rewarding<'_> {
    /// The numbers of a reward of a fresh response to the prompt `key`.
    ///
    /// # Errors
    /// A prompt that was not calibrated.
    pub(super) fn of(&self, key: u64, reward: f64) -> Result<Rewarded> {
        self.among(key, reward, ReferenceQuantiles::calibrated_reward)
    }

    /// The numbers of one of the calibration's own samples, among the others of its prompt: among all it would tie with
    /// itself, and no sample could reach 1.
    ///
    /// # Errors
    /// A prompt that was not calibrated.
    pub(super) fn of_sample(&self, key: u64, reward: f64) -> Result<Rewarded> {
        self.among(key, reward, |of_prompt, reward| {
            let alone = || of_prompt.calibrated_reward(reward);
            of_prompt.calibrated_left_out(reward).unwrap_or_else(alone)
        })
    }

    fn among(
        &self,
        key: u64,
        reward: f64,
        calibrated: impl Fn(&ReferenceQuantiles, f64) -> f64,
    ) -> Result<Rewarded> {
        let Self::Calibrated {
            quantiles,
            transform,
            interpolated,
        } = self
        else {
            return Ok(Rewarded {
                calibrated_reward: None,
                trained_reward: reward,
            });
        };
        let of_prompt = quantiles
            .of_prompt
            .get(&key)
            .context("a prompt is not in the calibration; remove its folder or choose another")?;
        let calibrated_reward = if *interpolated {
            of_prompt.interpolated(reward)
        } else {
            calibrated(of_prompt, reward)
        };
        Ok(Rewarded {
            calibrated_reward: Some(calibrated_reward),
            trained_reward: transform.transformed_reward(calibrated_reward),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantiles() -> Quantiles {
        let of = |rewards: &[f64]| ReferenceQuantiles::new(rewards).unwrap();
        Quantiles {
            of_prompt: [(1, of(&[0.0, 1.0, 1.0, 4.0])), (2, of(&[3.0, 3.0]))].into(),
            num_degenerate: 1,
        }
    }

    #[test]
    fn rewards_become_transformed_quantiles_of_their_own_prompt() {
        let quantiles = quantiles();
        let rewarding = Rewarding::Calibrated {
            quantiles: &quantiles,
            transform: Box::new(
                "exp:2"
                    .parse::<trimtab_infalign::Transform>()
                    .unwrap()
                    .prepare(1.0)
                    .unwrap(),
            ),
            interpolated: false,
        };
        let check = |key: u64, reward: f64, u: f64| {
            let got = rewarding.of(key, reward).unwrap();
            assert_eq!(got.calibrated_reward, Some(u), "prompt {key}, reward {reward}");
            assert!((got.trained_reward - (2.0 * (u - 1.0)).exp()).abs() < 1e-12);
        };
        check(1, 1.0, 0.5);
        check(1, 9.0, 1.0);
        check(1, -1.0, 0.0);
        // Nothing is known of this prompt but whether a response beats its samples.
        check(2, 3.0, 0.5);
        check(2, 4.0, 1.0);
        assert!(rewarding.of(3, 0.0).is_err());
    }

    #[test]
    fn any_increasing_map_of_the_reward_changes_nothing() {
        let rewards = [0.3, -1.0, 2.0, 2.0, 7.5, 0.1];
        let map = |reward: f64| (reward / 3.0).exp() * 100.0 - 7.0;
        let of = |rewards: &[f64], reward: f64| {
            let quantiles = Quantiles {
                of_prompt: [(0, ReferenceQuantiles::new(rewards).unwrap())].into(),
                num_degenerate: 0,
            };
            let rewarding = Rewarding::Calibrated {
                quantiles: &quantiles,
                transform: Box::new(
                    "exp:-10"
                        .parse::<trimtab_infalign::Transform>()
                        .unwrap()
                        .prepare(1.0)
                        .unwrap(),
                ),
                interpolated: false,
            };
            rewarding.of(0, reward).unwrap()
        };
        let mapped: Vec<f64> = rewards.iter().copied().map(map).collect();
        for reward in [-2.0, 0.1, 0.2, 2.0, 8.0] {
            assert_eq!(of(&rewards, reward), of(&mapped, map(reward)));
        }
        assert_eq!(Rewarding::Raw.of(0, 3.5).unwrap().trained_reward, 3.5);
    }
}
