//! What others pay to steer tokens: every candidate token's prefix is read from its beginning. Knows no report but its own.
//!
//! Programs that steer by a reward model on text (as ARGS and its followers are published) score the most probable tokens
//! of each step by reading prompt, response so far and candidate anew. Here this is done with our own kernels and a whole
//! batch of candidates at once, so that what is compared is the method and not somebody's tensor library.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use trimtab_decode::{DecodeSpec, Sampling, Steering};
use trimtab_engine::{Engine, Request};

use super::median;
use super::round::{self, Shape};
use crate::output;
use crate::resolve::ReadyModel;

/// Candidates of a step, as in ARGS.
const NUM_CANDIDATES: usize = 10;

/// Speed of steering by re-encoding, for answers of the same length as the other rows.
#[derive(Debug, Serialize)]
pub(super) struct ReencodingReport {
    /// Candidate tokens of a step; the prefix scorer's are the whole vocabulary.
    candidates: usize,
    /// Tokens read for each of them: the prompt and half of the answer.
    prefix_tokens: usize,
    /// Of one request or many together: nothing is shared between them.
    tokens_per_s: f64,
}

/// Timings of reading the candidates of one step, one a round.
#[derive(Debug, Default)]
pub(super) struct ReencodingMeasured {
    steps: Vec<Duration>,
    prefix_tokens: usize,
}

impl ReencodingMeasured {
    /// Times one step in the middle of an answer of `shape`.
    pub(super) fn add_round(
        &mut self,
        model: &ReadyModel,
        mut engine: Engine,
        (shape, round): (Shape, u64),
    ) -> Result<()> {
        let step = Shape {
            prompt: shape.prompt + shape.new / 2,
            batch: NUM_CANDIDATES,
            new: 1,
        };
        let sample = DecodeSpec::Sample {
            sampling: Sampling::REFERENCE,
        };
        let requests = (0..NUM_CANDIDATES as u64).map(|idx| {
            let seed = round * 1000 + idx;
            round::request(model, &sample, step, seed, Steering::default())
        });
        let requests: Vec<Request> = requests.collect::<Result<_>>()?;
        let timing = round::time(&mut engine, requests, step)?;
        self.steps.push(timing.prefill + timing.decode);
        self.prefix_tokens = step.prompt;
        Ok(())
    }

    pub(super) fn report(&self) -> ReencodingReport {
        let speeds = self.steps.iter().map(|step| 1.0 / step.as_secs_f64());
        ReencodingReport {
            candidates: NUM_CANDIDATES,
            prefix_tokens: self.prefix_tokens,
            tokens_per_s: median(speeds.collect()),
        }
    }
}

/// Prints the line, beside the speed of cd-token in the same rounds.
pub(super) fn show(report: &ReencodingReport, cd_token_tokens_per_s: Option<f64>) -> Result<()> {
    let beside = cd_token_tokens_per_s.map_or(String::new(), |speed| {
        format!("; cd-token makes {:.0} times that", speed / report.tokens_per_s)
    });
    output::line(&format!(
        "re-encoding {} candidates of {} tokens at each token, as others steer: {:.1} tokens/s{beside}",
        report.candidates, report.prefix_tokens, report.tokens_per_s,
    ))
}
