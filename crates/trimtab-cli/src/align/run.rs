//! The runs of a configuration, one after the other. Knows their order; the optimisation is the training crate's.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use trimtab_train::policy::{PolicyData, PolicyObjective, TrainedPolicy, train_policy};
use trimtab_train::{RunDir, TrainEvent};

use super::config::{AlignConfig, OneRun};
use super::drawing::Drawing;
use super::finish::Finish;
use super::given;
use super::prepare::Prepared;
use super::report::{AlignReport, RunReport};
use super::rollouts::{EngineRollouts, RoundPlan};
use super::warm_start::WarmStart;
use super::watch::WatchLog;
use crate::args::Source;
use crate::output;
use crate::train::show_event;

/// How to run; nothing here changes the policy.
#[derive(Debug, Clone)]
pub(crate) struct AlignOptions {
    /// Folder of the policy, or of the policies of several betas.
    pub(crate) out: PathBuf,
    /// Threads; all processors if `None`.
    pub(crate) threads: Option<u16>,
    /// Memory of the engine for keys and values, in MiB.
    pub(crate) kv_memory_mib: u32,
    /// Where the model may come from.
    pub(crate) source: Source,
}

/// Trains the policies of `config` and writes them.
///
/// # Errors
/// What cannot be used; a run folder of another configuration; a loss that is not finite or a KL that explodes, with the
/// last good checkpoint. What was drawn and trained is kept: the same command goes on.
pub(crate) fn align(config: &AlignConfig, options: &AlignOptions) -> Result<AlignReport> {
    let runs = config.runs()?;
    // Known before minutes of sampling.
    runs.iter().try_for_each(|run| run.training.device.check())?;
    let prepared = Prepared::open(config, options)?;
    let is_sweep = runs.len() > 1;
    let mut reports = Vec::with_capacity(runs.len());
    for run in &runs {
        let out = match run.beta {
            Some(beta) if is_sweep => options.out.join(format!("beta_{beta}")),
            _ => options.out.clone(),
        };
        if is_sweep {
            output::note(&format!(
                "beta {}: {}",
                run.beta.unwrap_or_default(),
                out.display()
            ));
        }
        let report = one_run(config, &prepared, (run, &out), options)
            .with_context(|| format!("policy {}", out.display()))?;
        reports.push(report);
    }
    let report = AlignReport {
        out: options.out.display().to_string(),
        runs: reports,
    };
    crate::whole_file::write_json(&options.out.join("align.json"), &report)?;
    Ok(report)
}

fn one_run(
    config: &AlignConfig,
    prepared: &Prepared,
    (run, out): (&OneRun, &Path),
    options: &AlignOptions,
) -> Result<RunReport> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let interpolated = config.calibration.interpolated;
    let training = &run.training;
    let plan = RoundPlan {
        prompts_per_round: config.rollouts.prompts_per_round,
        per_prompt: config.rollouts.per_prompt,
        steps_per_round: (training.steps_per_round * training.passes_per_round) as u64,
        seed: config.seed,
        kv_memory_mib: options.kv_memory_mib,
    };
    let is_on_policy = matches!(training.objective, PolicyObjective::Rl { .. });
    let warm_rounds = config.rollouts.warm_start_from_calibration;
    let drawing = Drawing::of(config, prepared, run.transform.as_ref())?;
    let run_dir = RunDir::new(out, env!("CARGO_PKG_VERSION"));
    drawing.keep(&run_dir)?;
    let calibration = prepared.calibration.as_ref().map(|(folder, _)| folder);
    let mut rollouts = EngineRollouts {
        base: &prepared.model.loaded,
        prompts: &prepared.prompts,
        rewards: &prepared.rewards,
        rewarding: prepared.rewarding(run.transform.as_ref(), (run.beta, interpolated))?,
        // A probe's draws are always the policy's.
        warm_start: WarmStart::read(
            if is_on_policy { warm_rounds } else { 0 },
            calibration,
            (&plan, prepared.prompts.len()),
        )?,
        plan,
        identity: drawing.identity(),
        log: WatchLog::open(out)?,
    };
    if !is_on_policy || warm_rounds > 0 {
        rollouts.watch_reference(Arc::clone(&prepared.base.weights))?;
    }
    let finish = Finish {
        config,
        prepared,
        run,
        out,
    };
    let trained = optimise(config, prepared, (run, &run_dir), &mut rollouts)
        .map_err(|error| finish.what_was_good(error))?;
    finish.policies(&trained, rollouts.log.ends())
}

/// Runs the one loop on the data that the objective learns from.
fn optimise(
    config: &AlignConfig,
    prepared: &Prepared,
    (run, run_dir): (&OneRun, &RunDir),
    rollouts: &mut EngineRollouts<'_>,
) -> Result<TrainedPolicy> {
    let settings = (config.num_candidates(), &config.samples);
    let samples = || {
        let calibration = prepared.calibration.as_ref();
        calibration
            .map(|(folder, _)| folder)
            .context("the objective learns from samples, and there is no calibration")
    };
    let (winners, pairs);
    let data = match run.training.objective {
        PolicyObjective::Rl { .. } => PolicyData::OnPolicy(rollouts),
        PolicyObjective::Sft { .. } => {
            winners = given::winners(samples()?, settings, &rollouts.rewarding)?;
            winners.note().iter().for_each(|note| output::note(note));
            PolicyData::Responses {
                responses: &winners.items,
                probe: Some(rollouts),
            }
        }
        PolicyObjective::Dpo { .. } | PolicyObjective::Ipo { .. } | PolicyObjective::BonBon { .. } => {
            pairs = given::pairs(samples()?, settings)?;
            pairs.note().iter().for_each(|note| output::note(note));
            PolicyData::Preferences {
                pairs: &pairs.items,
                probe: Some(rollouts),
            }
        }
    };
    let mut progress = None;
    let on_event = &mut |event: TrainEvent| {
        show_event(&mut progress, &event);
        ControlFlow::Continue(())
    };
    let trained = train_policy(&run.training, &prepared.base, data, run_dir, on_event);
    if let Some(progress) = &progress {
        progress.finish();
    }
    let trained = trained?;
    for (why, num) in &trained.skipped {
        output::note(&format!("left out: {num} with {why}"));
    }
    Ok(trained)
}
