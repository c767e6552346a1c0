//! Calibration: responses of the reference and their rewards, beside which any reward becomes a quantile (InfAlign B4).
//!
//! The folder is a rollout folder, drawn, scored and resumed like any other; what calibration adds is read from it, a
//! prompt at a time ([`folder`]), and summed up beside it ([`summary`]). [`mod@export`] writes rows for other trainers, and
//! [`mod@learn`] fits a head that says the quantile without samples.

mod export;
mod folder;
mod learn;
mod summary;

use anyhow::{Context, Result};

use crate::args::{CalibrateArgs, RolloutArgs};
use crate::rollout;

pub(crate) use export::{INTERPOLATED, export, prepare};
pub(crate) use folder::{CalibrationFolder, PromptSamples};
pub(crate) use summary::CalibrationSummary;

/// Name of the summary in a calibration folder.
const SUMMARY_FILE: &str = "calibration.json";

/// Runs `trimtab calibrate`.
pub(crate) fn run(args: &CalibrateArgs) -> Result<CalibrationSummary> {
    rollout::run(&rollout_args(args))?;
    let folder = CalibrationFolder::open(&args.out, Some(&args.reward.to_string()))?;
    let mut summary = CalibrationSummary::of(&folder)?;
    if let Some(out) = &args.learn {
        summary.learned = Some(learn::train(args, &folder, out).context("learned quantiles")?);
    }
    crate::whole_file::write_json(&args.out.join(SUMMARY_FILE), &summary)?;
    Ok(summary)
}

/// The rollouts that calibration is.
fn rollout_args(args: &CalibrateArgs) -> RolloutArgs {
    RolloutArgs {
        model: args.model.clone(),
        prompts: args.prompts.clone(),
        responses: None,
        draw: args.draw.clone(),
        per_prompt: args.per_prompt,
        decode: rollout::reference(),
        reward: vec![args.reward.clone()],
        out: args.out.clone(),
        rows_per_shard: rollout::ROWS_PER_SHARD,
        json: false,
        run: args.run.clone(),
    }
}
