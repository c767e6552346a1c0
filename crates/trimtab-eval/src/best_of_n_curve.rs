//! Reward, win rate and KL of best-of-N for every N, from one pool of reference responses per prompt.
//!
//! No method is run for it: the pool's order statistics say what choosing among N would have given. It is the line to
//! compare other methods with, and a check on best-of-N itself. Knows no method and no file.

use serde::{Deserialize, Serialize};

use crate::confidence::{Bootstrap, Interval, mean_of};
use crate::kl::{best_of_n_bound_nats, best_of_n_kl_estimate_nats};
use crate::reward_sample::{RewardSample, prob_all_marked};
use crate::win_rate::best_of_n_win_rate_estimate;

/// Every N up to this one is on the curve.
const DENSE_UP_TO: u32 = 64;

/// One N of the curve; means over prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// N.
    pub num_candidates: u32,
    /// Expected reward of the best of N, in the reward's unit.
    pub reward_mean: f64,
    /// Its interval over prompts.
    pub reward_ci: Option<Interval>,
    /// Expected win rate against one independent reference response, ties half; missing where N is the whole pool.
    pub win_rate: Option<f64>,
    /// Its interval over prompts.
    pub win_rate_ci: Option<Interval>,
    /// `log N - (N-1)/N` in nats: at most this.
    pub kl_bound_nats: f64,
    /// Ties-aware estimate in nats; missing for pools of one response.
    pub kl_estimate_nats: Option<f64>,
    /// Tokens that N draws cost; missing where their number is not known.
    pub tokens_per_answer: Option<f64>,
}

/// Unbiased estimate of the expected reward of the best of N, from `M >= N` reference responses; `None` for fewer.
///
/// The mean of the maximum over all subsets of size N, by order statistics:
/// `sum_c r_c (C(m_c, N) - C(m_(c-1), N)) / C(M, N)` with `m_c` the number of responses up to class `c`. Derived here.
pub fn expected_best_reward(pool: &RewardSample, num_candidates: u32) -> Option<f64> {
    let n = u64::from(num_candidates);
    if n > pool.len() {
        return None;
    }
    let prob_best_up_to = |num_up_to| prob_all_marked(num_up_to, pool.len(), n);
    let terms = pool
        .classes()
        .iter()
        .map(|class| class.reward * (prob_best_up_to(class.num_up_to()) - prob_best_up_to(class.num_below)));
    Some(terms.sum())
}

/// The curve for N from 1 to `max_candidates`, or to the size of the smallest pool if that is less.
///
/// `pools` hold independent reference responses, one pool a prompt; none give no curve. Above 64 the steps of N grow
/// by an eighth, which no eye sees in a figure.
pub fn best_of_n_curve(
    pools: &[RewardSample],
    max_candidates: u32,
    bootstrap: &Bootstrap,
) -> Vec<CurvePoint> {
    let smallest = pools.iter().map(RewardSample::len).min().unwrap_or(0);
    let max_candidates = u32::try_from(smallest).unwrap_or(u32::MAX).min(max_candidates);
    let after = |&n: &u32| (n < max_candidates).then(|| (n + (n / 8).max(1)).min(max_candidates));
    let dense = 1..=max_candidates.min(DENSE_UP_TO);
    let sparse = std::iter::successors((max_candidates > DENSE_UP_TO).then_some(DENSE_UP_TO), after).skip(1);
    dense
        .chain(sparse)
        .filter_map(|num_candidates| curve_point(pools, num_candidates, bootstrap))
        .collect()
}

fn curve_point(pools: &[RewardSample], num_candidates: u32, bootstrap: &Bootstrap) -> Option<CurvePoint> {
    let of_each =
        |of: &dyn Fn(&RewardSample) -> Option<f64>| pools.iter().map(of).collect::<Option<Vec<f64>>>();
    let rewards = of_each(&|pool| expected_best_reward(pool, num_candidates))?;
    let win_rates = of_each(&|pool| best_of_n_win_rate_estimate(pool, num_candidates));
    Some(CurvePoint {
        num_candidates,
        reward_mean: mean_of(&rewards),
        reward_ci: bootstrap.mean_interval(&rewards),
        win_rate: win_rates.as_deref().map(mean_of),
        win_rate_ci: win_rates.and_then(|win_rates| bootstrap.mean_interval(&win_rates)),
        kl_bound_nats: best_of_n_bound_nats(num_candidates),
        kl_estimate_nats: best_of_n_kl_estimate_nats(pools, num_candidates),
        tokens_per_answer: None,
    })
}

#[cfg(test)]
mod tests;
