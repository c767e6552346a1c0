//! `trimtab bench decode`: prefill and decoding speed, and how near they come to what the machine can do.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use trimtab_engine::{Engine, EngineConfig};
use trimtab_kernels::gemm::isa_name;
use trimtab_kernels::gemm::limits;
use trimtab_model::stage_times::StageTimes;

use super::heads;
use super::median;
use super::reencoding::{self, ReencodingMeasured, ReencodingReport};
use super::round::{self, Shape};
use super::steered::{self, SteeredMeasured, SteeredReport};
use crate::Verdict;
use crate::args::BenchDecodeArgs;
use crate::machine;
use crate::output;
use crate::progress::ItemProgress;
use crate::resolve::ReadyModel;

/// What `--json` prints. The keys `prefill_tokens_per_s`, `decode`, `steered`, `reencoding`, `peak_rss_bytes`,
/// `precision` and `threads` are stable.
#[derive(Debug, Serialize)]
struct DecodeReport {
    prefill_tokens_per_s: f64,
    decode: Vec<BatchReport>,
    /// With a scorer of random weights, at batch sizes above 1; empty in a context without room for a block.
    steered: Vec<SteeredReport>,
    /// How others steer tokens; `null` where nothing is steered.
    reencoding: Option<ReencodingReport>,
    /// Prefixes a second that a scorer's heads are trained on, from cached states; `null` where nothing is steered.
    scorer_training_prefixes_per_s: Option<f64>,
    /// `null` where the system does not tell.
    peak_rss_bytes: Option<u64>,
    precision: String,
    threads: usize,
    prefill_fraction_of_limit: f64,
    model: String,
    model_sha256: String,
    parameters: usize,
    packed_weight_bytes: usize,
    /// From the start of opening the file until the model can run.
    load_seconds: f64,
    /// From the start of opening the file to the first token of a short prompt.
    first_token_seconds: f64,
    prompt_tokens: usize,
    new_tokens: usize,
    prefill_tokens: usize,
    rounds: usize,
    limits: Limits,
}

/// Speed at one batch size.
#[derive(Debug, Serialize)]
struct BatchReport {
    batch: usize,
    tokens_per_s: f64,
    fraction_of_limit: f64,
    /// Which limit is the nearer one: `memory` or `arithmetic`.
    limited_by: &'static str,
    /// Share of the time in each stage of the model; `sampling_and_scheduling` is what is not the model's.
    time_shares: BTreeMap<&'static str, f64>,
}

/// What the machine can do at best, measured in this run.
#[derive(Debug, Clone, Copy, Serialize)]
struct Limits {
    isa: &'static str,
    int8_gops: f64,
    f32_gflops: f64,
    /// Reading as many bytes as the packed weights have.
    read_gb_per_s: f64,
}

pub(crate) fn run(args: &BenchDecodeArgs) -> Result<Verdict> {
    // A first look makes sure that the model is stored, so that fetching does not count as loading.
    drop(crate::resolve::fetch(
        &crate::resolve::open_store()?,
        &args.model,
        args.run.source.into(),
    )?);
    let started = Instant::now();
    let model = ReadyModel::open(
        &args.model,
        args.run.source.into(),
        args.run.precision.plan,
        args.run.threads,
    )?;
    let load_seconds = started.elapsed().as_secs_f64();
    let sizes = Sizes::of(args, model.loaded.config().context_len)?;
    let bench = Bench { args, sizes, model };
    bench.time(
        Shape {
            prompt: FIRST_PROMPT.min(sizes.prompt),
            batch: 1,
            new: 1,
        },
        0,
    )?;
    let first_token_seconds = started.elapsed().as_secs_f64();
    let limits = bench.limits();
    let report = bench.report(load_seconds, first_token_seconds, limits)?;
    if args.json {
        output::json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(Verdict::Ok)
}

/// Tokens of the prompt whose first token is timed.
const FIRST_PROMPT: usize = 16;

/// Numbers of tokens to measure with.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    prompt: usize,
    new: usize,
    /// New tokens with a scorer: it wants the row after the last one too.
    steered_new: usize,
    prefill: usize,
}

impl Sizes {
    fn of(args: &BenchDecodeArgs, context_len: usize) -> Result<Self> {
        // Speed is that of the tokens after the first, so there must be two.
        let (prompt, new) = round::fit(args.prompt, args.new, (128, 64), 2, context_len)?;
        let (prefill, _) = round::fit(args.prefill, Some(1), (512, 1), 1, context_len)?;
        let steered_new = new.min(context_len - prompt);
        Ok(Self {
            prompt,
            new,
            steered_new,
            prefill,
        })
    }
}

struct Bench<'a> {
    args: &'a BenchDecodeArgs,
    sizes: Sizes,
    model: ReadyModel,
}

impl Bench<'_> {
    fn time(&self, shape: Shape, round: u64) -> Result<round::Timing> {
        round::run(&self.model, &mut self.engine()?, shape, round)
    }

    fn engine(&self) -> Result<Engine> {
        let config = EngineConfig {
            prefix_cache: false,
            ..EngineConfig::standard()
        };
        self.model.engine(self.args.run.kv_memory, config)
    }

    /// Batch sizes to time with a scorer.
    fn steered_batches(&self) -> Vec<usize> {
        let batches = self.args.batch.iter().copied();
        batches
            .filter(|&batch| batch > 1 && self.sizes.steered_new > 1)
            .collect()
    }

    fn limits(&self) -> Limits {
        let pool = self.model.loaded.pool();
        Limits {
            isa: isa_name(),
            int8_gops: limits::int8_gops(pool),
            f32_gflops: limits::f32_gflops(pool),
            read_gb_per_s: limits::read_gb_per_second(pool, self.model.loaded.model().packed_bytes()),
        }
    }

    /// Seconds that one step of `rows` rows needs at least, and what for: reading the weights once, or multiplying.
    fn least_seconds(&self, rows: usize, limits: Limits) -> (f64, &'static str) {
        let model = self.model.loaded.model();
        let is_float = matches!(self.args.run.precision.name.as_str(), "f32" | "bf16");
        let giga_per_second = if is_float {
            limits.f32_gflops
        } else {
            limits.int8_gops
        };
        let arithmetic =
            2.0 * model.config().num_linear_weights() as f64 * rows as f64 / (giga_per_second * 1e9);
        let memory = model.packed_bytes() as f64 / (limits.read_gb_per_s * 1e9);
        if memory > arithmetic {
            (memory, "memory")
        } else {
            (arithmetic, "arithmetic")
        }
    }

    /// Times all shapes. Rounds go over them in turn, so that a noisy moment does not fall on one shape alone.
    fn measure(&self) -> Result<Measured> {
        let (args, sizes) = (self.args, self.sizes);
        let shape = |prompt, batch, new| Shape { prompt, batch, new };
        let what = "measuring";
        let steered_batches = self.steered_batches();
        let scorers = steered::random_scorer(&self.model, args.run.precision.plan.head)?;
        let is_steered = !steered_batches.is_empty();
        let shapes = 1 + args.batch.len() + steered_batches.len() + usize::from(is_steered);
        let num_items = args.rounds * shapes;
        let mut progress = ItemProgress::new(what, num_items as u64, 0);
        let mut prefill = Vec::new();
        let mut batches = vec![BatchMeasured::default(); args.batch.len()];
        let mut steered: Vec<SteeredMeasured> = steered_batches
            .iter()
            .map(|_| SteeredMeasured::default())
            .collect();
        let mut reencoding = ReencodingMeasured::default();
        for round in 0..args.rounds as u64 {
            let timing = self.time(shape(sizes.prefill, 1, 1), round)?;
            prefill.push(sizes.prefill as f64 / timing.prefill.as_secs_f64());
            progress.advance(what);
            for (measured, &batch) in batches.iter_mut().zip(&args.batch) {
                let timing = self.time(shape(sizes.prompt, batch, sizes.new), round)?;
                measured.speeds.push(timing.tokens_per_s());
                measured.stages = measured.stages.plus(&timing.stages);
                measured.seconds += timing.decode.as_secs_f64();
                progress.advance(what);
            }
            for (measured, &batch) in steered.iter_mut().zip(&steered_batches) {
                let shape = shape(sizes.prompt, batch, sizes.steered_new);
                measured.add_round(
                    &self.model,
                    &scorers,
                    || self.engine(),
                    (shape, args.block, round),
                )?;
                progress.advance(what);
            }
            if is_steered {
                let shape = shape(sizes.prompt, 1, sizes.steered_new);
                reencoding.add_round(&self.model, self.engine()?, (shape, round))?;
                progress.advance(what);
            }
        }
        progress.finish();
        let steered = steered_batches.into_iter().zip(steered);
        Ok(Measured {
            prefill,
            batches,
            steered: steered
                .map(|(batch, measured)| measured.report(batch, args.block))
                .collect(),
            reencoding: is_steered.then(|| reencoding.report()),
        })
    }

    fn batch_report(&self, batch: usize, measured: BatchMeasured, limits: Limits) -> BatchReport {
        let tokens_per_s = median(measured.speeds);
        let (least, limited_by) = self.least_seconds(batch, limits);
        BatchReport {
            batch,
            tokens_per_s,
            fraction_of_limit: tokens_per_s * least / batch as f64,
            limited_by,
            time_shares: shares(&measured.stages, measured.seconds),
        }
    }

    fn report(&self, load_seconds: f64, first_token_seconds: f64, limits: Limits) -> Result<DecodeReport> {
        let (args, sizes) = (self.args, self.sizes);
        let Measured {
            prefill,
            batches,
            steered,
            reencoding,
        } = self.measure()?;
        let prefill_tokens_per_s = median(prefill);
        let (least_prefill, _) = self.least_seconds(sizes.prefill, limits);
        // Before training, which is no part of decoding.
        let peak_rss_bytes = machine::peak_rss_bytes();
        let scorer_training_prefixes_per_s = reencoding
            .is_some()
            .then(|| heads::trained_prefixes_per_s(&self.model))
            .transpose()?;
        let batches = args.batch.iter().zip(batches);
        let decode = batches
            .map(|(&batch, measured)| self.batch_report(batch, measured, limits))
            .collect();
        let model = self.model.loaded.model();
        Ok(DecodeReport {
            prefill_tokens_per_s,
            decode,
            steered,
            reencoding,
            scorer_training_prefixes_per_s,
            peak_rss_bytes,
            precision: args.run.precision.name.clone(),
            threads: self.model.loaded.pool().num_threads(),
            prefill_fraction_of_limit: prefill_tokens_per_s * least_prefill / sizes.prefill as f64,
            model: args.model.clone(),
            model_sha256: self.model.sha256(),
            parameters: model.config().num_parameters(),
            packed_weight_bytes: model.packed_bytes(),
            load_seconds,
            first_token_seconds,
            prompt_tokens: sizes.prompt,
            new_tokens: sizes.new,
            prefill_tokens: sizes.prefill,
            rounds: args.rounds,
            limits,
        })
    }
}

/// Timings of all rounds.
struct Measured {
    /// Tokens per second, one a round.
    prefill: Vec<f64>,
    /// In the order of the batch sizes.
    batches: Vec<BatchMeasured>,
    /// In the order of the batch sizes above 1.
    steered: Vec<SteeredReport>,
    reencoding: Option<ReencodingReport>,
}

/// Timings of one batch size.
#[derive(Debug, Clone, Default)]
struct BatchMeasured {
    /// Tokens per second, one a round.
    speeds: Vec<f64>,
    stages: StageTimes,
    seconds: f64,
}

fn shares(stages: &StageTimes, seconds: f64) -> BTreeMap<&'static str, f64> {
    let share = |stage_seconds: f64| (stage_seconds / seconds * 1e4).round() / 1e4;
    let mut shares: BTreeMap<&'static str, f64> = stages
        .by_name()
        .into_iter()
        .map(|(name, time)| (name, share(time.as_secs_f64())))
        .collect();
    let model_seconds: f64 = stages
        .by_name()
        .into_iter()
        .map(|(_, time)| time.as_secs_f64())
        .sum();
    shares.insert("sampling_and_scheduling", share(seconds - model_seconds));
    shares
}

fn show(report: &DecodeReport) -> Result<()> {
    let limits = &report.limits;
    output::line(&format!(
        "{} ({:.0} M parameters, {:.0} MB packed), {}, {} threads, {}; loaded in {:.2} s, first token after {:.2} s\n\
         machine: int8 {:.0} GOP/s, f32 {:.0} GFLOP/s, reading the weights {:.1} GB/s\n\
         prefill {:4} tokens: {:7.1} tokens/s ({:.0}% of limit)",
        report.model,
        report.parameters as f64 / 1e6,
        report.packed_weight_bytes as f64 / 1e6,
        report.precision,
        report.threads,
        limits.isa,
        report.load_seconds,
        report.first_token_seconds,
        limits.int8_gops,
        limits.f32_gflops,
        limits.read_gb_per_s,
        report.prefill_tokens,
        report.prefill_tokens_per_s,
        100.0 * report.prefill_fraction_of_limit,
    ))?;
    for batch in &report.decode {
        let mut shares: Vec<(&str, f64)> = batch
            .time_shares
            .iter()
            .map(|(&name, &share)| (name, share))
            .collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        let top: Vec<String> = shares
            .iter()
            .take(5)
            .map(|(name, share)| format!("{name} {:.0}%", 100.0 * share))
            .collect();
        output::line(&format!(
            "decode, batch {:4}:   {:7.1} tokens/s ({:.0}% of limit, {}); {}",
            batch.batch,
            batch.tokens_per_s,
            100.0 * batch.fraction_of_limit,
            batch.limited_by,
            top.join(", ")
        ))?;
    }
    steered::show(&report.steered)?;
    if let Some(reencoding) = &report.reencoding {
        let fastest = report
            .steered
            .iter()
            .map(SteeredReport::cd_token_tokens_per_s)
            .reduce(f64::max);
        reencoding::show(reencoding, fastest)?;
    }
    if let Some(speed) = report.scorer_training_prefixes_per_s {
        output::line(&format!(
            "training a scorer from cached states: {speed:.0} prefixes/s"
        ))?;
    }
    let memory = report.peak_rss_bytes.map_or("unknown".to_owned(), |bytes| {
        format!("{:.0} MB", bytes as f64 / 1e6)
    });
    output::line(&format!("peak memory: {memory}"))
}
