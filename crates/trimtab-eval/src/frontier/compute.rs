//! Points from samples: per-prompt values, their means, their intervals. Knows no file.

use std::collections::BTreeMap;

use trimtab_base::Seed;

use super::{Frontier, FrontierPoint, KlRule, RunFacts};
use crate::best_of_n_curve::{CurvePoint, best_of_n_curve};
use crate::confidence::{Bootstrap, Interval, mean_of};
use crate::error::EvalError;
use crate::kl::{
    KlKind, best_of_n_bound_nats, best_of_n_kl_estimate_nats, blockwise_bound_nats, selection_bound_nats,
};
use crate::reward_sample::RewardSample;
use crate::samples::{PromptRun, ReferenceSamples, Scored};
use crate::win_rate::win_rate;

/// A method with its runs.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodRuns {
    /// The method as written in the configuration.
    pub method: String,
    /// Candidates drawn for an answer.
    pub num_candidates: u32,
    /// How its KL is accounted for.
    pub kl_rule: KlRule,
    /// One run a prompt, in any order.
    pub runs: Vec<PromptRun>,
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
}

impl Frontier {
    /// Computes every point.
    ///
    /// # Errors
    /// Numbers that are not finite, named by method and prompt; methods and references on different prompts.
    pub fn compute(input: &FrontierInput) -> Result<Self, EvalError> {
        let references = references_by_prompt(&input.references)?;
        let bootstrap = Bootstrap::of_seed(Seed(input.facts.seed));
        let mut points = Vec::with_capacity(input.methods.len());
        for method in &input.methods {
            let runs = runs_by_prompt(method, &references)?;
            points.push(point(method, &runs, &references, &bootstrap)?);
        }
        let max_candidates = input
            .methods
            .iter()
            .map(|method| method.num_candidates)
            .max()
            .unwrap_or(1);
        let pools = curve_pools(&input.methods, &references)?;
        Ok(Self {
            points,
            facts: input.facts.clone(),
            num_prompts: references.len() as u64,
            num_references: references.values().map(RewardSample::len).sum(),
            confidence_level: bootstrap.level,
            num_resamples: bootstrap.num_resamples,
            best_of_n_curve: best_of_n_curve(&pools, max_candidates)
                .iter()
                .map(rounded_curve_point)
                .collect(),
        })
    }
}

/// Rewards of the reference by prompt; the map's order makes every sum one order, whatever the journal's was.
type References = BTreeMap<u64, RewardSample>;

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

/// Values of one method, one a prompt, in order of prompt.
struct Columns {
    reward: Vec<f64>,
    gain: Vec<f64>,
    win: Vec<f64>,
    tokens: Vec<f64>,
    kl: Vec<f64>,
    /// Only where there is an estimate beside `kl` for every prompt.
    kl_estimate: Option<Vec<f64>>,
}

fn columns(method: &MethodRuns, runs: &[&PromptRun], references: &References) -> Result<Columns, EvalError> {
    let mut columns = Columns {
        reward: vec![],
        gain: vec![],
        win: vec![],
        tokens: vec![],
        kl: vec![],
        kl_estimate: Some(vec![]),
    };
    for run in runs {
        let reference = &references[&run.prompt_idx];
        let in_prompt = |error: EvalError| error.in_prompt(&method.method, run.prompt_idx);
        let answers = run.answer_sample().map_err(in_prompt)?;
        columns.reward.push(answers.mean());
        columns.gain.push(answers.mean() - reference.mean());
        columns.win.push(win_rate(&answers, reference));
        columns.tokens.push(run.tokens_per_answer());
        let (kl, estimate) = kl_of_run(method.kl_rule, run).map_err(in_prompt)?;
        columns.kl.push(kl);
        columns.kl_estimate = columns
            .kl_estimate
            .zip(estimate)
            .map(|(mut estimates, estimate)| {
                estimates.push(estimate);
                estimates
            });
    }
    Ok(columns)
}

/// KL of one prompt in nats by the rule, and the estimate beside it where there is one.
///
/// For a choice among draws from a policy that is not the reference, the chain
/// `KL(chosen || reference) = KL(chosen || policy) + E_chosen[log policy - log reference]` adds the answer's log-ratio.
fn kl_of_run(rule: KlRule, run: &PromptRun) -> Result<(f64, Option<f64>), EvalError> {
    let log_ratio = || run.answer_mean("log-ratio", Scored::log_ratio_nats);
    // Policies that never leave the reference have log-ratios of rounding errors; zero is the truth.
    let shift = || {
        if run.is_from_reference() {
            Ok(0.0)
        } else {
            log_ratio()
        }
    };
    let value = match rule {
        KlRule::TokenwiseSum => run.candidate_mean("KL", |candidate| candidate.kl_nats)?,
        KlRule::BestOfN { num_candidates } | KlRule::WorstOfN { num_candidates } => {
            let shift = shift()?;
            let bound = best_of_n_bound_nats(num_candidates);
            // One candidate is no choice: the bound, zero, is the value, and needs no second candidate.
            let estimate = if num_candidates == 1 {
                Some(bound)
            } else {
                estimate(rule, run, num_candidates)?
            };
            return Ok((bound + shift, estimate.map(|estimate| estimate + shift)));
        }
        KlRule::Selection { num_candidates } => selection_bound_nats(num_candidates) + shift()?,
        KlRule::Blockwise {
            num_candidates,
            block_len,
        } => run.answer_mean("KL", |answer| {
            let num_blocks = answer.num_tokens.div_ceil(block_len.max(1));
            blockwise_bound_nats(num_candidates, num_blocks)
        })?,
        KlRule::Deterministic => -run.answer_mean("log-probability", |answer| answer.reference_log_prob)?,
        KlRule::LogRatio => log_ratio()?,
    };
    Ok((value, None))
}

/// Worst-of-N is best-of-N on the negated reward.
fn estimate(rule: KlRule, run: &PromptRun, num_candidates: u32) -> Result<Option<f64>, EvalError> {
    let is_worst = matches!(rule, KlRule::WorstOfN { .. });
    let sign = if is_worst { -1.0 } else { 1.0 };
    let rewards: Vec<f64> = run
        .candidates
        .iter()
        .map(|candidate| sign * candidate.reward)
        .collect();
    Ok(best_of_n_kl_estimate_nats(
        &RewardSample::try_new(&rewards)?,
        num_candidates,
    ))
}

fn kind_of(rule: KlRule) -> KlKind {
    match rule {
        KlRule::TokenwiseSum | KlRule::Deterministic => KlKind::Exact,
        KlRule::BestOfN { .. }
        | KlRule::WorstOfN { .. }
        | KlRule::Selection { .. }
        | KlRule::Blockwise { .. } => KlKind::Bound,
        KlRule::LogRatio => KlKind::Estimate,
    }
}

fn point(
    method: &MethodRuns,
    runs: &[&PromptRun],
    references: &References,
    bootstrap: &Bootstrap,
) -> Result<FrontierPoint, EvalError> {
    let columns = columns(method, runs, references)?;
    let interval = |values: &[f64]| bootstrap.mean_interval(values).map(rounded_interval);
    let kl_kind = kind_of(method.kl_rule);
    let is_constant_bound = kl_kind == KlKind::Bound && columns.kl.iter().all(|&kl| kl == columns.kl[0]);
    let mean = |values: &[f64]| rounded(mean_of(values));
    Ok(FrontierPoint {
        method: method.method.clone(),
        num_candidates: method.num_candidates,
        reward_mean: mean(&columns.reward),
        reward_ci: interval(&columns.reward),
        win_rate: mean(&columns.win),
        win_rate_ci: bootstrap.share_interval(&columns.win).map(rounded_interval),
        kl_nats: mean(&columns.kl),
        kl_kind,
        tokens_generated: runs.iter().map(|run| run.tokens_generated).sum(),
        kl_ci: if is_constant_bound {
            None
        } else {
            interval(&columns.kl)
        },
        kl_estimate_nats: columns.kl_estimate.as_deref().map(mean),
        kl_estimate_ci: columns.kl_estimate.as_deref().and_then(interval),
        reward_gain: mean(&columns.gain),
        reward_gain_ci: interval(&columns.gain),
        tokens_per_answer: mean(&columns.tokens),
        tokens_per_answer_ci: interval(&columns.tokens),
    })
}

/// Reference responses by prompt for the closed-form curve: the held-out ones, and the candidates of the method that
/// drew the most from the reference. Of one method only, since sample `i` of a prompt is the same in all of them.
fn curve_pools(methods: &[MethodRuns], references: &References) -> Result<Vec<RewardSample>, EvalError> {
    let num_drawn = |method: &&MethodRuns| method.runs.iter().map(|run| run.candidates.len()).sum::<usize>();
    let largest = methods
        .iter()
        .filter(|method| draws_from_reference(method))
        .max_by_key(num_drawn);
    let mut pools: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (&prompt_idx, sample) in references {
        let pool = pools.entry(prompt_idx).or_default();
        pool.extend(
            sample
                .classes()
                .iter()
                .flat_map(|class| (0..class.count).map(|_| class.reward)),
        );
    }
    for run in largest.iter().flat_map(|method| &method.runs) {
        let pool = pools.entry(run.prompt_idx).or_default();
        pool.extend(run.candidates.iter().map(|candidate| candidate.reward));
    }
    pools
        .values()
        .map(|rewards| RewardSample::try_new(rewards))
        .collect()
}

/// Whether the method's candidates are independent draws from the reference.
fn draws_from_reference(method: &MethodRuns) -> bool {
    let draws_independently = match method.kl_rule {
        KlRule::TokenwiseSum
        | KlRule::BestOfN { .. }
        | KlRule::WorstOfN { .. }
        | KlRule::Selection { .. } => true,
        KlRule::Blockwise { .. } | KlRule::Deterministic | KlRule::LogRatio => false,
    };
    draws_independently && method.runs.iter().all(PromptRun::is_from_reference)
}

/// Six decimals; adding zero turns -0 into 0.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6 + 0.0
}

fn rounded_interval(interval: Interval) -> Interval {
    Interval {
        lo: rounded(interval.lo),
        hi: rounded(interval.hi),
    }
}

fn rounded_curve_point(point: &CurvePoint) -> CurvePoint {
    CurvePoint {
        num_candidates: point.num_candidates,
        reward_mean: rounded(point.reward_mean),
        win_rate: point.win_rate.map(rounded),
        kl_bound_nats: rounded(point.kl_bound_nats),
        kl_estimate_nats: point.kl_estimate_nats.map(rounded),
    }
}

#[cfg(test)]
mod tests;
