//! `trimtab train`: what is trained from data.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::Verdict;
use crate::args::{TrainArgs, TrainCommand};
use crate::output;
use crate::train::{RewardHeadConfig, ScorerConfig, TrainOptions, train, train_reward_head};

pub(crate) fn run(command: &TrainCommand) -> Result<Verdict> {
    let (report, args) = match command {
        TrainCommand::Scorer(args) => {
            let mut config = ScorerConfig::open(&args.run.config)?;
            config.seed = args.run.seed.unwrap_or(config.seed);
            (train(&config, &options(&args.run)?)?, &args.run)
        }
        TrainCommand::RewardHead(args) => {
            let mut config = RewardHeadConfig::open(&args.run.config)?;
            config.seed = args.run.seed.unwrap_or(config.seed);
            (train_reward_head(&config, &options(&args.run)?)?, &args.run)
        }
    };
    if args.json {
        output::json(&report)?;
    } else {
        report.show()?;
    }
    Ok(Verdict::Ok)
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
