//! One frontier from runs of one configuration with several seeds. Knows frontiers of single seeds, no journal.
//!
//! The unit of every interval stays the prompt: its value is the mean over seeds. Draws of different prompts share no
//! coin whatever the seed, so these means are independent, and their spread holds that between prompts and what is left
//! of that between draws. Only a thing that a seed gives to all prompts at once escapes it, e.g. a scorer trained with
//! that seed; methods with such a thing say so ([`MethodRuns::varies_by_seed`]), and their half-widths grow by Student's
//! interval of the seeds' means, added in squares. That counts the draws' noise twice: too wide rather than too narrow.
//!
//! Seeds that share the prompts out, each answering others, differ in their means by their prompts too. That part, which
//! the intervals over prompts hold already, is taken off the spread before it widens them.

use std::collections::{BTreeMap, BTreeSet};

use statrs::distribution::{ContinuousCDF, Normal};

use super::compute::rounded_interval;
use super::point::SeedValues;
use super::{Frontier, FrontierInput, FrontierPoint, MethodRuns};
use crate::confidence::{Interval, mean_of, student_half_width_of};
use crate::error::EvalError;
use crate::samples::{PromptRun, ReferenceSamples};

impl Frontier {
    /// Computes every point over all seeds, `inputs` being one run a seed of the same methods and prompts, in the order of
    /// the seeds. One input gives what [`Self::compute`] does.
    ///
    /// # Errors
    /// As [`Self::compute`]; [`EvalError::Empty`] for no input; [`EvalError::SeedMismatch`] for seeds with other methods.
    pub fn over_seeds(inputs: &[FrontierInput]) -> Result<Self, EvalError> {
        let [first, others @ ..] = inputs else {
            return Err(EvalError::Empty { what: "seeds" });
        };
        if others.is_empty() {
            return Self::compute(first);
        }
        let mut merged = first.clone();
        for other in others {
            merge(&mut merged, other)?;
        }
        let mut frontier = Self::compute(&merged)?;
        let singles = inputs.iter().map(Self::compute).collect::<Result<Vec<_>, _>>()?;
        frontier.seeds = inputs.iter().map(|input| input.facts.seed).collect();
        let level = frontier.confidence_level;
        let share_prompts = are_disjoint(inputs);
        for (idx, (point, method)) in frontier.points.iter_mut().zip(&first.methods).enumerate() {
            let of_seed = singles
                .iter()
                .map(|single| (single.facts.seed, &single.points[idx]));
            point.seed_values = of_seed.map(|(seed, point)| seed_values(seed, point)).collect();
            if method.varies_by_seed {
                let by_seed: Vec<&FrontierPoint> = singles.iter().map(|single| &single.points[idx]).collect();
                widen(point, &by_seed, level, share_prompts);
            }
        }
        Ok(frontier)
    }
}

/// Whether no two seeds answered one prompt.
fn are_disjoint(inputs: &[FrontierInput]) -> bool {
    let prompts = inputs.iter().flat_map(|input| &input.references);
    let distinct: BTreeSet<u64> = prompts.clone().map(|sample| sample.prompt_idx).collect();
    distinct.len() == prompts.count()
}

/// Adds another seed's samples prompt by prompt.
fn merge(all: &mut FrontierInput, more: &FrontierInput) -> Result<(), EvalError> {
    let names = |input: &FrontierInput| {
        input
            .methods
            .iter()
            .map(|method| method.method.clone())
            .collect::<Vec<_>>()
    };
    if names(all) != names(more) {
        return Err(EvalError::SeedMismatch {
            seed: more.facts.seed,
            first: all.facts.seed,
        });
    }
    for (method, other) in all.methods.iter_mut().zip(&more.methods) {
        merge_runs(method, other);
    }
    let mut places: BTreeMap<u64, &mut ReferenceSamples> = all
        .references
        .iter_mut()
        .map(|sample| (sample.prompt_idx, sample))
        .collect();
    let mut new = Vec::new();
    for sample in &more.references {
        match places.get_mut(&sample.prompt_idx) {
            Some(place) => place.rewards.extend(&sample.rewards),
            None => new.push(sample.clone()),
        }
    }
    all.references.extend(new);
    Ok(())
}

fn merge_runs(all: &mut MethodRuns, more: &MethodRuns) {
    let mut places: BTreeMap<u64, &mut PromptRun> =
        all.runs.iter_mut().map(|run| (run.prompt_idx, run)).collect();
    let mut new = Vec::new();
    for run in &more.runs {
        match places.get_mut(&run.prompt_idx) {
            Some(place) => place.append(run.clone()),
            None => new.push(run.clone()),
        }
    }
    all.runs.extend(new);
}

fn seed_values(seed: u64, point: &FrontierPoint) -> SeedValues {
    SeedValues {
        seed,
        reward_mean: point.reward_mean,
        win_rate: point.win_rate,
        kl_nats: point.kl_nats,
        kl_estimate_nats: point.kl_estimate_nats,
        tokens_per_answer: point.tokens_per_answer,
        rewards_also: point.rewards_also.iter().map(|reward| reward.mean).collect(),
    }
}

/// A number of a point with its interval.
type Estimate = (Option<f64>, Option<Interval>);

/// Widens the intervals of a point by what its seeds' means say of seeds.
fn widen(point: &mut FrontierPoint, by_seed: &[&FrontierPoint], level: f64, share_prompts: bool) {
    let wider = |ci: &mut Option<Interval>, mean: f64, of: &dyn Fn(&FrontierPoint) -> Estimate| {
        let estimates: Option<Vec<(f64, Option<Interval>)>> = by_seed
            .iter()
            .map(|point| of(point))
            .map(|(mean, ci)| mean.map(|mean| (mean, ci)))
            .collect();
        if let (Some(ends), Some(estimates)) = (*ci, estimates) {
            let more = half_width(&estimates, level, share_prompts);
            *ci = Some(rounded_interval(widened(ends, mean, more)));
        }
    };
    wider(&mut point.reward_ci, point.reward_mean, &|point| {
        (Some(point.reward_mean), point.reward_ci)
    });
    wider(&mut point.reward_gain_ci, point.reward_gain, &|point| {
        (Some(point.reward_gain), point.reward_gain_ci)
    });
    wider(&mut point.win_rate_ci, point.win_rate, &|point| {
        (Some(point.win_rate), point.win_rate_ci)
    });
    wider(&mut point.kl_ci, point.kl_nats, &|point| {
        (Some(point.kl_nats), point.kl_ci)
    });
    let kl_estimate_nats = point.kl_estimate_nats.unwrap_or(0.0);
    wider(&mut point.kl_estimate_ci, kl_estimate_nats, &|point| {
        (point.kl_estimate_nats, point.kl_estimate_ci)
    });
    let tokens = point.tokens_per_answer;
    wider(&mut point.tokens_per_answer_ci, tokens, &|point| {
        (Some(point.tokens_per_answer), point.tokens_per_answer_ci)
    });
    for (idx, reward) in point.rewards_also.iter_mut().enumerate() {
        wider(&mut reward.ci, reward.mean, &|point| {
            let reward = point.rewards_also.get(idx);
            (
                reward.map(|reward| reward.mean),
                reward.and_then(|reward| reward.ci),
            )
        });
    }
    cut(&mut point.win_rate_ci, 0.0, 1.0);
    cut(&mut point.kl_ci, 0.0, f64::INFINITY);
    cut(&mut point.kl_estimate_ci, 0.0, f64::INFINITY);
    cut(&mut point.tokens_per_answer_ci, 0.0, f64::INFINITY);
}

fn cut(ci: &mut Option<Interval>, lo: f64, hi: f64) {
    if let Some(ends) = ci {
        *ends = Interval {
            lo: ends.lo.clamp(lo, hi),
            hi: ends.hi.clamp(lo, hi),
        };
    }
}

/// Half of Student's interval for the mean of at least two seeds. Of seeds that share the prompts out, what their own
/// intervals say that prompts make of the spread is taken off.
fn half_width(estimates: &[(f64, Option<Interval>)], level: f64, share_prompts: bool) -> f64 {
    let n = estimates.len() as f64;
    let means: Vec<f64> = estimates.iter().map(|&(mean, _)| mean).collect();
    let mean = mean_of(&means);
    let variance = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let of_prompts = if share_prompts {
        let z = Normal::standard().inverse_cdf(f64::midpoint(1.0, level));
        let of_seed = |ci: &Option<Interval>| ci.map_or(0.0, |ends| (ends.hi - ends.lo) / (2.0 * z));
        estimates.iter().map(|(_, ci)| of_seed(ci).powi(2)).sum::<f64>() / n
    } else {
        0.0
    };
    student_half_width_of((variance - of_prompts).max(0.0), estimates.len(), level)
}

/// Both sides of an interval around `mean` grown by `more`, in squares.
fn widened(ends: Interval, mean: f64, more: f64) -> Interval {
    Interval {
        lo: mean - (mean - ends.lo).hypot(more),
        hi: mean + (ends.hi - mean).hypot(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontier::compute::rounded;

    #[test]
    fn three_equal_seeds_widen_nothing_and_unequal_ones_by_student() {
        let of = |means: &[f64], half: Option<f64>, share_prompts| {
            let interval = |mean: f64| {
                half.map(|half| Interval {
                    lo: mean - half,
                    hi: mean + half,
                })
            };
            let estimates: Vec<_> = means.iter().map(|&mean| (mean, interval(mean))).collect();
            half_width(&estimates, 0.95, share_prompts)
        };
        assert_eq!(of(&[2.0, 2.0, 2.0], None, false), 0.0);
        // t(2) at 97.5% is 4.302653; the standard error of 1, 2, 3 is 1 / sqrt(3).
        let expected = 4.302_653 / 3.0_f64.sqrt();
        for half in [None, Some(1.0)] {
            let half = of(&[1.0, 2.0, 3.0], half, false);
            assert!((half - expected).abs() < 1e-5, "{half}");
        }
        // Prompts explain 0.6^2 of the variance of 1, or more than all of it.
        let half = of(&[1.0, 2.0, 3.0], Some(0.6 * 1.959_964), true);
        assert!((half - 0.8 * expected).abs() < 1e-5, "{half}");
        assert_eq!(of(&[1.0, 2.0, 3.0], Some(2.1), true), 0.0);
        let ends = widened(Interval { lo: 7.0, hi: 12.0 }, 10.0, 4.0);
        assert_eq!(
            (ends.lo, rounded(ends.hi)),
            (5.0, rounded(10.0 + 20.0_f64.sqrt()))
        );
    }
}
