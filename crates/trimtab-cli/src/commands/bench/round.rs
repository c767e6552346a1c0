//! Timed requests: prompts of random tokens and candidates that never stop early. Knows no report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use trimtab_base::{PromptKey, SampleStream, Seed, TokenId};
use trimtab_decode::{AnswerExtractor, DecodeSpec, DecoderInputs, Sampling, Steering, StopRules};
use trimtab_engine::{Engine, EngineStats, Event, Prompt, Request};
use trimtab_model::stage_times::StageTimes;

use crate::output;
use crate::resolve::ReadyModel;

/// Shape of a timed request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Candidates.
    pub(super) batch: usize,
    /// New tokens of each.
    pub(super) new: usize,
}

/// Tokens of a prompt and new tokens: as asked for, or `usual`, or as many as the context has room for, with a note.
///
/// # Errors
/// What is asked for does not fit, or leaves no room for a prompt of 1 token and `least_new` new ones.
pub(super) fn fit(
    prompt: Option<usize>,
    new: Option<usize>,
    usual: (usize, usize),
    least_new: usize,
    context_len: usize,
) -> Result<(usize, usize)> {
    let asked = (prompt.unwrap_or(1), new.unwrap_or(least_new));
    let Some(fitted) = fit_into(prompt, new, usual, least_new, context_len) else {
        bail!(
            "a prompt of {} and {} new tokens exceed the model's context of {context_len}",
            asked.0,
            asked.1
        );
    };
    let wanted = (prompt.unwrap_or(usual.0), new.unwrap_or(usual.1));
    if fitted != wanted {
        output::note(&format!(
            "the model's context is {context_len}: a prompt of {} and {} new tokens instead of {} and {}",
            fitted.0, fitted.1, wanted.0, wanted.1
        ));
    }
    Ok(fitted)
}

/// The numbers of [`fit`]; `None` if they do not fit.
fn fit_into(
    prompt: Option<usize>,
    new: Option<usize>,
    usual: (usize, usize),
    least_new: usize,
    context_len: usize,
) -> Option<(usize, usize)> {
    // The last new token is drawn and never run.
    let total = context_len + 1;
    let room = total.checked_sub(prompt.unwrap_or(1) + new.unwrap_or(least_new))?;
    Some(match (prompt, new) {
        (Some(prompt), Some(new)) => (prompt, new),
        (Some(prompt), None) => (prompt, usual.1.min(least_new + room)),
        (None, Some(new)) => (usual.0.min(1 + room), new),
        (None, None) => {
            // A quarter for the answers keeps the usual proportions of a long prompt and short answers.
            let new = usual.1.min((total / 4).max(least_new));
            (usual.0.min(total - new), new)
        }
    })
}

/// What some requests took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// From submission until every candidate has its first token.
    pub(super) prefill: Duration,
    /// From then to the end.
    pub(super) decode: Duration,
    /// Tokens drawn in `decode`.
    pub(super) decoded_tokens: u64,
    /// Where the model's time in `decode` went.
    pub(super) stages: StageTimes,
    /// Of `decode`, what prefix scorers took.
    pub(super) scorers: Duration,
    /// From submission until the first token of an answer was certain; with methods that decide at the end, to the end.
    pub(super) first_committed: Duration,
}

impl Timing {
    /// Tokens drawn a second once prompts are run.
    pub(super) fn tokens_per_s(&self) -> f64 {
        self.decoded_tokens as f64 / self.decode.as_secs_f64()
    }
}

/// Runs a best-of-N request of this shape to its end. `round` varies the prompt.
pub(super) fn run(model: &ReadyModel, engine: &mut Engine, shape: Shape, round: u64) -> Result<Timing> {
    let request = request(model, &best_of(shape.batch), shape, round, Steering::default())?;
    time(engine, vec![request], shape)
}

/// Runs requests to their ends: either one that draws as many candidates as the batch has, or as many as that, each
/// with a prompt of its own.
pub(super) fn time(engine: &mut Engine, requests: Vec<Request>, shape: Shape) -> Result<Timing> {
    let started = Instant::now();
    let num_requests = requests.len();
    for request in requests {
        engine.submit(request)?;
    }
    let prompt_rows = (num_requests * shape.prompt) as u64;
    // The step that ends the last prompt also draws everybody's first token.
    let mut prefilled: Option<(Duration, StageTimes, EngineStats)> = None;
    let mut num_tokens = 0;
    let mut first_committed = None;
    while !engine.is_idle() {
        let events = engine.step()?;
        let is_committed = |event: &Event| matches!(event, Event::Committed { .. });
        if first_committed.is_none() && events.iter().any(is_committed) {
            first_committed = Some(started.elapsed());
        }
        let stats = engine.stats();
        // Rows after a prompt's last, which are decoded while others' prompts are run, are one each.
        if prefilled.is_none() && stats.rows + num_requests as u64 >= prompt_rows + stats.output_rows {
            prefilled = Some((started.elapsed(), engine.backend().stage_times(), stats));
        }
        num_tokens += tokens_of(events)?;
    }
    let expected = (shape.batch * shape.new) as u64;
    if num_tokens != expected {
        bail!("expected {expected} tokens, the engine drew {num_tokens}");
    }
    let total = started.elapsed();
    let (prefill, stages_before, stats_before) =
        prefilled.context("the engine ended before the prompts were run")?;
    // One request has drawn a token for each candidate from its prompt's row, others one from each row.
    let drawn_before = stats_before.output_rows + (shape.batch - num_requests) as u64;
    Ok(Timing {
        prefill,
        decode: total.saturating_sub(prefill),
        decoded_tokens: expected.saturating_sub(drawn_before),
        stages: engine.backend().stage_times().since(&stages_before),
        scorers: engine
            .stats()
            .scorer_time
            .saturating_sub(stats_before.scorer_time),
        first_committed: first_committed.unwrap_or(total),
    })
}

/// Tokens drawn by requests that have ended. Refuses to time anything but whole requests.
fn tokens_of(events: Vec<Event>) -> Result<u64> {
    let mut num_tokens = 0;
    for event in events {
        match event {
            Event::Failed { error, .. } => return Err(error).context("a timed request failed"),
            Event::RewardsWanted { .. } | Event::ValuesWanted { .. } => {
                bail!("a timed request decides without asking")
            }
            Event::Committed { .. } => {}
            Event::Finished { outcome, .. } => num_tokens += outcome.tokens_generated,
        }
    }
    Ok(num_tokens)
}

/// Draws as best-of-N does, and chooses without a reward, whose cost is not the engine's.
pub(super) fn best_of(num_candidates: usize) -> DecodeSpec {
    DecodeSpec::Majority {
        num_candidates,
        sampling: Sampling::REFERENCE,
        answer: AnswerExtractor::Text,
    }
}

/// A request that never stops early. `seed` varies the prompt and the draws.
pub(super) fn request(
    model: &ReadyModel,
    spec: &DecodeSpec,
    shape: Shape,
    seed: u64,
    steering: Steering,
) -> Result<Request> {
    let vocab_len = model.loaded.config().vocab_len as f64;
    let coins = SampleStream::new(Seed(seed), PromptKey(0), 0, trimtab_base::rng::Purpose::Token);
    let prompt: Vec<TokenId> = (0..shape.prompt as u64)
        .map(|step| TokenId((coins.uniform(step) * vocab_len) as u32))
        .collect();
    let decoder = spec.build(DecoderInputs {
        prompt_key: PromptKey::of_tokens(&prompt),
        seed: Seed(seed),
        stop: StopRules {
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            max_new_tokens: shape.new,
        },
        token_bytes: model.loaded.token_bytes(),
        steering: Arc::new(steering),
        trace: false,
    })?;
    Ok(Request {
        prompt: Prompt::tokens(prompt),
        decoder,
    })
}

#[cfg(test)]
mod tests {
    use super::fit_into;

    #[test]
    fn sizes_are_as_asked_or_as_the_context_allows() {
        let check = |prompt, new, context_len, expect: Option<(usize, usize)>| {
            let fitted = fit_into(prompt, new, (2048, 128), 2, context_len);
            assert_eq!(fitted, expect, "{prompt:?} {new:?} in {context_len}");
        };
        check(None, None, 8192, Some((2048, 128)));
        check(None, None, 2175, Some((2048, 128)));
        check(None, None, 2174, Some((2047, 128)));
        check(None, None, 256, Some((193, 64)));
        check(None, None, 2, Some((1, 2)));
        check(None, None, 1, None);
        check(Some(100), None, 128, Some((100, 29)));
        check(Some(127), None, 128, Some((127, 2)));
        check(Some(128), None, 128, None);
        check(None, Some(100), 128, Some((29, 100)));
        check(Some(65), Some(64), 128, Some((65, 64)));
        check(Some(66), Some(64), 128, None);
    }
}
