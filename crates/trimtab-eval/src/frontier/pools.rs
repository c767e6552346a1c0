//! Rewards of independent draws from one policy, by prompt: what laws of best-of-N are estimated from.

use std::collections::BTreeMap;

use trimtab_decode::Sampling;

use super::KlRule;
use super::compute::{MethodRuns, References};
use crate::error::EvalError;
use crate::reward_sample::RewardSample;

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
    let num_drawn = |method: &&MethodRuns| method.runs.iter().map(|run| run.candidates.len()).sum::<usize>();
    let largest = methods
        .iter()
        .filter(|method| method.sampling == *policy && draws_independently(method.kl_rule))
        .max_by_key(num_drawn);
    let mut pools: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    if let Some(method) = largest {
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
        KlRule::Blockwise { .. } | KlRule::Deterministic | KlRule::LogRatio => false,
    }
}
