//! Arguments of `eval`. Knows words and their defaults.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{PrecisionName, Source, parse_precision};

/// What is evaluated.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// How often scorers and reward heads prefer what people preferred.
    Preference(EvalPreferenceArgs),
}

/// Arguments of `eval preference`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each pair's two responses are valued at their ends; a pair is right if the chosen one's value is the greater. Intervals
are exact (Clopper and Pearson, 95%). Take pairs that training has not seen: --skip counts rows from the start.

Example:
  trimtab eval preference --pairs hh.jsonl.gz --skip 1800 harmless length_cdq length_fudge")]
pub(crate) struct EvalPreferenceArgs {
    /// Folders that `train scorer` or `train reward-head` left, all for one model.
    #[arg(required = true, value_name = "DIR")]
    pub(crate) scorers: Vec<PathBuf>,
    /// Preferences: rows with `chosen` and `rejected`, plain or as in HH-RLHF.
    #[arg(long, value_name = "FILE")]
    pub(crate) pairs: PathBuf,
    /// Pairs to pass over, e.g. those of training.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) skip: u64,
    /// Most pairs to take after those.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Leave out what does not fit the model's context, instead of refusing it; they are counted.
    #[arg(long)]
    pub(crate) drop_long: bool,
    /// The model whose states the scorers read: alias, `org/name` of the hub, or a path.
    #[arg(long, short, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// Precision of the model: the one that the scorers were trained in.
    #[arg(long, default_value = "int8", value_parser = parse_precision)]
    pub(crate) precision: PrecisionName,
    /// Threads; all processors if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Where the model may be fetched from if it is not stored.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) source: Source,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
