//! One command per file; this file only picks.

mod analyze;
mod bench;
mod calibrate;
mod completions;
mod eval;
mod explain;
mod export;
mod frontier;
mod generate;
mod models;
mod preference;
mod quickstart;
mod rollout;
mod train;
mod winrate;

use anyhow::Result;

use crate::Verdict;
use crate::args::{BenchCommand, Cli, Command};

/// Runs what was asked for.
pub(crate) fn run(cli: Cli) -> Result<Verdict> {
    match cli.command {
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Models(command) => models::run(command),
        Command::Generate(args) => generate::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Rollout(args) => rollout::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Export(command) => export::run(&command),
        Command::Train(command) => train::run(&command),
        Command::Eval(command) => eval::run(&command),
        Command::Analyze(command) => analyze::run(&command),
        Command::Frontier(args) => frontier::run(&args),
        Command::Bench(BenchCommand::Decode(args)) => bench::decode::run(&args),
        Command::Bench(BenchCommand::BestOfN(args)) => bench::best_of_n::run(&args),
        Command::Bench(BenchCommand::Precision(args)) => bench::precision::run(&args),
        Command::Bench(BenchCommand::Train(args)) => bench::train::run(&args),
        Command::Completions { shell } => completions::run(shell),
    }
}
