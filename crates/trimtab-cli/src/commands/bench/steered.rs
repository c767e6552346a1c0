//! What steering costs in speed: cd-token beside plain sampling, cd-block beside best-of-N. Knows no report but its own.

use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use trimtab_decode::{BlockChoice, BlockEnd, CdBlockConfig, CdTokenConfig, DecodeSpec, Sampling, Steering};
use trimtab_engine::{Engine, Request};
use trimtab_kernels::gemm::Precision;
use trimtab_scorer::{HeadSizes, ScorerSet, ScorerWeights};

use super::median;
use super::round::{self, Shape, Timing};
use crate::output;
use crate::resolve::ReadyModel;

/// Sizes of a scorer as `train scorer` makes them where nothing else is asked for.
const TRUNK_LEN: usize = 512;
const FEATURES_LEN: usize = 64;

/// Speed with a scorer at one batch size, in tokens drawn per second, discarded ones included.
#[derive(Debug, Serialize)]
pub(super) struct SteeredReport {
    /// Requests of cd-token, and candidates of cd-block.
    batch: usize,
    /// One request a row of the batch, each sampling for itself.
    sample_tokens_per_s: f64,
    cd_token_tokens_per_s: f64,
    /// Median of the rounds' ratios, as the next.
    cd_token_relative_to_sample: f64,
    cd_token_scorer_share: f64,
    best_of_n_tokens_per_s: f64,
    cd_block_tokens_per_s: f64,
    cd_block_relative_to_best_of_n: f64,
    cd_block_scorer_share: f64,
    /// From a request until the first block of its answer is certain; best-of-N's whole answer has to be.
    cd_block_first_block_ms: f64,
    best_of_n_answer_ms: f64,
    /// Tokens of a block.
    block_tokens: usize,
}

impl SteeredReport {
    pub(super) fn cd_token_tokens_per_s(&self) -> f64 {
        self.cd_token_tokens_per_s
    }
}

/// Random weights of the sizes that `train scorer` makes for `model`.
pub(super) fn random_weights(model: &ReadyModel) -> ScorerWeights {
    let config = model.loaded.config();
    let sizes = HeadSizes {
        hidden_len: config.hidden_len,
        vocab_len: config.vocab_len,
        trunk_len: TRUNK_LEN,
        features_len: FEATURES_LEN,
    };
    ScorerWeights::random(0, sizes)
}

/// A scorer of random weights for `model`, its token features in the precision of the output head, as `generate` packs
/// them: speed does not depend on what it says.
pub(super) fn random_scorer(model: &ReadyModel, precision: Precision) -> Result<Arc<ScorerSet>> {
    let weights = vec![random_weights(model)];
    Ok(Arc::new(ScorerSet::new(model.loaded.pool(), precision, weights)?))
}

/// Timings of one batch size, one of each kind a round.
#[derive(Debug, Default)]
pub(super) struct SteeredMeasured {
    sample: Vec<Timing>,
    cd_token: Vec<Timing>,
    best_of_n: Vec<Timing>,
    cd_block: Vec<Timing>,
}

impl SteeredMeasured {
    /// Times each kind once, one after the other, so that a noisy moment falls on what is compared alike.
    /// `engine` makes an idle engine.
    pub(super) fn add_round(
        &mut self,
        model: &ReadyModel,
        scorers: &Arc<ScorerSet>,
        mut engine: impl FnMut() -> Result<Engine>,
        (shape, block_len, round): (Shape, usize, u64),
    ) -> Result<()> {
        let mut timed = |specs: &[DecodeSpec]| {
            let mut engine = engine()?;
            engine.set_scorers(Arc::clone(scorers))?;
            let requests = specs.iter().zip(0..).map(|(spec, idx)| {
                // Prompts of their own, as requests of several users have.
                let seed = round * 1000 + idx;
                round::request(model, spec, shape, seed, Steering::single("random"))
            });
            let requests: Vec<Request> = requests.collect::<Result<_>>()?;
            round::time(&mut engine, requests, shape)
        };
        let sampling = Sampling::REFERENCE;
        self.sample
            .push(timed(&vec![DecodeSpec::Sample { sampling }; shape.batch])?);
        let guided = DecodeSpec::CdToken(CdTokenConfig {
            weight: 1.0,
            sampling,
        });
        self.cd_token.push(timed(&vec![guided; shape.batch])?);
        self.best_of_n.push(timed(&[round::best_of(shape.batch)])?);
        self.cd_block.push(timed(&[DecodeSpec::CdBlock(blocks_of(
            shape.batch,
            block_len,
            sampling,
        ))])?);
        Ok(())
    }

    pub(super) fn report(&self, batch: usize, block_tokens: usize) -> SteeredReport {
        let speed = |timings: &[Timing]| median(timings.iter().map(Timing::tokens_per_s).collect());
        let relative = |of: &[Timing], to: &[Timing]| {
            let pairs = of.iter().zip(to);
            median(
                pairs
                    .map(|(of, to)| of.tokens_per_s() / to.tokens_per_s())
                    .collect(),
            )
        };
        let share = |timings: &[Timing]| {
            let share = |timing: &Timing| timing.scorers.as_secs_f64() / timing.decode.as_secs_f64();
            median(timings.iter().map(share).collect())
        };
        let first_ms = |timings: &[Timing]| {
            let ms = |timing: &Timing| 1e3 * timing.first_committed.as_secs_f64();
            median(timings.iter().map(ms).collect())
        };
        SteeredReport {
            batch,
            sample_tokens_per_s: speed(&self.sample),
            cd_token_tokens_per_s: speed(&self.cd_token),
            cd_token_relative_to_sample: relative(&self.cd_token, &self.sample),
            cd_token_scorer_share: share(&self.cd_token),
            best_of_n_tokens_per_s: speed(&self.best_of_n),
            cd_block_tokens_per_s: speed(&self.cd_block),
            cd_block_relative_to_best_of_n: relative(&self.cd_block, &self.best_of_n),
            cd_block_scorer_share: share(&self.cd_block),
            cd_block_first_block_ms: first_ms(&self.cd_block),
            best_of_n_answer_ms: first_ms(&self.best_of_n),
            block_tokens,
        }
    }
}

fn blocks_of(num_candidates: usize, block_len: usize, sampling: Sampling) -> CdBlockConfig {
    CdBlockConfig {
        num_candidates,
        block_len: Some(block_len),
        beams: 1,
        choice: BlockChoice::Best,
        block_end: BlockEnd::Tokens,
        target: None,
        token_budget: None,
        audit: 0,
        sampling,
    }
}

/// Prints one line a method.
pub(super) fn show(reports: &[SteeredReport]) -> Result<()> {
    for report in reports {
        output::line(&format!(
            "cd-token, {:4} requests: {:6.1} tokens/s, {:.2} of sampling's {:.1}; scorer {:.1}%",
            report.batch,
            report.cd_token_tokens_per_s,
            report.cd_token_relative_to_sample,
            report.sample_tokens_per_s,
            100.0 * report.cd_token_scorer_share,
        ))?;
        output::line(&format!(
            "cd-block:k={},m={}: {:6.1} tokens/s, {:.2} of best-of-{}'s {:.1}; scorer {:.1}%; first block after {:.0} ms, \
             best-of-{}'s answer after {:.0} ms",
            report.batch,
            report.block_tokens,
            report.cd_block_tokens_per_s,
            report.cd_block_relative_to_best_of_n,
            report.batch,
            report.best_of_n_tokens_per_s,
            100.0 * report.cd_block_scorer_share,
            report.cd_block_first_block_ms,
            report.batch,
            report.best_of_n_answer_ms,
        ))?;
    }
    Ok(())
}
