//! Rewards of rollouts, as columns. Knows no model and no file.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use trimtab_base::{RewardError, RewardModel, ScoreInput, TokenId};
use trimtab_data::{RewardColumn, Rollout};
use trimtab_reward::{ExternalLimits, RewardSpec};

use crate::steering::{Models, before_models, build_reward};

/// Rewards, each with its column.
pub(crate) struct Rewards {
    columns: Vec<RewardColumn>,
    models: Vec<Box<dyn RewardModel>>,
}

impl Rewards {
    /// The rewards that were named, as far as they can be built without models: mistakes show before one is opened.
    pub(crate) fn check(specs: &[RewardSpec]) -> Result<()> {
        for (idx, spec) in specs.iter().enumerate() {
            before_models(spec, &ExternalLimits::default())?;
            if specs[..idx]
                .iter()
                .any(|other| other.to_string() == spec.to_string())
            {
                bail!("--reward {spec} is given twice");
            }
        }
        Ok(())
    }

    /// The rewards that were named. Heads read the states of the generator in `models`, or those of their own model.
    pub(crate) fn new(specs: &[RewardSpec], models: &Models<'_>) -> Result<Self> {
        Self::check(specs)?;
        let mut rewards = Self {
            columns: Vec::new(),
            models: Vec::new(),
        };
        for spec in specs {
            let model = build_reward(spec, &ExternalLimits::default(), models)?;
            rewards.columns.push(RewardColumn {
                name: spec.to_string(),
                unit: model.unit().to_owned(),
            });
            rewards.models.push(model);
        }
        Ok(rewards)
    }

    /// Their columns.
    pub(crate) fn columns(&self) -> &[RewardColumn] {
        &self.columns
    }

    /// Refuses a prompt whose record lacks what a reward reads.
    pub(super) fn check_record(&self, record: &Map<String, Value>, label: impl Fn() -> String) -> Result<()> {
        for model in &self.models {
            match model.check_record(record) {
                Ok(()) => {}
                Err(RewardError::MissingField { reward, field, .. }) => {
                    bail!("{}: no column {field:?}, which reward {reward} reads", label());
                }
                Err(other) => return Err(other).with_context(label),
            }
        }
        Ok(())
    }

    /// Adds every reward to every row.
    ///
    /// # Errors
    /// A reward that fails, or that is no finite number, with the row.
    pub(crate) fn score(&self, rows: &mut [Rollout]) -> Result<()> {
        if self.models.is_empty() || rows.is_empty() {
            return Ok(());
        }
        let inputs: Vec<ScoreInput> = rows.iter().map(input).collect();
        for (column, model) in self.columns.iter().zip(&self.models) {
            let name = &column.name;
            let rewards = model
                .score(&inputs)
                .with_context(|| match (rows.first(), rows.last()) {
                    (Some(first), Some(last)) => format!("scoring {} to {}", label(first), label(last)),
                    _ => "scoring".to_owned(),
                })?;
            if rewards.len() != rows.len() {
                bail!(
                    "reward {name}: expected {} rewards, got {}",
                    rows.len(),
                    rewards.len()
                );
            }
            for (row, reward) in rows.iter_mut().zip(rewards) {
                if !reward.is_finite() {
                    bail!(
                        "reward {name}: expected a finite number for {}, got {reward}",
                        label(row)
                    );
                }
                row.rewards.insert(name.clone(), reward);
            }
        }
        Ok(())
    }
}

/// What errors call a rollout.
pub(super) fn label(row: &Rollout) -> String {
    format!("prompt {}, response {}", row.prompt_idx + 1, row.sample_idx + 1)
}

fn input(row: &Rollout) -> ScoreInput {
    ScoreInput {
        prompt: row.prompt.clone(),
        response: row.response.clone(),
        token_ids: row.response_token_ids.iter().map(|&id| TokenId(id)).collect(),
        // Rewards that need it refuse what is not a number.
        reference_log_prob: row.reference_log_prob.unwrap_or(f64::NAN),
        record: row.record.clone(),
    }
}
