//! KL-regularised policy gradient: `E[reward] - beta KL(pi || ref)` over whole responses.
//!
//! Which estimator of the KL's gradient it is. The KL of two laws of responses is a sum over tokens in expectation,
//! `KL(pi || ref) = E_y~pi sum_t KL_t`, with the exact `KL_t` of the next-token distributions after `y_<t` (InfAlign B2;
//! derived). Its gradient has two parts,
//!
//! ```text
//! grad KL = E_y~pi [ sum_t grad KL_t  +  sum_t grad log pi(y_t) * G_t ],   G_t = sum_{t' > t} KL_t'
//! ```
//!
//! the second because a token decides where later distributions are compared. Here the first is exact (a sum over the
//! vocabulary: the Rao-Blackwell form of the usual sampled penalty) and the second is a policy gradient with the KL to go
//! as cost. The common shortcut that leaves the second out minimises something else; the tests compare both with the
//! gradient by enumeration.
//!
//! Baselines are the mean of the other responses to the same prompt, for the reward and, position by position, for the KL
//! to go; neither looks at the response itself, so the gradient stays unbiased. `advantage = "group"` is GRPO's
//! normalisation, which is not.
//!
//! What is left is noise of the reward: at the `beta` of practice the parts of the KL are below a hundredth of the
//! variance (a test enumerates it). A step of Adam moves the weights by about as much whatever that noise is, so that for a
//! given gain of reward the KL that noise costs falls as one over the number of responses drawn in all, however they are
//! divided into rounds. Three things draw less: the baseline over a round for calibrated rewards ([`Advantage::Round`]), the
//! calibration's own samples as first rounds ([`PolicyItem::is_of_reference`]), and rates that do not fall during a run.

use super::config::{Advantage, Importance};
#[cfg(doc)]
use super::pieces::PolicyItem;
use super::token_loss::{Reads, ResponseTokens, TokenDerivatives, TokenLoss};

/// Policy gradient with an exact KL penalty. Rewards' advantages stand in the items ([`advantages`]).
#[derive(Debug, Clone, Copy)]
pub struct Rl {
    /// Coefficient of the KL, in the unit of the reward.
    pub beta: f64,
    /// PPO's clip range.
    pub clip: Option<f64>,
    /// Correction for responses of another policy.
    pub importance: Importance,
    /// Whether the KL to go has a baseline.
    pub has_baseline: bool,
}

/// Rewards of the other prompts of a round.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Elsewhere {
    /// Their sum.
    pub sum: f64,
    /// How many there are.
    pub num: f64,
}

/// `reward - baseline` of responses to one prompt, divided by their spread for [`Advantage::Group`].
///
/// A prompt with a single response has no others: the mean reward of other prompts stands in. Where all rewards of a prompt
/// are equal its advantages are 0 but for [`Advantage::Round`], and only the KL moves the policy.
pub fn advantages(rewards: &[f64], kind: Advantage, elsewhere: Elsewhere) -> Vec<f64> {
    let num = rewards.len() as f64;
    let sum: f64 = rewards.iter().sum();
    if kind == Advantage::Round {
        let others = (elsewhere.num + num - 1.0).max(1.0);
        let of = |reward: &f64| reward - (elsewhere.sum + sum - reward) / others;
        return rewards.iter().map(of).collect();
    }
    if kind == Advantage::None {
        return rewards.to_vec();
    }
    if rewards.len() == 1 {
        return vec![rewards[0] - elsewhere.sum / elsewhere.num.max(1.0)];
    }
    if rewards.iter().all(|reward| *reward == rewards[0]) {
        return vec![0.0; rewards.len()];
    }
    if kind == Advantage::LeaveOneOut {
        return rewards
            .iter()
            .map(|reward| reward - (sum - reward) / (num - 1.0))
            .collect();
    }
    let mean = sum / num;
    let variance = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / num;
    if !variance.is_normal() {
        // Differences so small that their squares are none: nothing to tell apart.
        return vec![0.0; rewards.len()];
    }
    rewards
        .iter()
        .map(|reward| (reward - mean) / variance.sqrt())
        .collect()
}

/// Weights of one response under the sampler's law.
struct Weights {
    /// Of the reward's policy gradient at each token. `[T]`
    of_tokens: Vec<f64>,
    /// Of the state before each token. `[T]`
    of_states: Vec<f64>,
    /// `pi / sampler` before any limit. `[T]`
    ratios: Vec<f64>,
    num_limited: usize,
}

impl Weights {
    fn of(tokens: &ResponseTokens<'_>, importance: Importance) -> Self {
        let len = tokens.log_probs.len();
        let sampler = &tokens.item.sampler_log_probs;
        let ratios: Vec<f64> = if tokens.item.is_of_reference {
            let pairs = tokens.log_probs.iter().zip(tokens.reference_log_probs);
            pairs
                .map(|(policy, reference)| (policy - reference).exp())
                .collect()
        } else if sampler.is_empty() {
            vec![1.0; len]
        } else {
            let log_ratio = |(policy, sampler): (&f64, &f32)| policy - f64::from(*sampler);
            tokens
                .log_probs
                .iter()
                .zip(sampler)
                .map(log_ratio)
                .map(f64::exp)
                .collect()
        };
        match importance {
            Importance::Off {} => Self {
                of_tokens: vec![1.0; len],
                of_states: vec![1.0; len],
                ratios,
                num_limited: 0,
            },
            Importance::Token { limit } => Self {
                of_tokens: ratios.iter().map(|ratio| ratio.min(limit)).collect(),
                of_states: vec![1.0; len],
                num_limited: ratios.iter().filter(|ratio| **ratio > limit).count(),
                ratios,
            },
            Importance::Sequence { limit } => Self::of_sequence(ratios, limit),
        }
    }

    fn of_sequence(ratios: Vec<f64>, limit: f64) -> Self {
        let mut product = 1.0;
        let mut of_states = Vec::with_capacity(ratios.len());
        for ratio in &ratios {
            of_states.push(f64::min(product, limit));
            product *= ratio;
        }
        Self {
            of_tokens: vec![product.min(limit); ratios.len()],
            of_states,
            num_limited: if product > limit { ratios.len() } else { 0 },
            ratios,
        }
    }
}

/// `G_t` of a response: the weighted KL after each token. `[T]`
fn kl_to_go(tokens: &ResponseTokens<'_>, weights: &Weights) -> Vec<f64> {
    let mut sum = 0.0;
    let mut to_go = vec![0.0; tokens.kl_nats.len()];
    for (at, kl) in tokens.kl_nats.iter().enumerate().rev() {
        to_go[at] = sum;
        sum += weights.of_states[at] * kl;
    }
    to_go
}

impl Rl {
    /// Mean KL to go of the others at a position; past their ends it is 0.
    fn baseline(&self, to_go: &[Vec<f64>], response: usize, at: usize) -> f64 {
        // With weights by sequence it would need one of its own, and the variance is theirs anyway.
        let is_weighted = matches!(self.importance, Importance::Sequence { .. });
        if !self.has_baseline || is_weighted || to_go.len() < 2 {
            return 0.0;
        }
        let of = |values: &Vec<f64>| values.get(at).copied().unwrap_or_default();
        let sum: f64 = to_go.iter().map(of).sum();
        (sum - of(&to_go[response])) / (to_go.len() - 1) as f64
    }

    /// `dL / d log pi(y_t)` of one token, and whether the clip has cut it.
    fn derivative(&self, advantage: f64, cost: f64, weight: f64, ratio: f64) -> (f64, bool) {
        if let Some(range) = self.clip {
            // max(-ratio A, -clip(ratio) A) is constant outside the range on the side that A pulls to.
            let total = advantage - self.beta * cost;
            let is_cut = (total > 0.0 && ratio > 1.0 + range) || (total < 0.0 && ratio < 1.0 - range);
            return (if is_cut { 0.0 } else { -weight * total }, is_cut);
        }
        // By sequence, the weights of later states stand in the cost already.
        let cost_weight = match self.importance {
            Importance::Sequence { .. } => 1.0,
            _ => weight,
        };
        (-weight * advantage + self.beta * cost_weight * cost, false)
    }
}

impl TokenLoss for Rl {
    fn reads(&self) -> Reads {
        Reads::Kl
    }

    fn num_items(&self, unit: &[ResponseTokens<'_>]) -> u64 {
        unit.len() as u64
    }

    /// The value is `-(reward - beta KL)`, weighted: what the derivatives are the gradient of in expectation.
    fn derivatives(&self, unit: &[ResponseTokens<'_>]) -> TokenDerivatives {
        let weights: Vec<Weights> = unit
            .iter()
            .map(|tokens| Weights::of(tokens, self.importance))
            .collect();
        let to_go: Vec<Vec<f64>> = unit
            .iter()
            .zip(&weights)
            .map(|(tokens, weights)| kl_to_go(tokens, weights))
            .collect();
        let mut out = TokenDerivatives::default();
        let (mut num_cut, mut num_limited, mut ratio_sum, mut num_tokens) = (0, 0, 0.0, 0);
        for (idx, (tokens, weights)) in unit.iter().zip(&weights).enumerate() {
            let item = tokens.item;
            let mut kl_sum = 0.0;
            for at in 0..tokens.log_probs.len() {
                let cost = to_go[idx][at] - self.baseline(&to_go, idx, at);
                let (weight, ratio) = (weights.of_tokens[at], weights.ratios[at]);
                let (derivative, is_cut) = self.derivative(item.advantage, cost, weight, ratio);
                out.log_prob.push(item.weight * derivative);
                out.kl.push(item.weight * self.beta * weights.of_states[at]);
                kl_sum += weights.of_states[at] * tokens.kl_nats[at];
                num_cut += usize::from(is_cut);
                ratio_sum += ratio;
            }
            num_tokens += tokens.log_probs.len();
            num_limited += weights.num_limited;
            out.value -= item.weight * (item.reward - self.beta * kl_sum);
        }
        let num_tokens = num_tokens as f64;
        out.numbers = vec![
            ("clip_share", num_cut as f64, num_tokens),
            ("importance_ratio", ratio_sum, num_tokens),
            ("importance_limited_share", num_limited as f64, num_tokens),
        ];
        out
    }
}
