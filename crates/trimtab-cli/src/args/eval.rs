//! Arguments of `eval`. Knows words and their defaults.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{PrecisionName, Source, parse_precision};
use crate::train::reward::HeldOut;

/// What is evaluated.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// How often rewards and scorers prefer what people preferred, beside what length alone says.
    Preference(EvalPreferenceArgs),
    /// How often a policy's answers beat the reference's, each side under a procedure such as best-of-N.
    Winrate(Box<super::EvalWinrateArgs>),
}

/// Arguments of `eval preference`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each pair's two responses are valued at their ends; a pair is right if the chosen one's value is the greater. Intervals
are exact (Clopper and Pearson, 95%) where every pair has a prompt of its own, else over groups of pairs that are alike.
Beside each scorer stand \"longer is better\" on the same pairs, its accuracy where the chosen one is longer and where it is
shorter, and the correlation of its margin with the difference of lengths, in characters. For rewards whose differences
are log-odds the JSON has a reliability curve and its error. Pairs of identical sides and empty responses are left out,
counted and named. Take pairs that training has not seen: --skip counts rows from the start.

A reward is a folder that `train reward` left (DIR, or DIR#HEAD for one of several), a scorer's folder, or a sequence
classifier of the hub (a folder with a score head, or org/name, with #LABEL for one of many labels).

Example:
  trimtab eval preference --pairs hh.jsonl.gz --skip 1800 harmless length_cdq both#helpful")]
pub(crate) struct EvalPreferenceArgs {
    /// What is compared: DIR, DIR#HEAD, DIR@MODEL, or a sequence classifier.
    #[arg(required = true, value_name = "REWARD")]
    pub(crate) scorers: Vec<String>,
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
    /// Leave out rows that cannot be read, instead of refusing them; they are counted and named.
    #[arg(long)]
    pub(crate) drop_bad: bool,
    /// Column whose values make pairs alike, for intervals: COLUMN, or COLUMN:TEXT for the part of the value before TEXT.
    #[arg(long, value_name = "COLUMN", value_parser = parse_group)]
    pub(crate) group: Option<HeldOut>,
    /// The model whose states scorers without one of their own read: alias, `org/name` of the hub, or a path.
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

fn parse_group(text: &str) -> Result<HeldOut, String> {
    let (column, until) = text
        .split_once(':')
        .map_or((text, None), |(column, until)| (column, Some(until)));
    if column.is_empty() || until.is_some_and(str::is_empty) {
        return Err("expected COLUMN or COLUMN:TEXT".to_owned());
    }
    let column = column.to_owned();
    Ok(match until {
        Some(until) => HeldOut::Part {
            column,
            until: until.to_owned(),
        },
        None => HeldOut::Column(column),
    })
}
