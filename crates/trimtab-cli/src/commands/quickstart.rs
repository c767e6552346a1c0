//! `trimtab quickstart`: one of the frontier's configurations, with nothing to decide.

use anyhow::Result;

use crate::Verdict;
use crate::args::QuickstartArgs;
use crate::commands::frontier::run_and_show;
use crate::frontier::{FrontierConfig, RunOptions};

pub(crate) fn run(args: &QuickstartArgs) -> Result<Verdict> {
    let config = FrontierConfig::quickstart(args.seed, &args.run.precision.name);
    let options = RunOptions {
        out: args.out.clone(),
        threads: args.run.threads,
        kv_memory_mib: args.run.kv_memory,
        source: args.run.source.into(),
    };
    run_and_show(config, options, args.json)
}
