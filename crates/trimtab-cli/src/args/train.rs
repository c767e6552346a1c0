//! Arguments of `train`. Knows words and their defaults.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use trimtab_train::TrainDevice;

use super::{Source, indent};
use crate::align::PolicyFormat;

/// What is trained.
#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Train a prefix scorer on rollouts: what `generate --scorer` steers by.
    Scorer(TrainScorerArgs),
    /// Train rewards on preferences or labels: classifiers on a model's states, which are used as `head:DIR`.
    Reward(TrainRewardArgs),
    /// Train a policy towards a reward: calibrate, transform, optimise under a KL penalty.
    Align(TrainAlignArgs),
}

/// Arguments of `train scorer`.
#[derive(Debug, Args)]
#[command(after_help = scorer_help())]
pub(crate) struct TrainScorerArgs {
    #[command(flatten)]
    pub(crate) run: TrainArgs,
}

/// Arguments of `train reward`.
#[derive(Debug, Args)]
#[command(after_help = reward_help())]
pub(crate) struct TrainRewardArgs {
    #[command(flatten)]
    pub(crate) run: TrainArgs,
}

/// Arguments of `train align`.
#[derive(Debug, Args)]
#[command(after_help = align_help())]
pub(crate) struct TrainAlignArgs {
    #[command(flatten)]
    pub(crate) run: TrainArgs,
    /// What the policy is written as, in place of the configuration's: base (the reference's format), hf, gguf; several
    /// with commas. The first is what opens, and the only one of weights kept on the way.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORMAT")]
    pub(crate) formats: Vec<PolicyFormat>,
    /// Memory for keys and values, in MiB. Taken as it is used.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..), value_name = "MIB")]
    pub(crate) kv_memory: u32,
}

/// How anything is trained.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// The configuration, a TOML file.
    pub(crate) config: PathBuf,
    /// Folder for the result and the traces of its training; the configuration's path without its extension if not
    /// given. A run that was stopped goes on there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Seed of everything random, in place of the configuration's; give each seed a folder of its own with --out.
    #[arg(long, value_name = "N", requires = "out")]
    pub(crate) seed: Option<u64>,
    /// Where steps are computed, in place of the configuration's: cpu, cuda or cuda:N. GPUs need a binary that was built
    /// with `--features cuda`. Responses are drawn on the processor either way.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<TrainDevice>,
    /// Print JSON: the card of the result and where it is.
    #[arg(long)]
    pub(crate) json: bool,
    /// Threads; all processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Where the model may be fetched from if it is not stored.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) source: Source,
}

fn scorer_help() -> String {
    format!(
        "A configuration (only `rollouts` and `reward` are required):\n\n{}\nExample:\n  trimtab rollout --prompts \
         prompts.jsonl --reward length --out rollouts\n  trimtab train scorer length.toml\n\nHidden states are read \
         once and kept in the store, under prefix-sets, for the next scorer on the same rollouts and reward.",
        indent(crate::train::EXAMPLE_CONFIG)
    )
}

fn reward_help() -> String {
    format!(
        "A configuration (only `pairs` or `labels` is required):\n\n{}\nExample:\n  trimtab train reward harmless.toml\n  \
         trimtab generate \"Hello!\" --decode bon:16 --reward head:harmless\n\nThe report is about judgements that were held \
         out: accuracy beside that of \"longer is better\", and whether its probabilities mean what they say. Hidden states are \
         read once and kept in the store, under prefix-sets.",
        indent(crate::train::reward::EXAMPLE_CONFIG)
    )
}

fn align_help() -> String {
    format!(
        "A configuration (only `prompts` and `reward` are required):\n\n{}\nExample:\n  trimtab train align ctrl_bon4.toml\n  \
         trimtab generate \"Once upon a time\" --raw --model ctrl_bon4\n\nSeveral values of beta give one run each, in a folder \
         beta_VALUE below the run's.",
        indent(crate::align::EXAMPLE_CONFIG)
    )
}
