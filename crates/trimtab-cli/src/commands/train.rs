//! `trimtab train`: what is trained from data.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use trimtab_kernels::memory;

use crate::Verdict;
use crate::align::{AlignConfig, AlignOptions, align};
use crate::args::{TrainAlignArgs, TrainArgs, TrainCommand};
use crate::output;
use crate::train::{RewardConfig, ScorerConfig, TrainOptions, set_device, train, train_reward};

pub(crate) fn run(command: &TrainCommand) -> Result<Verdict> {
    memory::keep_freed();
    match command {
        TrainCommand::Scorer(args) => {
            let mut config = ScorerConfig::open(&args.run.config)?;
            config.run.seed = args.run.seed.unwrap_or(config.run.seed);
            set_device(&mut config.train, args.run.device);
            let report = train(&config, &options(&args.run)?)?;
            if args.run.json {
                output::json(&report)?;
            } else {
                report.show()?;
            }
        }
        TrainCommand::Reward(args) => {
            let mut config = RewardConfig::open(&args.run.config)?;
            config.run.seed = args.run.seed.unwrap_or(config.run.seed);
            set_device(&mut config.train, args.run.device);
            let report = train_reward(&config, &options(&args.run)?)?;
            if args.run.json {
                output::json(&report)?;
            } else {
                report.show()?;
            }
        }
        TrainCommand::Align(args) => run_align(args)?,
    }
    Ok(Verdict::Ok)
}

fn run_align(args: &TrainAlignArgs) -> Result<()> {
    let run = &args.run;
    let mut config = AlignConfig::open(&run.config)?;
    config.seed = run.seed.unwrap_or(config.seed);
    set_device(&mut config.train, run.device);
    let report = align(
        &config,
        &AlignOptions {
            out: run.out.clone().map_or_else(|| beside(&run.config), Ok)?,
            threads: run.threads,
            kv_memory_mib: args.kv_memory,
            source: run.source,
        },
    )?;
    if run.json {
        return output::json(&report);
    }
    output::line(&report.text())?;
    for policy in &report.runs {
        output::note(&format!(
            "use it: trimtab generate \"...\" --model {0}; measure it: trimtab eval winrate --policy {0} ...",
            policy.policy
        ));
    }
    Ok(())
}

fn options(args: &TrainArgs) -> Result<TrainOptions> {
    Ok(TrainOptions {
        out: args.out.clone().map_or_else(|| beside(&args.config), Ok)?,
        threads: args.threads,
        source: args.source.into(),
    })
}

/// The configuration's path without its extension.
fn beside(config: &Path) -> Result<PathBuf> {
    let out = config.with_extension("");
    if out == config {
        bail!(
            "{} has no extension, so there is no folder to name after it; give --out DIR",
            config.display()
        );
    }
    Ok(out)
}
