//! `trimtab bench train`: steps of policy training on random tokens, through the same loop as `train align`.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed};
use trimtab_kernels::memory;
use trimtab_model::ModelFile;
use trimtab_train::decoder::LoraConfig;
use trimtab_train::policy::{
    PolicyBase, PolicyData, PolicyDepth, PolicyObjective, PolicyResponse, PolicyTrainConfig, train_policy,
};
use trimtab_train::{OptimConfig, RunDir, TrainDevice, TrainError, TrainEvent};

use super::median;
use crate::Verdict;
use crate::args::{BenchTrainArgs, TrainMethod};
use crate::machine;
use crate::output;
use crate::resolve;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct TrainReport {
    /// Tokens run a second, prompt included, in the median step.
    tokens_per_s: f64,
    /// Median over the timed steps.
    step_seconds: f64,
    /// Most memory held until the last step was done.
    peak_rss_bytes: Option<u64>,
    method: TrainMethod,
    depth: PolicyDepth,
    batch: usize,
    seq: usize,
    prompt: usize,
    steps: usize,
    threads: usize,
    device: TrainDevice,
    model: String,
    model_sha256: String,
}

pub(crate) fn run(args: &BenchTrainArgs) -> Result<Verdict> {
    if args.prompt >= args.seq {
        bail!(
            "a prompt of {} leaves no token of a sequence of {}; give --prompt less than --seq",
            args.prompt,
            args.seq
        );
    }
    memory::keep_freed();
    let threads = args.threads.map_or_else(machine::default_threads, usize::from);
    // Tensors are computed by the threads of the process; this command is alone in it.
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let stored = resolve::fetch(&resolve::open_store()?, &args.model, args.source.into())?;
    let file = ModelFile::open(&stored.path).with_context(|| stored.path.display().to_string())?;
    let context_len = file.config().context_len;
    // The last token of a response is predicted and never run.
    if args.seq > context_len {
        bail!(
            "sequences of {} exceed the model's context of {context_len}",
            args.seq
        );
    }
    let sha256 = stored.weights_sha256.to_string();
    let base = PolicyBase {
        config: file.config().clone(),
        weights: file.weights(),
        sha256: sha256.clone(),
    };
    let responses = responses(args, base.config.vocab_len);
    let (step_seconds, peak_rss_bytes) = time(&config(args), &base, &responses, args.steps)?;
    let report = TrainReport {
        tokens_per_s: (args.batch * args.seq) as f64 / step_seconds,
        step_seconds,
        peak_rss_bytes,
        method: args.method,
        depth: args.depth.into(),
        batch: args.batch,
        seq: args.seq,
        prompt: args.prompt,
        steps: args.steps,
        threads,
        device: args.device,
        model: args.model.clone(),
        model_sha256: sha256,
    };
    if args.json {
        output::json(&report)?;
    } else {
        let memory = report.peak_rss_bytes.map_or_else(String::new, |bytes| {
            format!(", {:.2} GB at most", bytes as f64 / 1e9)
        });
        output::line(&format!(
            "{} sequences of {} tokens: {:.0} tokens/s ({:.2} s a step{memory})",
            report.batch, report.seq, report.tokens_per_s, report.step_seconds
        ))?;
    }
    Ok(Verdict::Ok)
}

/// Random sequences of which all but the prompt is learned from, two to a prompt.
fn responses(args: &BenchTrainArgs, vocab_len: usize) -> Vec<PolicyResponse> {
    let response = |idx: u64| {
        let coins = SampleStream::new(Seed(0), PromptKey(idx), 0, Purpose::Token);
        let token = |step: u64| (coins.uniform(step) * vocab_len as f64) as u32;
        PolicyResponse {
            key: idx / 2,
            prompt_token_ids: (0..args.prompt as u64).map(token).collect(),
            // A sequence is run without its last token.
            token_ids: (args.prompt as u64..=args.seq as u64).map(token).collect(),
            sampler_log_probs: Vec::new(),
            reward: coins.uniform(u64::MAX),
            weight: 1.0,
            is_of_reference: false,
        }
    };
    (0..args.batch as u64).map(response).collect()
}

fn config(args: &BenchTrainArgs) -> PolicyTrainConfig {
    PolicyTrainConfig {
        objective: match args.method {
            TrainMethod::Sft => PolicyObjective::Sft { num_candidates: 1 },
            TrainMethod::Rl => PolicyObjective::default(),
        },
        depth: args.depth.into(),
        device: args.device,
        lora: LoraConfig {
            rank: args.rank,
            ..LoraConfig::default()
        },
        epochs: args.steps as u64 + 2,
        responses_per_step: args.batch,
        optim: OptimConfig {
            // One piece: what is measured is a step with the memory of all its sequences.
            batch_len: args.piece.unwrap_or(1 << 40),
            learning_rate: 1e-5,
            eval_every_steps: Some(1 << 40),
            ..OptimConfig::default()
        },
        eval_fraction: 0.0,
        ..PolicyTrainConfig::default()
    }
}

/// Seconds of the median step, and the most memory until the last.
fn time(
    config: &PolicyTrainConfig,
    base: &PolicyBase,
    responses: &[PolicyResponse],
    num_steps: usize,
) -> Result<(f64, Option<u64>)> {
    let folder = std::env::temp_dir().join(format!("trimtab-bench-train-{}", std::process::id()));
    let mut seconds = Vec::new();
    let mut peak = None;
    let mut last = None;
    let on_event = &mut |event: TrainEvent| {
        let now = Instant::now();
        // The first step warms caches and allocates moments.
        if let TrainEvent::Step { step, .. } = event {
            let started = last.replace(now);
            if step > 1 {
                seconds.extend(started.map(|started| now.duration_since(started).as_secs_f64()));
            }
            peak = machine::peak_rss_bytes();
            if seconds.len() >= num_steps {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    };
    let data = PolicyData::Responses {
        responses,
        probe: None,
    };
    let run_dir = RunDir::new(&folder, env!("CARGO_PKG_VERSION"));
    let outcome = train_policy(config, base, data, &run_dir, on_event);
    // Best effort: what is left lies in the system's folder for such things.
    let _ = std::fs::remove_dir_all(&folder);
    match outcome {
        Ok(_) | Err(TrainError::Stopped { .. }) => Ok((median(seconds), peak)),
        Err(error) => Err(error).context("a timed step failed"),
    }
}
