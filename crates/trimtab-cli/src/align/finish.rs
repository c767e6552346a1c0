//! What a run leaves: weights that open elsewhere, the card beside them, and the same for weights kept on the way. Knows
//! files, no optimisation.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use trimtab_model::load::WeightSource;
use trimtab_store::SourcePolicy;
use trimtab_train::TrainError;
use trimtab_train::policy::{KeptPolicy, PolicyObjective, TrainedPolicy, kept_policies, load_kept};
use trimtab_train::trainer::Checkpoint;

use super::config::{AlignConfig, OneRun, RAW};
use super::prepare::Prepared;
use super::report::{KeptReport, RunReport};
use super::watch::Watched;
use crate::policy_card::{CARD_VERSION, PolicyCard, TrainedOn, TunedFrom};
use crate::resolve::{fetch, open_store};

/// A run that is over.
pub(super) struct Finish<'a> {
    pub(super) config: &'a AlignConfig,
    pub(super) prepared: &'a Prepared,
    pub(super) run: &'a OneRun,
    pub(super) out: &'a Path,
}

/// How far a policy got.
struct Reached<'a> {
    step: u64,
    kl_nats: Option<f64>,
    stopped: Option<String>,
    metrics: &'a BTreeMap<String, f64>,
}

impl Finish<'_> {
    /// Writes the policy and those that were kept.
    pub(super) fn policies(
        &self,
        trained: &TrainedPolicy,
        watched: Option<(Watched, Watched)>,
    ) -> Result<RunReport> {
        let kept = self.kept(&trained.kept)?;
        let finite = self.last_metrics(trained)?;
        let reached = Reached {
            step: trained.step,
            // Of these weights' own responses; what several steps say is of earlier weights too.
            kl_nats: finite.get("kl_nats").copied(),
            stopped: trained.stopped.clone(),
            metrics: &finite,
        };
        let weights = trained.weights();
        let card = self.write(weights.as_ref(), self.out, &reached)?;
        let (file, formats) = (&self.prepared.file, &self.prepared.formats);
        let others = formats.write_others(file, weights.as_ref(), self.out)?;
        Ok(RunReport {
            policy: self.out.display().to_string(),
            card,
            others: others.iter().map(|path| path.display().to_string()).collect(),
            kept,
            watched,
        })
    }

    /// Writes what was good of a run that went wrong: the policy before it did, at the least the one that it began with, and
    /// those that were kept. The error goes on, with where they are.
    pub(super) fn what_was_good(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(good) = error.downcast_ref::<TrainError>().and_then(TrainError::last_good) else {
            return error;
        };
        let written = self.good(good, &error).and_then(|()| {
            let kept = self.kept(&kept_policies(self.out)?)?;
            Ok(kept.into_iter().map(|kept| kept.policy).collect::<Vec<_>>())
        });
        match written {
            Ok(kept) => {
                let mut all = vec![self.out.display().to_string()];
                all.extend(kept);
                error.context(format!("what was good is written: {}", all.join(", ")))
            }
            Err(second) => error.context(format!("what was good could not be written: {second:#}")),
        }
    }

    fn good(&self, path: &Path, error: &anyhow::Error) -> Result<()> {
        let weights = load_kept(&self.run.training, &self.prepared.base, path)?;
        let checkpoint = Checkpoint::read(path)?;
        let numbers = checkpoint
            .metrics
            .into_iter()
            .filter(|(_, value)| value.is_finite());
        let finite: BTreeMap<String, f64> = numbers.collect();
        let reached = Reached {
            step: checkpoint.step,
            // A policy begins as its reference.
            kl_nats: finite
                .get("kl_nats")
                .copied()
                .or((checkpoint.step == 0).then_some(0.0)),
            stopped: Some(error.to_string()),
            metrics: &finite,
        };
        self.write(weights.as_ref(), self.out, &reached)?;
        Ok(())
    }

    fn kept(&self, policies: &[KeptPolicy]) -> Result<Vec<KeptReport>> {
        let mut kept = Vec::with_capacity(policies.len());
        for policy in policies {
            let folder = self.out.join(format!("kl_{}", policy.target_kl_nats));
            let weights = load_kept(&self.run.training, &self.prepared.base, &policy.path)?;
            let reached = Reached {
                step: policy.step,
                kl_nats: Some(policy.kl_nats).filter(|kl| kl.is_finite()),
                stopped: None,
                metrics: &BTreeMap::new(),
            };
            self.write(weights.as_ref(), &folder, &reached)?;
            kept.push(KeptReport {
                policy: folder.display().to_string(),
                target_kl_nats: policy.target_kl_nats,
                kl_nats: policy.kl_nats,
                step: policy.step,
            });
        }
        Ok(kept)
    }

    /// The last numbers; of a run that was over before they stand in the card that it left.
    fn last_metrics(&self, trained: &TrainedPolicy) -> Result<BTreeMap<String, f64>> {
        let finite = trained.metrics.iter().filter(|(_, value)| value.is_finite());
        let finite: BTreeMap<String, f64> = finite.map(|(name, &value)| (name.clone(), value)).collect();
        if !finite.is_empty() {
            return Ok(finite);
        }
        let card = PolicyCard::read(self.out)?.filter(|card| card.step == trained.step);
        Ok(card.map(|card| card.metrics).unwrap_or_default())
    }

    fn write(&self, weights: &dyn WeightSource, folder: &Path, reached: &Reached<'_>) -> Result<PolicyCard> {
        let (file, formats) = (&self.prepared.file, &self.prepared.formats);
        let path = formats.write_first(file, weights, folder)?;
        let entry = path.file_name().context("a written model has a name")?;
        // The file was written just now, so that its hash is read from all of it.
        let stored = fetch(&open_store()?, &path.display().to_string(), SourcePolicy::Offline)?;
        let card = self.card(
            folder,
            (
                entry.to_string_lossy().into_owned(),
                stored.weights_sha256.to_string(),
            ),
            reached,
        );
        card.write(folder)?;
        Ok(card)
    }

    fn card(
        &self,
        folder: &Path,
        (entry, weights_sha256): (String, String),
        reached: &Reached<'_>,
    ) -> PolicyCard {
        let (config, run, prepared) = (self.config, self.run, self.prepared);
        let name = folder.file_name().map_or_else(
            || folder.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        );
        PolicyCard {
            card_version: CARD_VERSION,
            name,
            entry,
            base: TunedFrom {
                name: prepared.model.stored.name.clone(),
                sha256: prepared.model.sha256(),
            },
            weights_sha256,
            reward: config.reward.to_string(),
            reward_heads_sha256: prepared.reward_heads_sha256.clone(),
            transform: run
                .transform
                .as_ref()
                .map_or_else(|| RAW.to_owned(), ToString::to_string),
            procedure: config.procedure.to_string(),
            objective: run.training.objective.name().to_owned(),
            beta: run.beta,
            advantage: match run.training.objective {
                PolicyObjective::Rl { advantage, .. } => Some(advantage),
                _ => None,
            },
            interpolated: prepared
                .calibration
                .as_ref()
                .and(run.transform.as_ref())
                .map(|_| config.calibration.interpolated),
            trained_on: Some(trained_on(config, prepared.prompts.len())),
            kl_nats: reached.kl_nats,
            stopped: reached.stopped.clone(),
            step: reached.step,
            seed: config.seed,
            device: run.training.device,
            calibration_sha256: prepared
                .calibration
                .as_ref()
                .map(|(folder, _)| folder.manifest.content_sha256()),
            metrics: reached.metrics.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What an evaluation takes from the card where it is told nothing.
fn trained_on(config: &AlignConfig, num_taken: usize) -> TrainedOn {
    TrainedOn {
        prompts: config.prompts.clone(),
        skip: config.skip,
        num_prompts: config.num_prompts,
        num_taken: num_taken as u64,
        dialogue: config.dialogue,
        drop_long: config.drop_long,
        raw: config.raw,
        system: config.system.clone(),
        stop: config.stop.clone(),
        max_new_tokens: config.max_new_tokens,
        precision: config.precision.clone(),
    }
}
