//! `trimtab frontier`: a configuration to a report.

use std::io::Read;

use anyhow::{Context, Result, bail};
use trimtab_eval::Frontier;

use crate::Verdict;
use crate::args::FrontierArgs;
use crate::frontier::{FrontierConfig, FrontierRun, RunOptions};
use crate::output;

pub(crate) fn run(args: &FrontierArgs) -> Result<Verdict> {
    let config = if args.config.as_os_str() == "-" {
        from_standard_input()?
    } else {
        FrontierConfig::open(&args.config)?
    };
    let options = RunOptions {
        out: args.out.clone(),
        threads: args.threads,
        kv_memory_mib: args.kv_memory,
        source: args.source.into(),
    };
    run_and_show(config, options, args.json)
}

fn from_standard_input() -> Result<FrontierConfig> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read the configuration from standard input")?;
    let config = FrontierConfig::parse(&text).context("standard input")?;
    if config.prompts == "-" {
        bail!("configuration and prompts cannot both come from standard input; give one of them as a file");
    }
    Ok(config)
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
