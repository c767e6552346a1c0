//! `trimtab train`: what is trained from data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Verdict;
use crate::args::{TrainCommand, TrainScorerArgs};
use crate::output;
use crate::train::{ScorerConfig, TrainOptions, train};

pub(crate) fn run(command: &TrainCommand) -> Result<Verdict> {
    match command {
        TrainCommand::Scorer(args) => scorer(args),
    }
}

fn scorer(args: &TrainScorerArgs) -> Result<Verdict> {
    let config = ScorerConfig::open(&args.config)?;
    let options = TrainOptions {
        out: args.out.clone().map_or_else(|| beside(&args.config), Ok)?,
        threads: args.threads,
        source: args.source.into(),
    };
    let report = train(&config, &options)?;
    if args.json {
        output::json(&report)?;
    } else {
        report.show()?;
    }
    Ok(Verdict::Ok)
}

/// The configuration's path without its extension.
fn beside(config: &Path) -> Result<PathBuf> {
    let out = config.with_extension("");
    if out == config {
        return Err(anyhow::anyhow!("there is no folder to name after it"))
            .with_context(|| format!("{} has no extension; give --out DIR", config.display()));
    }
    Ok(out)
}
