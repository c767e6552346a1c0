//! `trimtab generate`: one prompt, one answer, and what it cost.

use std::io::Read;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};
use trimtab_base::{RewardModel, Seed, TokenId};
use trimtab_decode::{DecodeSpec, FinishReason, StopRules};
use trimtab_engine::{EngineConfig, Usage};
use trimtab_eval::{KlKind, drift_nats};
use trimtab_runtime::{Job, JobResult, PromptStyle, RunEvent, RunLimits, RuntimeError, run_jobs};

use crate::Verdict;
use crate::args::GenerateArgs;
use crate::output;
use crate::progress::AnswerProgress;
use crate::resolve::ReadyModel;

/// Most tokens of an answer where nothing else is asked for and the context is long enough.
const DEFAULT_NEW_TOKENS: usize = 256;

/// What `--json` prints. The keys up to `model_sha256` are stable.
#[derive(Debug, Serialize)]
struct GenerateReport {
    text: String,
    candidates: Vec<CandidateReport>,
    /// Index into `candidates`.
    chosen: usize,
    /// Drift of the answer's law from the reference, in nats.
    kl_nats: f64,
    tokens_generated: u64,
    seed: u64,
    model_sha256: String,
    /// What kind of number `kl_nats` is.
    kl_kind: KlKind,
    model: String,
    decode: DecodeSpec,
    reward: Option<String>,
    reward_unit: Option<String>,
    precision: String,
    prompt_tokens: u64,
    cached_prompt_tokens: u64,
}

#[derive(Debug, Serialize)]
struct CandidateReport {
    text: String,
    token_ids: Vec<TokenId>,
    /// Under the policy it was drawn from, in nats.
    log_prob: f64,
    reward: Option<f64>,
    /// Under the reference at temperature 1, in nats.
    reference_log_prob: f64,
    /// Sum of the steps' exact KL divergences from the reference, in nats.
    kl_nats: f64,
    finish: FinishReason,
}

pub(crate) fn run(args: GenerateArgs) -> Result<Verdict> {
    let prompt = read_prompt(&args.prompt)?;
    if args.decode.needs_rewards() && args.reward.is_none() {
        bail!(
            "{} chooses by reward and none is given; name one, e.g. --reward length",
            args.decode
        );
    }
    let reward = args
        .reward
        .as_ref()
        .map(trimtab_reward::RewardSpec::build)
        .transpose()?;
    if let Some(reward) = &reward {
        reward
            .check_record(&record(&args))
            .map_err(|cause| RuntimeError::Reward {
                label: String::new(),
                cause: Box::new(cause),
            })
            .context("--answer")?;
    }
    let model = ReadyModel::open(
        &args.model,
        args.run.source.into(),
        args.run.precision.plan,
        args.run.threads,
    )?;
    let result = answer(&model, &args, prompt, reward.as_deref())?;
    let as_json = args.json;
    let report = report(&model, args, result, reward.as_deref());
    if as_json {
        output::json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(Verdict::Ok)
}

fn read_prompt(prompt: &str) -> Result<String> {
    let text = match prompt {
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the prompt from standard input")?;
            text.trim_end_matches('\n').to_owned()
        }
        text => text.to_owned(),
    };
    if text.trim().is_empty() {
        bail!("the prompt is empty; give a text, or `-` to read it from standard input");
    }
    Ok(text)
}

/// The prompt's fields, for rewards that read them.
fn record(args: &GenerateArgs) -> Map<String, Value> {
    let answer = args.answer.iter();
    answer
        .map(|answer| ("answer".to_owned(), Value::String(answer.clone())))
        .collect()
}

fn answer(
    model: &ReadyModel,
    args: &GenerateArgs,
    prompt: String,
    reward: Option<&dyn RewardModel>,
) -> Result<JobResult> {
    let tokenizer = model.loaded.tokenizer();
    let style = PromptStyle {
        raw: args.raw,
        system: args.system.clone(),
    };
    let token_ids = style.encode(tokenizer, &prompt)?;
    let max_new_tokens = args
        .max_new_tokens
        .unwrap_or_else(|| default_new_tokens(token_ids.len(), model.loaded.config().context_len));
    let progress = AnswerProgress::new(token_ids.len(), args.decode.num_candidates(), max_new_tokens);
    let job = Job {
        // There is no other job to take it for.
        label: String::new(),
        token_ids,
        prompt,
        record: record(args),
        decode: args.decode.clone(),
        seed: Seed(args.seed),
        stop: StopRules {
            stop_tokens: tokenizer.stop_tokens().to_vec(),
            stop_strings: args.stop.clone(),
            max_new_tokens,
        },
        steering: std::sync::Arc::default(),
        trace: false,
    };
    let mut engine = model.engine(args.run.kv_memory, EngineConfig::standard())?;
    let mut result = None;
    let ran = run_jobs::<anyhow::Error>(
        &mut engine,
        &model.loaded.token_bytes(),
        &[job],
        reward,
        RunLimits::standard(),
        &mut |event| {
            match event {
                RunEvent::Finished(finished) => result = Some(finished),
                RunEvent::Stepped { rows } => progress.stepped(rows),
            }
            Ok(())
        },
    );
    progress.finish();
    ran?;
    result.context("the engine ended without an answer")
}

/// A sum of divergences, of which each is at least 0 but for its rounding.
fn at_least_zero(kl_nats: f64) -> f64 {
    if kl_nats < 0.0 { 0.0 } else { kl_nats }
}

/// New tokens if none are asked for, as far as the context allows, in which the last takes no place. A prompt that
/// leaves no room is refused by the engine, which says how long it is.
fn default_new_tokens(prompt_len: usize, context_len: usize) -> usize {
    let room = (context_len + 1).saturating_sub(prompt_len);
    DEFAULT_NEW_TOKENS.min(room).max(1)
}

fn report(
    model: &ReadyModel,
    args: GenerateArgs,
    result: JobResult,
    reward: Option<&dyn RewardModel>,
) -> GenerateReport {
    let JobResult { outcome, usage, .. } = result;
    let Usage {
        prompt_positions,
        cached_positions,
        ..
    } = usage;
    let (kl_nats, kl_kind) = drift_nats(&args.decode, &outcome);
    let kl_nats = match kl_kind {
        KlKind::Exact => at_least_zero(kl_nats),
        KlKind::Bound | KlKind::Estimate => kl_nats,
    };
    let candidates: Vec<CandidateReport> = outcome
        .candidates
        .into_iter()
        .map(|candidate| CandidateReport {
            text: candidate.text,
            token_ids: candidate.token_ids,
            log_prob: candidate.log_prob,
            reward: candidate.reward,
            reference_log_prob: candidate.reference_log_prob,
            kl_nats: at_least_zero(candidate.kl_nats),
            finish: candidate.finish,
        })
        .collect();
    GenerateReport {
        text: candidates[outcome.chosen].text.clone(),
        candidates,
        chosen: outcome.chosen,
        kl_nats,
        tokens_generated: outcome.tokens_generated,
        seed: args.seed,
        model_sha256: model.sha256(),
        kl_kind,
        model: args.model,
        decode: args.decode,
        reward: args.reward.map(|spec| spec.to_string()),
        reward_unit: reward.map(|reward| reward.unit().to_owned()),
        precision: args.run.precision.name,
        prompt_tokens: prompt_positions,
        cached_prompt_tokens: cached_positions,
    }
}

fn show(report: &GenerateReport) -> Result<()> {
    output::line(&report.text)?;
    let chosen = &report.candidates[report.chosen];
    let mut remarks = vec![format!(
        "{}: {}; log-probability {} nats under the model; KL {} nats ({})",
        report.decode,
        counts(report),
        rounded(chosen.reference_log_prob, 2),
        rounded(report.kl_nats, 3),
        report.kl_kind.name(),
    )];
    if let (Some(name), Some(unit), Some(value)) = (&report.reward, &report.reward_unit, chosen.reward) {
        remarks.push(format!("{name} {} ({unit})", rounded(value, 4)));
    }
    if chosen.finish == FinishReason::Length {
        let limit = chosen.token_ids.len();
        remarks.push(format!("cut at the limit of {limit} tokens (--max-new-tokens)"));
    }
    output::note(&format!("\n{}", remarks.join("; ")));
    Ok(())
}

/// Tokens of the answer, and of what it was chosen from.
fn counts(report: &GenerateReport) -> String {
    let own = report.candidates[report.chosen].token_ids.len();
    match report.candidates.len() {
        1 if own as u64 == report.tokens_generated => format!("{own} tokens"),
        num_candidates => format!(
            "{own} tokens, candidate {} of {num_candidates} ({} tokens generated in all)",
            report.chosen + 1,
            report.tokens_generated
        ),
    }
}

/// A number for people: one that rounds to zero has no sign.
fn rounded(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let is_zero = text.chars().all(|ch| matches!(ch, '-' | '0' | '.'));
    if is_zero {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limit_fits_the_context() {
        assert_eq!(default_new_tokens(10, 8192), 256);
        assert_eq!(default_new_tokens(5, 256), 252);
        assert_eq!(default_new_tokens(128, 128), 1);
        assert_eq!(default_new_tokens(500, 128), 1, "which the engine refuses");
    }

    #[test]
    fn nothing_is_shown_as_minus_zero() {
        let check = |value: f64, expect: &str| assert_eq!(rounded(value, 3), expect);
        check(-0.000_4, "0.000");
        check(-0.0, "0.000");
        check(-0.000_6, "-0.001");
        check(10.0, "10.000");
        check(f64::NEG_INFINITY, "-inf");
    }
}
