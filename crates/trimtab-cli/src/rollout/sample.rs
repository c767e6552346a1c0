//! Samples responses to prompts, a window of prompts at a time. Knows the runtime, no summary.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::Digest;
use trimtab_base::{PromptKey, Seed, TokenId};
use trimtab_data::{Message, PromptRecord, Rollout, RolloutWriter};
use trimtab_decode::{
    AnswerExtractor, Candidate, DecodeSpec, DecoderInputs, FinishReason, Outcome, Sampling, StopRules,
};
use trimtab_engine::{Engine, EngineConfig, Prompt, Request};
use trimtab_runtime::{Job, RunEvent, RunLimits, run_jobs};

use super::prompts::PromptSource;
use super::setup::{Ran, Scan, Setup};
use crate::progress::ItemProgress;

/// Prompts that are read ahead and run together: many, so that the engine seldom runs dry at the end of a window, and
/// few enough to hold.
const WINDOW_PROMPTS: usize = 1024;

/// Rows that are scored together, at least.
const SCORED_ROWS: usize = 64;

/// A prompt that fits the context.
struct Encoded {
    record: PromptRecord,
    token_ids: Vec<TokenId>,
}

/// Samples what is missing in the folder.
pub(super) fn run(setup: &Setup<'_>, source: &PromptSource) -> Ran {
    let (scan, longest) = scan(setup, source)?;
    let mut engine = setup
        .model
        .engine(setup.args.run.kv_memory, EngineConfig::standard())?;
    check_fit(setup, &mut engine, longest)?;
    let writer = setup.writer(&scan, settings(setup), setup.rewards.columns().to_vec())?;
    let writer = draw(setup, source, &mut engine, writer, scan.num_prompts)?;
    Ok((writer.finish()?, scan.dropped))
}

/// The prompts as jobs, in order; all of them fit.
pub(super) fn jobs(setup: &Setup<'_>, source: &PromptSource) -> Result<Vec<Job>> {
    scan(setup, source)?;
    let encoded = source
        .read()?
        .filter_map(|record| record.and_then(|record| encode(setup, record)).transpose());
    encoded.map(|encoded| Ok(job(setup, encoded?))).collect()
}

/// The settings that samples depend on.
fn settings(setup: &Setup<'_>) -> BTreeMap<String, Value> {
    let args = setup.args;
    let settings = [
        ("decode", json!(args.decode.to_string())),
        ("per_prompt", json!(args.per_prompt)),
        ("max_new_tokens", json!(setup.max_new_tokens())),
        ("stop", json!(args.draw.stop)),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The first pass: checks every prompt, and gives the longest that fits.
fn scan(setup: &Setup<'_>, source: &PromptSource) -> Result<(Scan, Encoded)> {
    let mut scan = Scan::default();
    let mut longest: Option<Encoded> = None;
    let mut prompts = source.read()?;
    while let Some(record) = prompts.next().transpose()? {
        setup
            .rewards
            .check_record(&record.record, || label(setup, &record))?;
        let Some(encoded) = encode(setup, record)? else {
            scan.dropped.too_long += 1;
            continue;
        };
        let record = &encoded.record;
        let json = serde_json::to_vec(&(&record.prompt, &record.messages, &record.record))
            .context("cannot serialise a prompt")?;
        scan.hasher.update(json);
        scan.num_prompts += 1;
        if longest
            .as_ref()
            .is_none_or(|longest| longest.token_ids.len() < encoded.token_ids.len())
        {
            longest = Some(encoded);
        }
    }
    scan.dropped.duplicates = prompts.num_duplicates;
    match longest {
        Some(longest) => Ok((scan, longest)),
        None if scan.dropped.too_long > 0 => bail!(
            "all {} prompts are longer than the context of {} leaves room for; lower --max-new-tokens",
            scan.dropped.too_long,
            setup.context_len()
        ),
        None => source.empty(&setup.args.prompts),
    }
}

/// Tokens of a prompt; `None` if it is too long and such ones are to be left out.
fn encode(setup: &Setup<'_>, record: PromptRecord) -> Result<Option<Encoded>> {
    let token_ids = setup.encode(&record.turns(), || label(setup, &record))?;
    let (new, context) = (setup.max_new_tokens(), setup.context_len());
    if token_ids.len().saturating_add(new) <= context {
        return Ok(Some(Encoded { record, token_ids }));
    }
    if setup.args.draw.drop_long {
        return Ok(None);
    }
    bail!(
        "{}: {} tokens and {new} new ones do not fit the context of {context}; lower --max-new-tokens, or leave such \
         prompts out with --drop-long",
        label(setup, &record),
        token_ids.len()
    )
}

fn label(setup: &Setup<'_>, record: &PromptRecord) -> String {
    format!("{} row {}", setup.args.prompts, record.row)
}

/// Lets the engine judge the longest prompt without running it.
fn check_fit(setup: &Setup<'_>, engine: &mut Engine, longest: Encoded) -> Result<()> {
    let job = job(setup, longest);
    let decoder = job.decode.build(DecoderInputs {
        prompt_key: PromptKey::of_tokens(&job.token_ids),
        seed: job.seed,
        stop: job.stop,
        token_bytes: setup.model.loaded.token_bytes(),
        steering: job.steering,
        trace: job.trace,
    })?;
    let prompt = Prompt::tokens(job.token_ids);
    let id = engine
        .submit(Request { prompt, decoder })
        .with_context(|| job.label)?;
    engine.cancel(id)?;
    Ok(())
}

fn draw(
    setup: &Setup<'_>,
    source: &PromptSource,
    engine: &mut Engine,
    writer: RolloutWriter,
    num_prompts: u64,
) -> Result<RolloutWriter> {
    if writer.is_complete() {
        return Ok(writer);
    }
    let mut prompts = source
        .read()?
        .filter_map(|record| record.and_then(|record| encode(setup, record)).transpose())
        .zip(0_u64..);
    let mut sink = Sink::new(setup, writer, num_prompts);
    loop {
        let missing = prompts.by_ref().filter(|(_, idx)| !sink.writer.has_prompt(*idx));
        let window: Vec<Planned> = missing
            .take(WINDOW_PROMPTS)
            .map(|(encoded, prompt_idx)| {
                let encoded = encoded?;
                let messages = encoded.record.messages.clone();
                Ok(Planned {
                    prompt_idx,
                    messages,
                    job: job(setup, encoded),
                })
            })
            .collect::<Result<_>>()?;
        if window.is_empty() {
            break;
        }
        let drawn = draw_window(setup, engine, &window, &mut sink);
        // What has been drawn is kept, also if the window was not finished.
        drawn
            .and_then(|()| sink.flush())
            .with_context(|| setup.stopped(sink.writer.num_prompts(), num_prompts))?;
    }
    sink.progress.finish();
    Ok(sink.writer)
}

/// A prompt about to be answered.
struct Planned {
    prompt_idx: u64,
    messages: Vec<Message>,
    job: Job,
}

fn draw_window(
    setup: &Setup<'_>,
    engine: &mut Engine,
    window: &[Planned],
    sink: &mut Sink<'_>,
) -> Result<()> {
    let jobs: Vec<Job> = window.iter().map(|planned| planned.job.clone()).collect();
    let started = std::time::Instant::now();
    let rows_before = engine.stats().rows;
    run_jobs::<anyhow::Error>(
        engine,
        &setup.model.loaded.token_bytes(),
        &jobs,
        None,
        RunLimits::standard(),
        &mut |event| {
            match event {
                RunEvent::Finished(result) => {
                    sink.take(rollouts(&window[result.job_idx], &result.outcome))?;
                }
                RunEvent::Stepped { rows } => {
                    let seconds = started.elapsed().as_secs_f64();
                    let speed = rows.saturating_sub(rows_before) as f64 / seconds;
                    sink.progress.say(format!("{speed:.0} tokens/s"));
                }
                RunEvent::Committed { .. } => {}
            }
            Ok(())
        },
    )
}

/// All candidates of a prompt, whatever the choice among them.
fn rollouts(planned: &Planned, outcome: &Outcome) -> Vec<Rollout> {
    let of = |candidate: &Candidate| Rollout {
        messages: planned.messages.clone(),
        ..rollout(&planned.job, planned.prompt_idx, candidate)
    };
    outcome.candidates.iter().map(of).collect()
}

/// A candidate as a rollout without rewards; `prompt_idx` is the prompt's place.
pub(crate) fn rollout(job: &Job, prompt_idx: u64, candidate: &Candidate) -> Rollout {
    let ids = |ids: &[TokenId]| ids.iter().map(|id| id.0).collect();
    Rollout {
        prompt_idx,
        sample_idx: candidate.candidate_idx,
        prompt: job.prompt.clone(),
        messages: Vec::new(),
        response: candidate.text.clone(),
        prompt_token_ids: ids(&job.token_ids),
        response_token_ids: ids(&candidate.token_ids),
        finish: finish_name(candidate.finish).to_owned(),
        log_prob: Some(candidate.log_prob),
        reference_log_prob: Some(candidate.reference_log_prob),
        rewards: BTreeMap::new(),
        record: job.record.clone(),
    }
}

/// How [`Rollout::finish`] calls an end.
fn finish_name(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::StopToken => "stop_token",
        FinishReason::StopString => "stop_string",
        FinishReason::Length => "length",
    }
}

fn job(setup: &Setup<'_>, encoded: Encoded) -> Job {
    let Encoded { record, token_ids } = encoded;
    Job {
        label: label(setup, &record),
        prompt: record.prompt,
        record: record.record,
        token_ids,
        decode: drawing(setup.args.per_prompt, setup.args.decode.sampling()),
        seed: Seed(setup.args.draw.seed),
        stop: StopRules {
            stop_tokens: setup.model.loaded.tokenizer().stop_tokens().to_vec(),
            stop_strings: setup.args.draw.stop.clone(),
            max_new_tokens: setup.max_new_tokens(),
        },
        steering: std::sync::Arc::default(),
        trace: false,
    }
}

/// The method that draws so many responses. All are kept; it is the vote only because that one, unlike best-of-N, asks
/// for no reward. Response `i` is the same in both.
pub(crate) fn drawing(num_candidates: usize, sampling: Sampling) -> DecodeSpec {
    DecodeSpec::Majority {
        num_candidates,
        sampling,
        answer: AnswerExtractor::Text,
    }
}

/// Takes responses as they come: scores them some at a time and writes them.
struct Sink<'a> {
    setup: &'a Setup<'a>,
    writer: RolloutWriter,
    progress: ItemProgress,
    /// Rows of whole prompts that wait to be scored.
    waiting: Vec<Rollout>,
}

impl<'a> Sink<'a> {
    fn new(setup: &'a Setup<'a>, writer: RolloutWriter, num_prompts: u64) -> Self {
        let progress = ItemProgress::new(WHAT, num_prompts, writer.num_prompts());
        Self {
            setup,
            writer,
            progress,
            waiting: Vec::new(),
        }
    }

    fn take(&mut self, rows: Vec<Rollout>) -> Result<()> {
        self.waiting.extend(rows);
        if self.waiting.len() >= SCORED_ROWS || self.setup.rewards.columns().is_empty() {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.waiting);
        self.setup.rewards.score(&mut rows)?;
        for prompt in rows.chunk_by(|a, b| a.prompt_idx == b.prompt_idx) {
            self.writer.push(prompt.to_vec())?;
            self.progress.advance(WHAT);
        }
        Ok(())
    }
}

/// What the progress is of.
const WHAT: &str = "sampling";
