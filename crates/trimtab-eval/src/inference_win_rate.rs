//! Inference-time win rates: best-of-N or worst-of-N applied to policy and reference alike, from one set of samples of
//! each. Knows rewards of one prompt at a time, and the intervals over prompts.
//!
//! InfAlign's `W^T(policy > reference)` (B2, arXiv 2412.19792v5) for `T` the best or the worst of N. Drawing N anew for
//! each N would cost a sample set each and answer with its noise; instead every subset of N samples on each side counts
//! once, which is unbiased, has the least spread that the samples allow, and gives all N up to their number.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::confidence::{Bootstrap, Interval, mean_of};
use crate::error::EvalError;
use crate::reward_sample::{RewardSample, prob_all_marked};

/// Which of N draws is kept, on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceOfN {
    /// The one of greatest reward.
    Best(u32),
    /// The one of least reward.
    Worst(u32),
}

impl ChoiceOfN {
    /// One draw: the standard win rate.
    pub const SAMPLE: Self = Self::Best(1);

    /// N.
    pub fn num_candidates(self) -> u32 {
        let (Self::Best(n) | Self::Worst(n)) = self;
        n
    }
}

impl fmt::Display for ChoiceOfN {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best(1) | Self::Worst(1) => f.write_str("sample"),
            Self::Best(n) => write!(f, "bon:{n}"),
            Self::Worst(n) => write!(f, "won:{n}"),
        }
    }
}

/// Unbiased estimate of how often the choice among N draws of the policy beats that among N of the reference, ties half,
/// for one prompt.
///
/// The mean over all subsets of N on both sides: a policy response of reward `r` is kept from a share of the subsets, and
/// beats the share of the reference's whose kept reward is less. With N = 1 it is the mean over all pairs. Derived here.
///
/// # Errors
/// [`EvalError::Empty`] or [`EvalError::NotFinite`] for rewards that are none, [`EvalError::TooFewSamples`] where N is
/// zero or more than the samples of a side.
pub fn inference_win_rate(
    choice: ChoiceOfN,
    policy_rewards: &[f64],
    reference_rewards: &[f64],
) -> Result<f64, EvalError> {
    let policy = RewardSample::try_new(policy_rewards)?;
    let reference = RewardSample::try_new(reference_rewards)?;
    inference_win_rate_of(choice, &policy, &reference)
}

/// [`inference_win_rate`] of samples that are grouped already, for many N on one set.
///
/// # Errors
/// [`EvalError::TooFewSamples`].
pub fn inference_win_rate_of(
    choice: ChoiceOfN,
    policy: &RewardSample,
    reference: &RewardSample,
) -> Result<f64, EvalError> {
    let num_samples = policy.len().min(reference.len());
    let num_candidates = u64::from(choice.num_candidates());
    if num_candidates == 0 || num_candidates > num_samples {
        return Err(EvalError::TooFewSamples {
            num_candidates: choice.num_candidates(),
            num_samples,
        });
    }
    Ok(match choice {
        ChoiceOfN::Best(_) => best_beats_best(policy, reference, num_candidates),
        // The worst of these is the best of the negated ones, and loses where those win.
        ChoiceOfN::Worst(_) => 1.0 - best_beats_best(&policy.negated(), &reference.negated(), num_candidates),
    })
}

fn best_beats_best(policy: &RewardSample, reference: &RewardSample, n: u64) -> f64 {
    let kept_up_to = |sample: &RewardSample, count: u64| prob_all_marked(count, sample.len(), n);
    let classes = policy.classes().iter().map(|class| {
        let kept = kept_up_to(policy, class.num_up_to()) - kept_up_to(policy, class.num_below);
        let (below, up_to) = reference.counts_around(class.reward);
        kept * f64::midpoint(kept_up_to(reference, below), kept_up_to(reference, up_to))
    });
    classes.sum()
}

/// The rewards of one prompt's samples on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRewards {
    /// Of the policy's responses.
    pub policy: RewardSample,
    /// Of the reference's.
    pub reference: RewardSample,
}

/// A win rate over prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceWinRate {
    /// Mean over prompts.
    pub win_rate: f64,
    /// Interval over prompts; `None` where all prompts agree or there is one only.
    pub interval: Option<Interval>,
    /// Each prompt's, in their order, to pair with those of another policy on the same prompts.
    pub by_prompt: Vec<f64>,
}

/// Mean over prompts of [`inference_win_rate`], with its interval.
///
/// # Errors
/// [`EvalError::Empty`] for no prompt, [`EvalError::TooFewSamples`].
pub fn inference_win_rate_over_prompts(
    choice: ChoiceOfN,
    prompts: &[PromptRewards],
    bootstrap: &Bootstrap,
) -> Result<InferenceWinRate, EvalError> {
    if prompts.is_empty() {
        return Err(EvalError::Empty { what: "prompts" });
    }
    let by_prompt = prompts
        .iter()
        .map(|prompt| inference_win_rate_of(choice, &prompt.policy, &prompt.reference))
        .collect::<Result<Vec<f64>, _>>()?;
    Ok(InferenceWinRate {
        win_rate: mean_of(&by_prompt),
        interval: bootstrap.share_interval(&by_prompt),
        by_prompt,
    })
}

/// Mean difference of two policies' win rates on the same prompts against the same reference, with its paired interval.
///
/// # Errors
/// [`EvalError::Unpaired`] for different numbers of prompts, [`EvalError::Empty`] for none.
pub fn paired_difference(
    these: &InferenceWinRate,
    others: &InferenceWinRate,
    bootstrap: &Bootstrap,
) -> Result<(f64, Option<Interval>), EvalError> {
    if these.by_prompt.len() != others.by_prompt.len() {
        return Err(EvalError::Unpaired {
            these: these.by_prompt.len(),
            others: others.by_prompt.len(),
        });
    }
    if these.by_prompt.is_empty() {
        return Err(EvalError::Empty { what: "prompts" });
    }
    let differences: Vec<f64> = these
        .by_prompt
        .iter()
        .zip(&others.by_prompt)
        .map(|(this, other)| this - other)
        .collect();
    Ok((mean_of(&differences), bootstrap.mean_interval(&differences)))
}

#[cfg(test)]
mod tests;
