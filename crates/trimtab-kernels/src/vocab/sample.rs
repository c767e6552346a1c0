//! One draw from a tempered softmax, with its log-probabilities and the divergence from the untempered one.

use super::{BLOCK, block_sum, finite_max};
use crate::exp::exp;
use crate::isa::{Isa, for_isa};

/// A token drawn from a row of logits. The policy is the softmax at the temperature, the reference that at 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledRow {
    /// Index into the row.
    pub token_idx: u32,
    /// Natural log-probability under the policy.
    pub log_prob: f64,
    /// Natural log-probability under the reference.
    pub reference_log_prob: f64,
    /// `KL(policy || reference)` of the whole row, in nats. Negative values no larger than [`KL_ROUNDING_NATS`] are
    /// rounding and are given as 0; anything more negative is given as it is, to be seen.
    pub kl_nats: f64,
}

/// Accuracy of the divergence: what is below 0 by no more than this cannot be told from 0.
pub const KL_ROUNDING_NATS: f64 = 2e-6;

/// Sums over a row, relative to its largest logit; with `x` a logit less the largest and `t` the inverse temperature.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sums {
    /// `sum e^x`.
    pub(super) reference: f64,
    /// `sum e^(t x)`.
    pub(super) policy: f64,
    /// `sum x e^(t x)`.
    pub(super) weighted: f64,
    /// The terms of `policy` per block of [`BLOCK`] logits.
    pub(super) policy_blocks: Vec<f32>,
}

/// Draws from `softmax(inverse_temperature * logits)` by inverting its cumulative sum at `coin` in `[0, 1)`.
///
/// Log-probabilities and divergence are within 2e-6 of exact arithmetic, sums of probabilities within 1e-6: the token
/// is the exact one unless the coin is as near to the end of its interval. `None` if the row has NaN or positive
/// infinity or nothing finite, or `inverse_temperature` is not positive and finite.
///
/// # Shapes
/// `logits`: `[vocab]`.
pub fn sample_row(logits: &[f32], inverse_temperature: f32, coin: f64) -> Option<SampledRow> {
    if !(inverse_temperature > 0.0 && inverse_temperature < f32::INFINITY) {
        return None;
    }
    let max = finite_max(logits)?;
    let sums = sums(Isa::detect(), logits, max, inverse_temperature);
    let token_idx = invert(logits.len(), coin * sums.policy, &sums.policy_blocks, |idx| {
        exp((logits[idx] - max) * inverse_temperature)
    });
    let t = f64::from(inverse_temperature);
    let above = f64::from(logits[token_idx]) - f64::from(max);
    let (log_policy, log_reference) = (sums.policy.ln(), sums.reference.ln());
    let kl_nats = (t - 1.0) * sums.weighted / sums.policy - log_policy + log_reference;
    Some(SampledRow {
        token_idx: token_idx as u32,
        log_prob: t * above - log_policy,
        reference_log_prob: above - log_reference,
        kl_nats: without_rounding(kl_nats),
    })
}

/// The sums of a row whose largest logit is `max`.
pub(super) fn sums(isa: Isa, logits: &[f32], max: f32, inverse_temperature: f32) -> Sums {
    if inverse_temperature == 1.0 {
        for_isa!(isa, reference_sums(logits: &[f32], max: f32) -> Sums)
    } else {
        for_isa!(isa, tempered_sums(logits: &[f32], max: f32, inverse_temperature: f32) -> Sums)
    }
}

/// At temperature 1 policy and reference are the same; `weighted` is not needed and left 0.
#[inline(always)]
fn reference_sums(logits: &[f32], max: f32) -> Sums {
    let mut sums = Sums {
        policy_blocks: Vec::with_capacity(logits.len().div_ceil(BLOCK)),
        ..Sums::default()
    };
    for block in logits.chunks(BLOCK) {
        let policy = block_sum(block, |logit| exp(logit - max));
        sums.policy += f64::from(policy);
        sums.policy_blocks.push(policy);
    }
    sums.reference = sums.policy;
    sums
}

#[inline(always)]
fn tempered_sums(logits: &[f32], max: f32, inverse_temperature: f32) -> Sums {
    let mut sums = Sums {
        policy_blocks: Vec::with_capacity(logits.len().div_ceil(BLOCK)),
        ..Sums::default()
    };
    for block in logits.chunks(BLOCK) {
        // Three loops over a block in the first-level cache; its policy terms are computed once.
        let mut policy_terms = [0.0; BLOCK];
        for (term, logit) in policy_terms.iter_mut().zip(block) {
            *term = exp((logit - max) * inverse_temperature);
        }
        let policy = block_sum(&policy_terms, |term| term);
        let mut weighted_terms = [0.0; BLOCK];
        for ((weighted, &term), &logit) in weighted_terms.iter_mut().zip(&policy_terms).zip(block) {
            // An impossible token has a term of 0 and an infinite factor.
            *weighted = if term > 0.0 { term * (logit - max) } else { 0.0 };
        }
        sums.reference += f64::from(block_sum(block, |logit| exp(logit - max)));
        sums.policy += f64::from(policy);
        sums.weighted += f64::from(block_sum(&weighted_terms, |term| term));
        sums.policy_blocks.push(policy);
    }
    sums
}

/// Index below `len` at which the cumulative sum of `term` passes `target`; the last with a positive term if none does.
/// `policy_blocks` are the sums of terms per block of [`BLOCK`].
pub(super) fn invert(len: usize, target: f64, policy_blocks: &[f32], term: impl Fn(usize) -> f32) -> usize {
    let (mut before, mut block_idx, mut start_of_block) = (0.0, 0, 0.0);
    for (idx, &sum) in policy_blocks.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        (block_idx, start_of_block) = (idx, before);
        before += f64::from(sum);
        if target < before {
            break;
        }
    }
    let start = block_idx * BLOCK;
    let (mut cumulative, mut last_possible) = (start_of_block, start);
    for idx in start..len.min(start + BLOCK) {
        let term = f64::from(term(idx));
        cumulative += term;
        if term > 0.0 {
            last_possible = idx;
            if target < cumulative {
                break;
            }
        }
    }
    last_possible
}

/// What is below 0 by no more than rounding is 0.
pub(super) fn without_rounding(kl_nats: f64) -> f64 {
    if (-KL_ROUNDING_NATS..0.0).contains(&kl_nats) {
        0.0
    } else {
        kl_nats
    }
}
