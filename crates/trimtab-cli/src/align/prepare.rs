//! What all runs of a configuration share: the reference, its prompts, rewards and calibration. Knows no optimisation.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trimtab_model::ModelFile;
use trimtab_reward::RewardSpec;
use trimtab_runtime::{Job, PromptStyle};
use trimtab_train::policy::PolicyBase;

use super::config::AlignConfig;
use super::formats::PolicyFormats;
use super::rewarding::{Quantiles, Rewarding};
use super::run::AlignOptions;
use crate::args::RolloutArgs;
use crate::calibrate::{self, CalibrationFolder};
use crate::head_place::HeadPlace;
use crate::output;
use crate::resolve::ReadyModel;
use crate::rollout::{self, Rewards};
use crate::steering::Models;

/// Ready to be trained on.
pub(super) struct Prepared {
    pub(super) model: ReadyModel,
    /// The same on disk, whose configuration and tokenizer policies are written with.
    pub(super) file: ModelFile,
    /// What policies are written as.
    pub(super) formats: PolicyFormats,
    pub(super) base: PolicyBase,
    /// A job a prompt.
    pub(super) prompts: Vec<Job>,
    /// The one that is trained on first.
    pub(super) rewards: Rewards,
    pub(super) reward_heads_sha256: Vec<String>,
    pub(super) calibration: Option<(CalibrationFolder, Quantiles)>,
}

impl Prepared {
    /// Opens the reference, reads the prompts, and draws the calibration where it is missing.
    ///
    /// # Errors
    /// Anything that cannot be used, before minutes of sampling where that can be told.
    pub(super) fn open(config: &AlignConfig, options: &AlignOptions) -> Result<Self> {
        let specs: Vec<RewardSpec> = std::iter::once(&config.reward)
            .chain(&config.watch)
            .cloned()
            .collect();
        Rewards::check(&specs)?;
        let folder = config
            .calibration
            .folder
            .clone()
            .unwrap_or_else(|| options.out.join("calibration"));
        let limits = (options.threads, options.kv_memory_mib, options.source);
        let args = config.calibration_args(folder, limits)?;
        let run = &args.run;
        let policy = run.source.into();
        let model = ReadyModel::open(&args.model, policy, run.precision.plan, run.threads)?;
        let file =
            ModelFile::open(&model.stored.path).with_context(|| model.stored.path.display().to_string())?;
        let formats = PolicyFormats::of(&config.formats, &file)?;
        let style = PromptStyle {
            raw: args.draw.raw,
            system: args.draw.system.clone(),
        };
        let models = Models {
            generator: &model,
            policy,
            plan: run.precision.plan,
            threads: run.threads,
            style: &style,
        };
        let rewards = Rewards::new(&specs, &models)?;
        let prompts = rollout::jobs(&args, &model, &rewards)?;
        let calibration = config
            .needs_calibration()
            .then(|| calibration(&args, &model, &models))
            .transpose()
            .context("calibration")?;
        let base = PolicyBase {
            config: file.config().clone(),
            weights: file.weights(),
            sha256: model.sha256(),
        };
        let heads = config.reward.head_folders().map(HeadPlace::sha256);
        Ok(Self {
            reward_heads_sha256: heads.collect::<Result<_>>()?,
            model,
            file,
            formats,
            base,
            prompts,
            rewards,
            calibration,
        })
    }

    /// From rewards to what is trained on, at a KL weight.
    pub(super) fn rewarding(
        &self,
        transform: Option<&trimtab_infalign::Transform>,
        (beta, interpolated): (Option<f64>, bool),
    ) -> Result<Rewarding<'_>> {
        let Some((transform, (folder, quantiles))) = transform.zip(self.calibration.as_ref()) else {
            return Ok(Rewarding::Raw);
        };
        let num_samples = folder
            .manifest
            .identity
            .config
            .get("per_prompt")
            .and_then(serde_json::Value::as_u64);
        // Others are the same at any beta, 0 included.
        let beta = beta.filter(|_| transform.depends_on_beta());
        let prepared = calibrate::prepare(transform.clone(), beta.unwrap_or(1.0))?;
        let num_samples = usize::try_from(num_samples.unwrap_or(1)).unwrap_or(1);
        if num_samples == 1 {
            output::note(
                "one sample of a prompt is all that a response is compared with: its calibrated reward is 0, 1/2 or 1, so \
                 that transforms differ in nothing but scale; set calibration.per_prompt to 100 for quantiles",
            );
        }
        if interpolated {
            output::note(calibrate::INTERPOLATED);
        }
        Ok(Rewarding::Calibrated {
            quantiles,
            transform: Box::new(prepared.for_samples(num_samples)),
            interpolated,
        })
    }
}

/// Samples of the reference in the folder of `args`, drawn now where they are missing.
fn calibration(
    args: &RolloutArgs,
    model: &ReadyModel,
    models: &Models<'_>,
) -> Result<(CalibrationFolder, Quantiles)> {
    let rewards = Rewards::new(&args.reward, models)?;
    parent_of(&args.out)?;
    rollout::run_on(args, model, &rewards)?;
    let folder = CalibrationFolder::open(&args.out, Some(&rewards.columns()[0].name))?;
    let quantiles = Quantiles::read(&folder)?;
    if quantiles.num_degenerate > 0 {
        output::note(&format!(
            "{} of {} prompts are degenerate: all their samples have one reward, so that every response of that reward has \
             the calibrated reward 1/2; trimtab calibrate names them",
            quantiles.num_degenerate,
            quantiles.len()
        ));
    }
    Ok((folder, quantiles))
}

/// Makes the folder that `path` is to lie in.
fn parent_of(path: &Path) -> Result<()> {
    let parent: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    if parent.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))
}
