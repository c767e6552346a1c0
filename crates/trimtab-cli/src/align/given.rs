//! The calibration's samples as data to learn from: winners of best-of-N, and pairs. Knows rewards and tokens, no loss.
//!
//! Samples of a prompt are independent, so that consecutive ones are a fair draw of N. What cannot be used is counted.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use trimtab_train::policy::{PolicyResponse, PreferenceTokens};

use super::config_parts::{Pairing, SamplesConfig};
use super::rewarding::{Rewarding, key_of};
use crate::calibrate::{CalibrationFolder, PromptSamples};

/// What is learned from, and what of the samples was left out.
#[derive(Debug)]
pub(super) struct Given<T> {
    pub(super) items: Vec<T>,
    pub(super) skipped: BTreeMap<&'static str, u64>,
}

impl<T> Given<T> {
    /// Of all prompts.
    fn collect(
        folder: &CalibrationFolder,
        of_prompt: impl Fn(&PromptSamples, &mut BTreeMap<&'static str, u64>) -> Result<Vec<T>>,
    ) -> Result<Self> {
        let mut given = Self {
            items: Vec::new(),
            skipped: BTreeMap::new(),
        };
        for prompt in folder.prompts()? {
            given.items.extend(of_prompt(&prompt?, &mut given.skipped)?);
        }
        if given.items.is_empty() {
            bail!(
                "{} has nothing to learn from: {:?}; draw more samples of a prompt, or take a reward that tells them apart",
                folder.path.display(),
                given.skipped
            );
        }
        Ok(given)
    }

    /// One line on what was left out; `None` if nothing was.
    pub(super) fn note(&self) -> Option<String> {
        let parts: Vec<String> = self
            .skipped
            .iter()
            .map(|(why, num)| format!("{num} {why}"))
            .collect();
        (!parts.is_empty()).then(|| format!("left out of the samples: {}", parts.join(", ")))
    }
}

/// The winners of best-of-`n`: what best-of-N distillation is trained on.
pub(super) fn winners(
    folder: &CalibrationFolder,
    (n, settings): (usize, &SamplesConfig),
    rewarding: &Rewarding<'_>,
) -> Result<Given<PolicyResponse>> {
    Given::collect(folder, |prompt, skipped| {
        let key = key_of(prompt);
        let mut winners = Vec::new();
        for group in groups(&prompt.rewards, n).take(settings.per_prompt) {
            if are_equal(&prompt.rewards[group.clone()]) {
                // Whoever came first would be learned from.
                *skipped.entry("groups of equal rewards").or_default() += 1;
                continue;
            }
            let best = best_of(&prompt.rewards, group);
            let row = &prompt.rows[best];
            if row.response_token_ids.is_empty() {
                *skipped.entry("winners without tokens").or_default() += 1;
                continue;
            }
            winners.push(PolicyResponse {
                key,
                prompt_token_ids: row.prompt_token_ids.clone(),
                token_ids: row.response_token_ids.clone(),
                sampler_log_probs: Vec::new(),
                reward: rewarding.of(key, prompt.rewards[best])?.trained_reward,
                weight: 1.0,
                is_of_reference: true,
            });
        }
        Ok(winners)
    })
}

/// Pairs of samples of which one has the greater reward.
pub(super) fn pairs(
    folder: &CalibrationFolder,
    (n, settings): (usize, &SamplesConfig),
) -> Result<Given<PreferenceTokens>> {
    let group_len = match settings.pairs {
        Pairing::BestWorst => n.max(2),
        Pairing::Random => 2,
    };
    Given::collect(folder, |prompt, skipped| {
        let mut pairs = Vec::new();
        for group in groups(&prompt.rewards, group_len).take(settings.per_prompt) {
            let negated: Vec<f64> = prompt.rewards.iter().map(|reward| -reward).collect();
            let (best, worst) = (best_of(&prompt.rewards, group.clone()), best_of(&negated, group));
            let [chosen, rejected] = [best, worst].map(|idx| &prompt.rows[idx]);
            let why = if prompt.rewards[best] <= prompt.rewards[worst] {
                Some("pairs of equal rewards")
            } else if chosen.response_token_ids == rejected.response_token_ids {
                Some("pairs of identical sides")
            } else if chosen.response_token_ids.is_empty() || rejected.response_token_ids.is_empty() {
                Some("pairs with an empty side")
            } else {
                None
            };
            if let Some(why) = why {
                *skipped.entry(why).or_default() += 1;
                continue;
            }
            pairs.push(PreferenceTokens {
                key: key_of(prompt),
                prompt_token_ids: chosen.prompt_token_ids.clone(),
                chosen: chosen.response_token_ids.clone(),
                rejected: rejected.response_token_ids.clone(),
                weight: 1.0,
            });
        }
        Ok(pairs)
    })
}

/// Places of consecutive groups of `len` samples; one of all samples if there are fewer.
fn groups(rewards: &[f64], len: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let num = rewards.len();
    let len = len.clamp(1, num.max(1));
    (0..num / len).map(move |idx| idx * len..(idx + 1) * len)
}

/// Whether nobody wins.
fn are_equal(rewards: &[f64]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

/// The first of the greatest.
fn best_of(rewards: &[f64], group: std::ops::Range<usize>) -> usize {
    let first = group.start;
    group.fold(
        first,
        |best, idx| {
            if rewards[idx] > rewards[best] { idx } else { best }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_cut_into_whole_groups() {
        let cut = |num: usize, len: usize| groups(&vec![0.0; num], len).collect::<Vec<_>>();
        assert_eq!(cut(10, 4), [0..4, 4..8]);
        assert_eq!((cut(3, 4).len(), cut(3, 4)[0].clone()), (1, 0..3));
        assert_eq!(cut(4, 1).len(), 4);
        assert!(cut(0, 4).is_empty());
    }

    #[test]
    fn nobody_wins_among_equals() {
        assert!(are_equal(&[1.0, 1.0, 1.0]) && are_equal(&[2.0]) && are_equal(&[0.0, -0.0]));
        assert!(!are_equal(&[1.0, 1.0, 2.0]));
    }

    #[test]
    fn the_first_of_the_best_wins() {
        let rewards = [1.0, 5.0, 5.0, 0.0, 9.0];
        assert_eq!(best_of(&rewards, 0..4), 1);
        assert_eq!(best_of(&rewards, 2..5), 4);
        assert_eq!(best_of(&rewards, 3..4), 3);
    }
}
