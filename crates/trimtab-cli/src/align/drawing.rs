//! What decides the responses that a run draws, besides weights, step and seed: kept beside the run, so that a run that was
//! stopped goes on only from the same. Knows names and hashes, draws nothing.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trimtab_decode::StopRules;
use trimtab_infalign::{NamedTable, Transform};
use trimtab_reward::RewardSpec;
use trimtab_runtime::Job;
use trimtab_train::RunDir;

use super::config::{AlignConfig, RAW};
use super::prepare::Prepared;
use crate::whole_file::write_json;

const FILE: &str = "drawing.json";

/// One text for each thing that decides responses and their rewards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Drawing(Vec<(String, String)>);

impl Drawing {
    /// Of one run of `config`.
    pub(super) fn of(
        config: &AlignConfig,
        prepared: &Prepared,
        transform: Option<&Transform>,
    ) -> Result<Self> {
        let rollouts = &config.rollouts;
        let calibration = prepared.calibration.as_ref();
        let calibration = calibration.map(|(folder, _)| folder.manifest.content_sha256());
        let facts = [
            ("prompts", prompts_sha256(&prepared.prompts)?),
            ("procedure", config.procedure.to_string()),
            ("end of responses", stop_rules(&prepared.prompts)?),
            ("precision", config.precision.clone()),
            ("reward", reward(&config.reward, &prepared.reward_heads_sha256)),
            ("watch", serde_json::to_string(&config.watch)?),
            (
                "transform",
                transform.map_or_else(|| RAW.to_owned(), transform_text),
            ),
            ("interpolated", config.calibration.interpolated.to_string()),
            ("samples of the calibration", calibration.unwrap_or_default()),
            (
                "rollouts.prompts_per_round",
                rollouts.prompts_per_round.to_string(),
            ),
            ("rollouts.per_prompt", rollouts.per_prompt.to_string()),
            (
                "rollouts.warm_start_from_calibration",
                rollouts.warm_start_from_calibration.to_string(),
            ),
        ];
        Ok(Self(facts.map(|(name, fact)| (name.to_owned(), fact)).into()))
    }

    /// Leaves it in the folder of a run, or compares it with what was left there.
    ///
    /// # Errors
    /// The first thing that differs, with both values.
    pub(super) fn keep(&self, run_dir: &RunDir) -> Result<()> {
        let path = run_dir.path().join(FILE);
        // What was refused before its first step is no run yet.
        if !run_dir.is_begun() || !path.exists() {
            return write_json(&path, self);
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let there: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        for (name, here) in &self.0 {
            let there = there.0.iter().find(|(of, _)| of == name);
            let there = there.map_or("nothing", |(_, fact)| fact.as_str());
            if there != here {
                bail!(
                    "{} was begun with another {name} (there: {there}, here: {here}); choose another folder or remove it",
                    run_dir.path().display()
                );
            }
        }
        Ok(())
    }

    /// All of it in one text.
    pub(super) fn identity(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (name, fact)| {
            let _ = writeln!(text, "{name}: {fact}");
            text
        })
    }
}

/// Of all that rewards see of them, too: text and record.
fn prompts_sha256(prompts: &[Job]) -> Result<String> {
    let mut hash = Sha256::new();
    for job in prompts {
        hash.update(serde_json::to_vec(&(&job.token_ids, &job.prompt, &job.record))?);
    }
    Ok(hex::encode(hash.finalize()))
}

fn stop_rules(prompts: &[Job]) -> Result<String> {
    let rules: Option<&StopRules> = prompts.first().map(|job| &job.stop);
    Ok(serde_json::to_string(&rules)?)
}

/// With heads by their weights: a folder may be moved, and not trained anew.
fn reward(spec: &RewardSpec, heads_sha256: &[String]) -> String {
    let replace = |text: String, (folder, sha256): (&str, &String)| {
        text.replace(&format!("head:{folder}"), &format!("head:{sha256}"))
    };
    spec.head_folders()
        .zip(heads_sha256)
        .fold(spec.to_string(), replace)
}

/// With a table by its content.
fn transform_text(transform: &Transform) -> String {
    match transform {
        Transform::Table(NamedTable {
            table: Some(table), ..
        }) => {
            let points = format!("{:?} {:?}", table.levels(), table.values());
            format!("table:{}", hex::encode(Sha256::digest(points)))
        }
        other => other.to_string(),
    }
}
