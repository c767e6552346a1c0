//! `trimtab frontier`: a configuration to a report.

use anyhow::Result;
use trimtab_eval::Frontier;

use crate::Verdict;
use crate::args::FrontierArgs;
use crate::frontier::{FrontierConfig, FrontierRun, RunOptions};
use crate::output;

pub(crate) fn run(args: &FrontierArgs) -> Result<Verdict> {
    let config = FrontierConfig::open(&args.config)?;
    let options = RunOptions {
        out: args.out.clone(),
        threads: args.threads,
        kv_memory_mib: args.kv_memory,
        source: args.source.into(),
    };
    run_and_show(config, options, args.json)
}

/// Runs a configuration and shows its numbers.
pub(crate) fn run_and_show(config: FrontierConfig, options: RunOptions, as_json: bool) -> Result<Verdict> {
    let out = options.out.clone();
    let frontier: Frontier = FrontierRun::new(config, options)?.run()?;
    if as_json {
        output::json(&frontier)?;
    } else {
        output::line(&frontier.to_table(output::terminal_width()))?;
    }
    output::note(&format!("report: {}", out.join("report.html").display()));
    Ok(Verdict::Ok)
}
