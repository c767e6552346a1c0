//! A folder of scored responses, read as calibration: the samples of one prompt after the other. Knows no model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use trimtab_data::{Manifest, RewardColumn, Rollout, RolloutReader};
use trimtab_infalign::ReferenceQuantiles;

/// A finished folder and the reward that it calibrates.
#[derive(Debug, Clone)]
pub(crate) struct CalibrationFolder {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) column: RewardColumn,
}

/// All samples of one prompt.
#[derive(Debug)]
pub(crate) struct PromptSamples {
    /// At least one.
    pub(crate) rows: Vec<Rollout>,
    /// Of the samples, in their order.
    pub(crate) rewards: Vec<f64>,
    pub(crate) quantiles: ReferenceQuantiles,
}

impl CalibrationFolder {
    /// Opens a folder that `calibrate` or `rollout` left.
    ///
    /// # Errors
    /// A folder that is not finished, or lacks the reward; one of several rewards without a `reward` that says which.
    pub(crate) fn open(path: &Path, reward: Option<&str>) -> Result<Self> {
        let reader = RolloutReader::open(path)?;
        let Some(manifest) = reader.manifest().cloned() else {
            bail!(
                "{} is a file, expected the folder that calibrate left",
                path.display()
            );
        };
        let named = |name: &str| manifest.rewards.iter().find(|column| column.name == name);
        let known = || {
            let names = manifest.rewards.iter().map(|column| column.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let column = match (reward, manifest.rewards.as_slice()) {
            (Some(name), _) => named(name)
                .with_context(|| format!("{} has no reward {name:?}, only: {}", path.display(), known()))?,
            (None, [only]) => only,
            (None, []) => bail!(
                "{} has no rewards; score it with trimtab calibrate --reward",
                path.display()
            ),
            (None, _) => bail!(
                "{} has several rewards ({}); say which with --reward",
                path.display(),
                known()
            ),
        };
        Ok(Self {
            path: path.to_owned(),
            column: column.clone(),
            manifest,
        })
    }

    /// The prompts in order, the samples of one in memory at a time.
    pub(crate) fn prompts(&self) -> Result<impl Iterator<Item = Result<PromptSamples>> + use<>> {
        let mut rows = RolloutReader::open(&self.path)?.peekable();
        let name = self.column.name.clone();
        let mut next_group = move || -> Result<Option<PromptSamples>> {
            let mut group: Vec<Rollout> = Vec::new();
            while let Some(row) = rows.next_if(|row| {
                let is_same =
                    |row: &Rollout| group.last().is_none_or(|last| last.prompt_idx == row.prompt_idx);
                row.as_ref().map_or(true, is_same)
            }) {
                group.push(row?);
            }
            (!group.is_empty())
                .then(|| PromptSamples::of(group, &name))
                .transpose()
        };
        Ok(std::iter::from_fn(move || next_group().transpose()))
    }
}

impl PromptSamples {
    fn of(rows: Vec<Rollout>, reward: &str) -> Result<Self> {
        let rewards: Vec<f64> = rows
            .iter()
            .map(|row| {
                let value = row.rewards.get(reward).copied();
                value.with_context(|| {
                    format!(
                        "prompt {}, response {} has no reward {reward}",
                        row.prompt_idx + 1,
                        row.sample_idx + 1
                    )
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            quantiles: ReferenceQuantiles::new(&rewards)?,
            rows,
            rewards,
        })
    }

    /// The prompt's text as the user wrote it.
    pub(crate) fn prompt(&self) -> &str {
        self.rows.first().map_or("", |row| &row.prompt)
    }

    /// Calibrated reward of each sample among the others, unbiased; with `interpolated`, by lines between them.
    ///
    /// # Errors
    /// A single sample, of which there is nothing to say.
    pub(crate) fn calibrated_left_out(&self, interpolated: bool) -> Result<Vec<f64>> {
        let among_others = |place: usize| -> Result<f64> {
            let reward = self.rewards[place];
            if interpolated && self.rewards.len() > 1 {
                let mut others = self.rewards.clone();
                others.remove(place);
                return Ok(ReferenceQuantiles::new(&others)?.interpolated(reward));
            }
            self.quantiles.calibrated_left_out(reward).with_context(|| {
                format!(
                    "prompt {} has one sample, and a calibrated reward is a sample's place among the others of its \
                     prompt; draw more in another folder: trimtab calibrate --per-prompt 100",
                    self.rows.first().map_or(0, |row| row.prompt_idx) + 1
                )
            })
        };
        (0..self.rewards.len()).map(among_others).collect()
    }
}
