//! `trimtab generate`: one prompt, one answer, and what it cost.

use std::io::Read;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};
use trimtab_base::{RewardModel, Seed, TokenId};
use trimtab_decode::{DecodeSpec, FinishReason, StopRules};
use trimtab_engine::{EngineConfig, Usage};
use trimtab_eval::{KlKind, drift_nats};
use trimtab_runtime::{Job, JobResult, PromptStyle, RunEvent, RunLimits, run_jobs};

use crate::Verdict;
use crate::args::GenerateArgs;
use crate::output;
use crate::resolve::ReadyModel;

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
    let mut record = Map::new();
    if let Some(answer) = &args.answer {
        record.insert("answer".to_owned(), Value::String(answer.clone()));
    }
    let job = Job {
        token_ids: style.encode(tokenizer, &prompt)?,
        prompt,
        record,
        decode: args.decode.clone(),
        seed: Seed(args.seed),
        stop: StopRules {
            stop_tokens: tokenizer.stop_tokens().to_vec(),
            stop_strings: args.stop.clone(),
            max_new_tokens: args.max_new_tokens,
        },
    };
    let mut engine = model.engine(args.run.kv_memory, EngineConfig::standard())?;
    let mut result = None;
    run_jobs::<anyhow::Error>(
        &mut engine,
        &model.loaded.token_bytes(),
        &[job],
        reward,
        RunLimits::standard(),
        &mut |event| {
            if let RunEvent::Finished(finished) = event {
                result = Some(finished);
            }
            Ok(())
        },
    )?;
    result.context("the engine ended without an answer")
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
    let candidates: Vec<CandidateReport> = outcome
        .candidates
        .into_iter()
        .map(|candidate| CandidateReport {
            text: candidate.text,
            token_ids: candidate.token_ids,
            log_prob: candidate.log_prob,
            reward: candidate.reward,
            reference_log_prob: candidate.reference_log_prob,
            kl_nats: candidate.kl_nats,
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
        "{}: {} tokens, {} of {} generated; log-probability {:.2} nats; KL {:.3} nats ({})",
        report.decode,
        chosen.token_ids.len(),
        if report.candidates.len() == 1 {
            "all".to_owned()
        } else {
            format!("candidate {}", report.chosen)
        },
        report.tokens_generated,
        chosen.log_prob,
        report.kl_nats,
        report.kl_kind.name(),
    )];
    if let (Some(name), Some(unit), Some(value)) = (&report.reward, &report.reward_unit, chosen.reward) {
        remarks.push(format!("{name} {value:.4} ({unit})"));
    }
    if chosen.finish == FinishReason::Length {
        remarks.push("cut at the token limit (--max-new-tokens)".to_owned());
    }
    output::note(&format!("\n{}", remarks.join("; ")));
    Ok(())
}
