//! `trimtab bench best-of-n`: a whole request, from the prompt's first token to the last candidate's end.

use anyhow::Result;
use serde::Serialize;
use trimtab_engine::EngineConfig;

use super::median;
use super::round::{self, Shape};
use crate::Verdict;
use crate::args::BenchBestOfNArgs;
use crate::machine;
use crate::output;
use crate::resolve::ReadyModel;

/// Tokens of the prompt and new tokens where nothing else is asked for.
const USUAL: (usize, usize) = (2048, 128);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct BestOfNReport {
    /// Median over the rounds.
    seconds: f64,
    prompt_tokens: usize,
    candidates: usize,
    new_tokens: usize,
    rounds: usize,
    precision: String,
    threads: usize,
    model: String,
    model_sha256: String,
    peak_rss_bytes: Option<u64>,
}

pub(crate) fn run(args: &BenchBestOfNArgs) -> Result<Verdict> {
    let model = ReadyModel::open(
        &args.model,
        args.run.source.into(),
        args.run.precision.plan,
        args.run.threads,
    )?;
    let context_len = model.loaded.config().context_len;
    let (prompt, new) = round::fit(args.prompt, args.new, USUAL, 1, context_len)?;
    let shape = Shape {
        prompt,
        batch: args.candidates,
        new,
    };
    let config = EngineConfig {
        prefix_cache: false,
        ..EngineConfig::standard()
    };
    let mut seconds = Vec::new();
    for round in 0..args.rounds as u64 {
        let mut engine = model.engine(args.run.kv_memory, config)?;
        let timing = round::run(&model, &mut engine, shape, round)?;
        seconds.push((timing.prefill + timing.decode).as_secs_f64());
    }
    let report = BestOfNReport {
        seconds: median(seconds),
        prompt_tokens: prompt,
        candidates: args.candidates,
        new_tokens: new,
        rounds: args.rounds,
        precision: args.run.precision.name.clone(),
        threads: model.loaded.pool().num_threads(),
        model: args.model.clone(),
        model_sha256: model.sha256(),
        peak_rss_bytes: machine::peak_rss_bytes(),
    };
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&format!(
            "best of {} with a prompt of {} and {} new tokens each: {:.2} s ({:.0} tokens/s generated)",
            report.candidates,
            report.prompt_tokens,
            report.new_tokens,
            report.seconds,
            (report.candidates * report.new_tokens) as f64 / report.seconds
        ))?;
    }
    Ok(Verdict::Ok)
}
