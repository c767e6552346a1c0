//! Points from samples: per-prompt values, their means, their intervals. Knows no file.

use std::collections::BTreeMap;

use trimtab_base::Seed;
use trimtab_decode::Sampling;

use super::columns::Columns;
use super::distance::{Distance, distance};
use super::point::{NamedMean, ShownAs};
use super::pools::{pools_of, tokens_of_a_draw};
use super::{Frontier, FrontierPoint, KlRule, RunFacts};
use crate::best_of_n_curve::{CurvePoint, best_of_n_curve};
use crate::confidence::{Bootstrap, Interval, is_zero_or_one, mean_of};
use crate::error::EvalError;
use crate::reward_sample::RewardSample;
use crate::samples::{PromptRun, ReferenceSamples};

/// A method with its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodRuns {
    /// The method as written in the configuration.
    pub method: String,
    /// Candidates drawn for an answer.
    pub num_candidates: u32,
    /// The policy they were drawn from, as configured: drawn responses cannot tell whether it is the reference.
    pub sampling: Sampling,
    /// How its KL is accounted for.
    pub kl_rule: KlRule,
    /// Names of what [`PromptRun::values`] holds, one a steering term; empty for methods without scorers.
    pub value_names: Vec<RewardName>,
    /// Whether a seed gives the method something that all its prompts share, e.g. a scorer trained with that seed.
    pub varies_by_seed: bool,
    /// How it is shown.
    pub shown_as: ShownAs,
    /// One run a prompt, in any order.
    pub runs: Vec<PromptRun>,
}

/// What a reward or a value is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewardName {
    /// The reward as written in the configuration, or the scorer.
    pub name: String,
    /// Its unit, e.g. `nats`.
    pub unit: String,
}

impl MethodRuns {
    /// Whether candidates are drawn from the reference itself: temperature 1, nothing cut.
    pub(super) fn is_from_reference(&self) -> bool {
        self.sampling == Sampling::REFERENCE
    }
}

/// All samples of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontierInput {
    /// What the run was.
    pub facts: RunFacts,
    /// The methods, in the order of the report.
    pub methods: Vec<MethodRuns>,
    /// Held-out reference responses, one entry a prompt.
    pub references: Vec<ReferenceSamples>,
    /// Names of what every answer's [`PromptRun::rewards_also`] holds.
    pub rewards_also: Vec<RewardName>,
    /// The variable of [`ShownAs::variables`] that a figure shall have on its axis.
    pub x_axis: Option<String>,
}

impl Frontier {
    /// Computes every point.
    ///
    /// # Errors
    /// Numbers that are not finite, named by method and prompt; methods and references on different prompts.
    pub fn compute(input: &FrontierInput) -> Result<Self, EvalError> {
        let references = references_by_prompt(&input.references)?;
        let bootstrap = Bootstrap::of_seed(Seed(input.facts.seed));
        let rewards_are_shares = rewards_are_zero_or_one(input);
        let mut points = Vec::with_capacity(input.methods.len());
        let curve = curve(input, &references, &bootstrap)?;
        for method in &input.methods {
            let runs = runs_by_prompt(method, &references)?;
            let columns = Columns::of(method, &runs, &references, input.rewards_also.len())?;
            let pools = pools_of(&method.sampling, &input.methods, &references)?;
            let distance = distance(method, &runs, &pools, &bootstrap)?;
            let shares = rewards_are_shares;
            let mut point = point(method, &columns, &distance, shares, &bootstrap);
            point.like_best_of = like_best_of(&curve, point.reward_mean);
            point.rewards_also = named_means(&input.rewards_also, &columns.rewards_also, &bootstrap);
            points.push(point);
        }
        Ok(Self {
            points,
            facts: input.facts.clone(),
            seeds: Vec::new(),
            x_axis: input.x_axis.clone(),
            num_prompts: references.len() as u64,
            num_references: references.values().map(RewardSample::len).sum(),
            confidence_level: bootstrap.level,
            num_resamples: bootstrap.num_resamples,
            best_of_n_curve: curve,
        })
    }
}

/// Best-of-N in closed form up to the largest N that is there to be compared.
fn curve(
    input: &FrontierInput,
    references: &References,
    bootstrap: &Bootstrap,
) -> Result<Vec<CurvePoint>, EvalError> {
    let counts = input.methods.iter().map(|method| method.num_candidates);
    let max_candidates = counts.max().unwrap_or(1);
    let pools = pools_of(&Sampling::REFERENCE, &input.methods, references)?;
    let tokens = tokens_of_a_draw(&input.methods);
    let curve = best_of_n_curve(&pools, max_candidates, bootstrap);
    Ok(curve
        .iter()
        .map(|point| rounded_curve_point(point, tokens))
        .collect())
}

/// The least N of the curve with at least this mean reward.
fn like_best_of(curve: &[CurvePoint], reward_mean: f64) -> Option<u32> {
    let reached = curve.iter().find(|point| point.reward_mean >= reward_mean);
    reached.map(|point| point.num_candidates)
}

fn named_means(names: &[RewardName], columns: &[Vec<f64>], bootstrap: &Bootstrap) -> Vec<NamedMean> {
    let named = |(name, values): (&RewardName, &Vec<f64>)| NamedMean {
        name: name.name.clone(),
        unit: name.unit.clone(),
        mean: rounded(mean_of(values)),
        ci: bootstrap.mean_interval(values).map(rounded_interval),
    };
    names.iter().zip(columns).map(named).collect()
}

/// Rewards of the reference by prompt; the map's order makes every sum one order, whatever the journal's was.
pub(super) type References = BTreeMap<u64, RewardSample>;

fn references_by_prompt(samples: &[ReferenceSamples]) -> Result<References, EvalError> {
    const METHOD: &str = "reference";
    let mut references = References::new();
    for sample in samples {
        let rewards =
            RewardSample::try_new(&sample.rewards).map_err(|e| e.in_prompt(METHOD, sample.prompt_idx))?;
        if references.insert(sample.prompt_idx, rewards).is_some() {
            let problem = format!("prompt {} is there twice", sample.prompt_idx);
            return Err(EvalError::PromptMismatch {
                method: METHOD.to_owned(),
                expected: samples.len(),
                problem,
            });
        }
    }
    if references.is_empty() {
        return Err(EvalError::Empty {
            what: "reference responses",
        });
    }
    Ok(references)
}

/// The method's runs in order of prompt, exactly one for each with reference samples.
fn runs_by_prompt<'a>(
    method: &'a MethodRuns,
    references: &References,
) -> Result<Vec<&'a PromptRun>, EvalError> {
    let mismatch = |problem: String| EvalError::PromptMismatch {
        method: method.method.clone(),
        expected: references.len(),
        problem,
    };
    let mut runs = BTreeMap::new();
    for run in &method.runs {
        if !references.contains_key(&run.prompt_idx) {
            return Err(mismatch(format!("prompt {} has none", run.prompt_idx)));
        }
        if runs.insert(run.prompt_idx, run).is_some() {
            return Err(mismatch(format!("prompt {} is there twice", run.prompt_idx)));
        }
    }
    if let Some(missing) = references.keys().find(|prompt| !runs.contains_key(prompt)) {
        return Err(mismatch(format!("prompt {missing} is missing")));
    }
    Ok(runs.into_values().collect())
}

/// Whether every reward of the run is 0 or 1, so that a mean reward is a share of successes.
fn rewards_are_zero_or_one(input: &FrontierInput) -> bool {
    let runs = input.methods.iter().flat_map(|method| &method.runs);
    let drawn = runs.flat_map(|run| run.candidates.iter().chain(&run.answers));
    let held_out = input.references.iter().flat_map(|sample| &sample.rewards);
    drawn
        .map(|response| response.reward)
        .chain(held_out.copied())
        .all(is_zero_or_one)
}

fn point(
    method: &MethodRuns,
    columns: &Columns,
    distance: &Distance,
    rewards_are_shares: bool,
    bootstrap: &Bootstrap,
) -> FrontierPoint {
    let mean = |values: &[f64]| rounded(mean_of(values));
    let interval = |values: &[f64]| bootstrap.mean_interval(values).map(rounded_interval);
    let share_interval = |values: &[f64]| bootstrap.share_interval(values).map(rounded_interval);
    FrontierPoint {
        method: method.method.clone(),
        num_candidates: method.num_candidates,
        reward_mean: mean(&columns.reward),
        reward_ci: if rewards_are_shares {
            share_interval(&columns.reward)
        } else {
            interval(&columns.reward)
        },
        win_rate: mean(&columns.win),
        win_rate_ci: share_interval(&columns.win),
        kl_nats: rounded(distance.kl.value),
        kl_kind: distance.kind,
        // What one answer a prompt costs, whatever the number of answers that are averaged.
        tokens_generated: columns.tokens.iter().sum::<f64>().round() as u64,
        kl_ci: distance.kl.ci.map(rounded_interval),
        kl_estimate_nats: distance.estimate.map(|estimate| rounded(estimate.value)),
        kl_estimate_ci: distance
            .estimate
            .and_then(|estimate| estimate.ci.map(rounded_interval)),
        reward_gain: mean(&columns.gain),
        reward_gain_ci: interval(&columns.gain),
        tokens_per_answer: mean(&columns.tokens),
        tokens_per_answer_ci: interval(&columns.tokens),
        like_best_of: None,
        choices_per_answer: columns.choices.as_deref().map(mean),
        first_commit_tokens: columns.first_commit.as_deref().map(mean),
        first_commit_tokens_ci: columns.first_commit.as_deref().and_then(interval),
        values: named_means(&method.value_names, &columns.values, bootstrap),
        rewards_also: Vec::new(),
        seed_values: Vec::new(),
        shown_as: method.shown_as.clone(),
    }
}

/// Six decimals; adding zero turns -0 into 0.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6 + 0.0
}

pub(super) fn rounded_interval(interval: Interval) -> Interval {
    Interval {
        lo: rounded(interval.lo),
        hi: rounded(interval.hi),
    }
}

/// The point with six decimals, and with what N draws cost if one takes `tokens`.
fn rounded_curve_point(point: &CurvePoint, tokens: Option<f64>) -> CurvePoint {
    CurvePoint {
        num_candidates: point.num_candidates,
        reward_mean: rounded(point.reward_mean),
        reward_ci: point.reward_ci.map(rounded_interval),
        win_rate: point.win_rate.map(rounded),
        win_rate_ci: point.win_rate_ci.map(rounded_interval),
        tokens_per_answer: tokens.map(|tokens| rounded(tokens * f64::from(point.num_candidates))),
        kl_bound_nats: rounded(point.kl_bound_nats),
        kl_estimate_nats: point.kl_estimate_nats.map(rounded),
    }
}

#[cfg(test)]
mod tests;
