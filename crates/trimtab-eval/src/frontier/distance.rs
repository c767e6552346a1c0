//! A method's distance from the reference: which number it is, of what kind, with what interval. Knows no reward's
//! worth, no cost.

use super::KlRule;
use super::compute::MethodRuns;
use crate::confidence::{Bootstrap, Interval, mean_of};
use crate::error::EvalError;
use crate::kl::{KlKind, best_of_n_bound_nats, best_of_n_kl_jackknife_nats, selection_bound_nats};
use crate::reward_sample::RewardSample;
use crate::samples::{PromptRun, Scored};

/// A mean over prompts with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mean {
    pub(super) value: f64,
    pub(super) ci: Option<Interval>,
}

/// A method's distance from the reference, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Distance {
    pub(super) kl: Mean,
    pub(super) kind: KlKind,
    /// The ties-aware estimate beside a bound of best-of-N.
    pub(super) estimate: Option<Mean>,
}

/// The distance by the method's rule. `runs` and `pools` are in order of prompt; `pools` hold the rewards of all draws
/// from the method's policy.
pub(super) fn distance(
    method: &MethodRuns,
    runs: &[&PromptRun],
    pools: &[RewardSample],
    bootstrap: &Bootstrap,
) -> Result<Distance, EvalError> {
    let sampled = |kind, of: &dyn Fn(&PromptRun) -> Result<f64, EvalError>| {
        let values = by_prompt(method, runs, of)?;
        Ok(Distance {
            kl: mean_with_interval(&values, bootstrap),
            kind,
            estimate: None,
        })
    };
    match method.kl_rule {
        // Its steps' divergences are rounding errors; zero is the truth, and no prompt could have another.
        KlRule::TokenwiseSum if method.is_from_reference() => Ok(Distance {
            kl: Mean {
                value: 0.0,
                ci: (runs.len() > 1).then_some(Interval { lo: 0.0, hi: 0.0 }),
            },
            kind: KlKind::Exact,
            estimate: None,
        }),
        KlRule::TokenwiseSum | KlRule::GuidedSum => sampled(KlKind::Exact, &|run| {
            run.candidate_mean("KL", |candidate| candidate.kl_nats)
        }),
        KlRule::Deterministic => sampled(KlKind::Exact, &|run| {
            run.answer_mean("log-probability", |answer| -answer.reference_log_prob)
        }),
        KlRule::LogRatio => sampled(KlKind::Estimate, &log_ratio),
        KlRule::BestOfN { .. } | KlRule::WorstOfN { .. } | KlRule::Selection { .. } | KlRule::Blockwise => {
            choice(method, runs, pools, bootstrap)
        }
    }
}

/// Distance of a choice among draws: the bound where they are the reference's.
///
/// Draws from another policy have `KL(chosen || reference) = KL(chosen || policy) + E_chosen[log policy - log
/// reference]`. The second term is known from samples alone, so the sum is an estimate, and the first is then the
/// ties-aware estimate where there is one.
fn choice(
    method: &MethodRuns,
    runs: &[&PromptRun],
    pools: &[RewardSample],
    bootstrap: &Bootstrap,
) -> Result<Distance, EvalError> {
    let bounds = by_prompt(method, runs, &|run| bound(method.kl_rule, run))?;
    let bound = mean_of(&bounds);
    let estimates = choice_estimates(method, runs, pools)?;
    if method.is_from_reference() {
        return Ok(Distance {
            kl: mean_with_interval(&bounds, bootstrap),
            kind: KlKind::Bound,
            estimate: estimates.map(|values| mean_with_interval(&values, bootstrap).clamped(0.0, bound)),
        });
    }
    let choices = estimates.unwrap_or(bounds);
    let log_ratios = by_prompt(method, runs, &log_ratio)?;
    let sums: Vec<f64> = choices.iter().zip(&log_ratios).map(|(a, b)| a + b).collect();
    let value = (mean_of(&choices).clamp(0.0, bound) + mean_of(&log_ratios)).max(0.0);
    let ci = mean_with_interval(&sums, bootstrap).ci.map(|ends| Interval {
        lo: ends.lo.max(0.0).min(value),
        hi: ends.hi.max(value),
    });
    Ok(Distance {
        kl: Mean { value, ci },
        kind: KlKind::Estimate,
        estimate: None,
    })
}

/// Bound in nats on what the choice of one prompt adds to its draws' policy.
fn bound(rule: KlRule, run: &PromptRun) -> Result<f64, EvalError> {
    match rule {
        KlRule::BestOfN { num_candidates } | KlRule::WorstOfN { num_candidates } => {
            Ok(best_of_n_bound_nats(num_candidates))
        }
        KlRule::Blockwise => run
            .mean_beside("KL bound", &run.block_kl, |blocks| Some(blocks.bound_nats))?
            .ok_or(EvalError::Empty {
                what: "choices of blocks",
            }),
        KlRule::Selection { num_candidates } => Ok(selection_bound_nats(num_candidates)),
        KlRule::TokenwiseSum | KlRule::GuidedSum | KlRule::Deterministic | KlRule::LogRatio => Ok(0.0),
    }
}

/// Estimates by prompt of what the choice adds: ties-aware ones for rules that choose by reward, and for blocks those
/// from blocks drawn for the purpose, where every answer has one.
fn choice_estimates(
    method: &MethodRuns,
    runs: &[&PromptRun],
    pools: &[RewardSample],
) -> Result<Option<Vec<f64>>, EvalError> {
    Ok(match method.kl_rule {
        KlRule::BestOfN { num_candidates } => pools
            .iter()
            .map(|pool| best_of_n_kl_jackknife_nats(pool, num_candidates))
            .collect(),
        KlRule::WorstOfN { num_candidates } => pools
            .iter()
            .map(|pool| best_of_n_kl_jackknife_nats(&pool.negated(), num_candidates))
            .collect(),
        KlRule::Blockwise => {
            let estimate = |run: &PromptRun| {
                run.mean_beside("KL estimate", &run.block_kl, |blocks| blocks.estimate_nats)
            };
            by_prompt(method, runs, &estimate)?.into_iter().collect()
        }
        _ => None,
    })
}

fn log_ratio(run: &PromptRun) -> Result<f64, EvalError> {
    run.answer_mean("log-ratio", Scored::log_ratio_nats)
}

fn by_prompt<T>(
    method: &MethodRuns,
    runs: &[&PromptRun],
    of: &dyn Fn(&PromptRun) -> Result<T, EvalError>,
) -> Result<Vec<T>, EvalError> {
    runs.iter()
        .map(|run| of(run).map_err(|error| error.in_prompt(&method.method, run.prompt_idx)))
        .collect()
}

fn mean_with_interval(values: &[f64], bootstrap: &Bootstrap) -> Mean {
    Mean {
        value: mean_of(values),
        ci: bootstrap.mean_interval(values),
    }
}

impl Mean {
    /// Value and interval cut to a range that holds the truth.
    fn clamped(self, lo: f64, hi: f64) -> Self {
        let cut = |value: f64| value.clamp(lo, hi);
        Self {
            value: cut(self.value),
            ci: self.ci.map(|ends| Interval {
                lo: cut(ends.lo),
                hi: cut(ends.hi),
            }),
        }
    }
}
