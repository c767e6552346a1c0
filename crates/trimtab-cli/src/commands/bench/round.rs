//! One timed request: a prompt of random tokens and N candidates that never stop early. Knows no report.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use trimtab_base::{PromptKey, SampleStream, Seed, TokenId};
use trimtab_decode::{AnswerExtractor, DecodeSpec, DecoderInputs, Sampling, StopRules};
use trimtab_engine::{Engine, Event, Prompt, Request};
use trimtab_model::stage_times::StageTimes;

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

/// What a request took.
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
}

/// Runs a request of this shape to its end. `round` varies the prompt.
pub(super) fn run(model: &ReadyModel, engine: &mut Engine, shape: Shape, round: u64) -> Result<Timing> {
    let context = model.loaded.config().context_len;
    if shape.prompt == 0 || shape.batch == 0 || shape.new == 0 {
        bail!(
            "prompt, batch and new tokens must be at least 1, got {}, {} and {}",
            shape.prompt,
            shape.batch,
            shape.new
        );
    }
    if shape.prompt + shape.new > context {
        bail!(
            "{} prompt and {} new tokens exceed the model's context of {context}",
            shape.prompt,
            shape.new
        );
    }
    let started = Instant::now();
    engine.submit(request(model, shape, round)?)?;
    // The step that ends the prompt also draws everybody's first token.
    let mut prefilled: Option<(Duration, StageTimes)> = None;
    while !engine.is_idle() {
        let events = engine.step()?;
        if prefilled.is_none() && engine.stats().rows >= shape.prompt as u64 {
            prefilled = Some((started.elapsed(), engine.backend().stage_times()));
        }
        check(events, shape)?;
    }
    let total = started.elapsed();
    let (prefill, stages_before) = prefilled.context("the engine ended before the prompt was run")?;
    Ok(Timing {
        prefill,
        decode: total.saturating_sub(prefill),
        decoded_tokens: (shape.batch * (shape.new - 1)) as u64,
        stages: engine.backend().stage_times().since(&stages_before),
    })
}

/// Refuses to time anything but the whole request.
fn check(events: Vec<Event>, shape: Shape) -> Result<()> {
    for event in events {
        match event {
            Event::Failed { error, .. } => return Err(error).context("a timed request failed"),
            Event::RewardsWanted { .. } => bail!("a timed request chooses without rewards"),
            Event::Finished { outcome, .. } => {
                let expected = (shape.batch * shape.new) as u64;
                if outcome.tokens_generated != expected {
                    bail!(
                        "expected {expected} tokens, the engine drew {}",
                        outcome.tokens_generated
                    );
                }
            }
        }
    }
    Ok(())
}

fn request(model: &ReadyModel, shape: Shape, round: u64) -> Result<Request> {
    let vocab_len = model.loaded.config().vocab_len as f64;
    let coins = SampleStream::new(Seed(round), PromptKey(0), 0, trimtab_base::rng::Purpose::Token);
    let prompt: Vec<TokenId> = (0..shape.prompt as u64)
        .map(|step| TokenId((coins.uniform(step) * vocab_len) as u32))
        .collect();
    // Draws as best-of-N does, and chooses without a reward, whose cost is not the engine's.
    let spec = DecodeSpec::Majority {
        num_candidates: shape.batch,
        sampling: Sampling::REFERENCE,
        answer: AnswerExtractor::Text,
    };
    let decoder = spec.build(DecoderInputs {
        prompt_key: PromptKey::of_tokens(&prompt),
        seed: Seed(round),
        stop: StopRules {
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            max_new_tokens: shape.new,
        },
        token_bytes: model.loaded.token_bytes(),
    })?;
    Ok(Request {
        prompt: Prompt::tokens(prompt),
        decoder,
    })
}
