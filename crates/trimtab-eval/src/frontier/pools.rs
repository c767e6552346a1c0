//! Rewards of independent draws from one policy, by prompt: what laws of best-of-N are estimated from.

use std::collections::BTreeMap;

use trimtab_decode::Sampling;

use super::KlRule;
use super::compute::{MethodRuns, References};
use crate::confidence::mean_of;
use crate::error::EvalError;
use crate::reward_sample::RewardSample;
use crate::samples::PromptRun;

/// All draws from `policy` in order of prompt: the candidates of the method that drew the most from it and, if it is the
/// reference, the held-out responses. Of one method only, since sample `i` of a prompt is the same in all of them.
///
/// No pool for a policy that nothing was drawn from.
///
/// # Errors
/// A candidate's reward that is not finite, named by method and prompt.
pub(super) fn pools_of(
    policy: &Sampling,
    methods: &[MethodRuns],
    references: &References,
) -> Result<Vec<RewardSample>, EvalError> {
    let mut pools: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    if let Some(method) = most_drawn(policy, methods) {
        for run in &method.runs {
            let rewards = run.candidate_sample();
            let rewards = rewards.map_err(|error| error.in_prompt(&method.method, run.prompt_idx))?;
            pools.entry(run.prompt_idx).or_default().extend(values(&rewards));
        }
    }
    if *policy == Sampling::REFERENCE {
        for (&prompt_idx, rewards) in references {
            pools.entry(prompt_idx).or_default().extend(values(rewards));
        }
    }
    pools
        .values()
        .map(|rewards| RewardSample::try_new(rewards))
        .collect()
}

/// Tokens of one draw from the reference, mean over prompts; `None` if no method drew from it.
pub(super) fn tokens_of_a_draw(methods: &[MethodRuns]) -> Option<f64> {
    let method = most_drawn(&Sampling::REFERENCE, methods)?;
    // In order of prompt, so that the sum is the same whatever the journal's order was.
    let of_run = |run: &PromptRun| {
        let sum: f64 = run
            .candidates
            .iter()
            .map(|candidate| f64::from(candidate.num_tokens))
            .sum();
        (run.prompt_idx, sum / run.candidates.len() as f64)
    };
    let means: BTreeMap<u64, f64> = method.runs.iter().map(of_run).collect();
    Some(mean_of(&means.into_values().collect::<Vec<_>>())).filter(|mean| mean.is_finite())
}

/// The method that drew the most from a policy.
fn most_drawn<'a>(policy: &Sampling, methods: &'a [MethodRuns]) -> Option<&'a MethodRuns> {
    let num_drawn = |method: &&MethodRuns| method.runs.iter().map(|run| run.candidates.len()).sum::<usize>();
    let from_policy =
        |method: &&MethodRuns| method.sampling == *policy && draws_independently(method.kl_rule);
    methods.iter().filter(from_policy).max_by_key(num_drawn)
}

fn values(sample: &RewardSample) -> impl Iterator<Item = f64> {
    let classes = sample.classes().iter();
    classes.flat_map(|class| (0..class.count).map(|_| class.reward))
}

/// Whether the candidates of a method with this rule are independent draws from its policy.
fn draws_independently(rule: KlRule) -> bool {
    match rule {
        KlRule::TokenwiseSum
        | KlRule::BestOfN { .. }
        | KlRule::WorstOfN { .. }
        | KlRule::Selection { .. } => true,
        KlRule::GuidedSum | KlRule::Blockwise | KlRule::Deterministic | KlRule::LogRatio => false,
    }
}
