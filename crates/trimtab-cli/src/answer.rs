//! One prompt answered: model, scorers and reward opened, one job run, its answer shown as it becomes certain.

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};
use trimtab_base::{RewardModel, Seed, TokenBytes, TokenId};
use trimtab_decode::{DecodeSpec, StopRules};
use trimtab_engine::{EngineConfig, EngineError};
use trimtab_reward::ExternalLimits;
use trimtab_runtime::{
    Job, JobResult, Judges, PromptStyle, RunEvent, RunLimits, RuntimeError, run_judged_jobs,
};

use crate::args::GenerateArgs;
use crate::output;
use crate::progress::AnswerProgress;
use crate::resolve::ReadyModel;
use crate::steering::{Models, OpenScorers, before_models, build_reward};

/// Most tokens of an answer where nothing else is asked for and the context is long enough.
const DEFAULT_NEW_TOKENS: usize = 256;

/// An answer and what made it.
pub(crate) struct Answered {
    pub(crate) model: ReadyModel,
    pub(crate) result: JobResult,
    pub(crate) reward_unit: Option<String>,
    /// In the order of every list of values.
    pub(crate) scorers: Vec<ScorerReport>,
    /// Text that is on the terminal already.
    pub(crate) shown: String,
}

/// A scorer in reports.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ScorerReport {
    pub(crate) name: String,
    pub(crate) weight: f64,
    pub(crate) unit: String,
}

/// How an answer is made besides its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Whether decisions are kept.
    pub(crate) trace: bool,
    /// Whether the answer is written to the terminal as it becomes certain.
    pub(crate) streams: bool,
}

/// Answers the prompt of `args`.
///
/// # Errors
/// What cannot be used, before a model is looked for where that can be told.
pub(crate) fn answer(args: &GenerateArgs, shown: Shown) -> Result<Answered> {
    let prompt = read_prompt(&args.prompt)?;
    check(args)?;
    let model = ReadyModel::open(
        &args.model,
        args.run.source.into(),
        args.run.precision.plan,
        args.run.threads,
    )?;
    let style = PromptStyle {
        raw: args.raw,
        system: args.system.clone(),
    };
    let models = Models {
        generator: &model,
        policy: args.run.source.into(),
        plan: args.run.precision.plan,
        threads: args.run.threads,
        style: &style,
    };
    let build = |spec| build_reward(spec, &ExternalLimits::default(), &models);
    let reward = args.reward.as_ref().map(build).transpose()?;
    let mut scorers = OpenScorers::open(places(args)?, &models)?;
    let (result, shown) = run(
        args,
        shown,
        (&model, &style, prompt),
        reward.as_deref(),
        &mut scorers,
    )?;
    let scorers = args.steering.scorer.iter().map(|term| {
        let (name, unit) = scorers.name_and_unit(&term.place);
        ScorerReport {
            name: name.to_owned(),
            weight: term.weight,
            unit: unit.to_owned(),
        }
    });
    Ok(Answered {
        scorers: scorers.collect(),
        reward_unit: reward.map(|reward| reward.unit().to_owned()),
        model,
        result,
        shown,
    })
}

/// What can be told without a model.
fn check(args: &GenerateArgs) -> Result<()> {
    let decode = &args.decode;
    if decode.needs_rewards() && args.reward.is_none() {
        bail!("{decode} chooses by reward and none is given; name one, e.g. --reward length");
    }
    match (decode.needs_scorers(), args.steering.scorer.is_empty()) {
        (true, true) => bail!(
            "{decode} is steered by prefix scorers and none is given; train one with `trimtab train scorer` and name it, \
             e.g. --scorer runs/length"
        ),
        (false, false) => bail!(
            "{decode} takes no scorers; steer with --decode cd-block:k=6,m=16 or --decode cd-token:weight=4, or leave \
             out --scorer"
        ),
        _ => {}
    }
    let Some(spec) = &args.reward else { return Ok(()) };
    before_models(spec, &ExternalLimits::default())?
        .check_record(&record(args))
        .map_err(|cause| RuntimeError::Reward {
            label: String::new(),
            cause: Box::new(cause),
        })
        .context("--answer")
}

/// The places of the scorers, each once.
fn places(args: &GenerateArgs) -> Result<Vec<String>> {
    let mut places: Vec<String> = Vec::new();
    for term in &args.steering.scorer {
        if places.contains(&term.place) {
            bail!("--scorer {} is given twice; add its weights up", term.place);
        }
        places.push(term.place.clone());
    }
    Ok(places)
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

fn run(
    args: &GenerateArgs,
    shown: Shown,
    (model, style, prompt): (&ReadyModel, &PromptStyle, String),
    reward: Option<&dyn RewardModel>,
    scorers: &mut OpenScorers,
) -> Result<(JobResult, String)> {
    let job = job(args, shown.trace, (model, style, prompt), scorers)?;
    let progress = AnswerProgress::new(
        job.token_ids.len(),
        num_drawn_at_once(&args.decode),
        job.stop.max_new_tokens,
    );
    let mut engine = model.engine(args.run.kv_memory, EngineConfig::standard())?;
    scorers.install(&mut engine)?;
    let token_bytes = model.loaded.token_bytes();
    let mut stream = Stream::default();
    let mut result = None;
    let judges = Judges {
        reward,
        asked: scorers.asked(),
    };
    let ran = run_judged_jobs::<anyhow::Error>(
        &mut engine,
        &token_bytes,
        &[job],
        judges,
        RunLimits::standard(),
        &mut |event| {
            match event {
                RunEvent::Finished(finished) => result = Some(finished),
                RunEvent::Stepped { rows } if stream.shown.is_empty() => progress.stepped(rows),
                RunEvent::Committed { token_ids, .. } if shown.streams => {
                    progress.finish();
                    stream.show(&token_ids, token_bytes.as_ref())?;
                }
                RunEvent::Stepped { .. } | RunEvent::Committed { .. } => {}
            }
            Ok(())
        },
    );
    progress.finish();
    ran.map_err(|error| with_memory(args, error))?;
    let result = result.context("the engine ended without an answer")?;
    Ok((result, stream.shown))
}

/// Tokens that are drawn for each of the answer's.
fn num_drawn_at_once(decode: &DecodeSpec) -> usize {
    match decode {
        DecodeSpec::CdBlock(config) => config.beams * config.num_candidates,
        decode => decode.num_candidates(),
    }
}

/// Says which arguments make up a request that does not fit the memory for keys and values.
fn with_memory(args: &GenerateArgs, error: anyhow::Error) -> anyhow::Error {
    let is_over = |cause: &RuntimeError| matches!(cause, RuntimeError::Engine { cause, .. } if matches!(**cause, EngineError::OverBudget { .. }));
    if !error.downcast_ref::<RuntimeError>().is_some_and(is_over) {
        return error;
    }
    let memory = args.run.kv_memory;
    error.context(format!("{} does not fit --kv-memory {memory} (MiB)", args.decode))
}

fn job(
    args: &GenerateArgs,
    trace: bool,
    (model, style, prompt): (&ReadyModel, &PromptStyle, String),
    scorers: &OpenScorers,
) -> Result<Job> {
    let tokenizer = model.loaded.tokenizer();
    let token_ids = style.encode(tokenizer, &prompt)?;
    let max_new_tokens = args
        .max_new_tokens
        .unwrap_or_else(|| default_new_tokens(token_ids.len(), model.loaded.config().context_len));
    let needs_actions = args.decode.method() == "cd-token";
    let steering = scorers.steering(
        &args.steering.scorer,
        args.steering.keep.as_deref(),
        needs_actions,
    )?;
    Ok(Job {
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
        steering: Arc::new(steering),
        trace,
    })
}

/// The answer as it becomes certain, in whole characters.
#[derive(Default)]
struct Stream {
    /// Bytes of a character that is not whole yet.
    held: Vec<u8>,
    shown: String,
}

impl Stream {
    fn show(&mut self, token_ids: &[TokenId], token_bytes: &dyn TokenBytes) -> Result<()> {
        let piece = self.take(token_ids, token_bytes);
        output::piece(&piece)
    }

    fn take(&mut self, token_ids: &[TokenId], token_bytes: &dyn TokenBytes) -> String {
        for &token in token_ids {
            self.held.extend_from_slice(token_bytes.bytes_of(token));
        }
        let whole = match std::str::from_utf8(&self.held) {
            Ok(text) => text.len(),
            // Bytes that no further byte makes a character are shown when the answer is whole.
            Err(error) => error.valid_up_to(),
        };
        let piece: Vec<u8> = self.held.drain(..whole).collect();
        let piece = String::from_utf8_lossy(&piece).into_owned();
        self.shown.push_str(&piece);
        piece
    }
}

/// New tokens if none are asked for, as far as the context allows, in which the last takes no place. A prompt that
/// leaves no room is refused by the engine, which says how long it is.
fn default_new_tokens(prompt_len: usize, context_len: usize) -> usize {
    let room = (context_len + 1).saturating_sub(prompt_len);
    DEFAULT_NEW_TOKENS.min(room).max(1)
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

    /// Token `n` is byte `n`.
    struct Bytes([[u8; 1]; 256]);

    impl TokenBytes for Bytes {
        fn bytes_of(&self, token: TokenId) -> &[u8] {
            &self.0[token.index()]
        }
    }

    #[test]
    fn characters_are_shown_when_they_are_whole() {
        let bytes = Bytes(std::array::from_fn(|byte| [byte as u8]));
        let mut stream = Stream::default();
        let mut take = |text: &[u8]| {
            let ids: Vec<TokenId> = text.iter().map(|&byte| TokenId(u32::from(byte))).collect();
            stream.take(&ids, &bytes)
        };
        assert_eq!(take(b"a \xc3"), "a ");
        assert_eq!(take(b"\xa9t"), "\u{e9}t");
        assert_eq!(take(b"\xe2\x82"), "");
        assert_eq!(take(b"\xac"), "\u{20ac}");
        assert_eq!(stream.shown, "a \u{e9}t\u{20ac}");
    }
}
