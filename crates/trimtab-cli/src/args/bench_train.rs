//! Arguments of `bench train`. Knows words and their defaults.

use clap::{Args, ValueEnum};
use serde::Serialize;
use trimtab_train::TrainDevice;
use trimtab_train::policy::PolicyDepth;

use super::{Source, count};

/// Loss of a timed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TrainMethod {
    /// Likelihood of responses: one pass of the model and back.
    Sft,
    /// Policy gradient with the exact KL of every position: a pass of the reference too.
    Rl,
}

/// Weights that a timed step moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrainDepth {
    /// Adapters of every matrix.
    Lora,
    /// All of them.
    Full,
}

impl From<TrainDepth> for PolicyDepth {
    fn from(depth: TrainDepth) -> Self {
        match depth {
            TrainDepth::Lora => Self::Lora,
            TrainDepth::Full => Self::Full,
        }
    }
}

/// Arguments of `bench train`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  trimtab bench train --model smollm2-135m-instruct --method rl --depth lora"
)]
pub(crate) struct BenchTrainArgs {
    /// The model: alias, `org/name` of the hub, or a path.
    #[arg(long, short, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// What a step minimises.
    #[arg(long, value_enum, default_value = "sft")]
    pub(crate) method: TrainMethod,
    /// Which weights it moves.
    #[arg(long, value_enum, default_value = "lora")]
    pub(crate) depth: TrainDepth,
    /// Rank of the adapters.
    #[arg(long, value_name = "R", default_value_t = 16, value_parser = count(1))]
    pub(crate) rank: usize,
    /// Sequences of a step.
    #[arg(long, default_value_t = 8, value_parser = count(1))]
    pub(crate) batch: usize,
    /// Tokens of a sequence that are run.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count(1))]
    pub(crate) seq: usize,
    /// How many of them are the prompt, of which nothing is learned.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(1))]
    pub(crate) prompt: usize,
    /// Tokens whose gradients are computed at once; all of a step if not given. Less memory, about the same speed.
    #[arg(long, value_name = "N", value_parser = count(1))]
    pub(crate) piece: Option<usize>,
    /// Timed steps after one that is not; the median is reported.
    #[arg(long, default_value_t = 3, value_parser = count(1))]
    pub(crate) steps: usize,
    /// Threads; all processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Where steps are computed: cpu, cuda or cuda:N. GPUs need a binary that was built with `--features cuda`.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub(crate) device: TrainDevice,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the model may be fetched from if it is not stored.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) source: Source,
}
