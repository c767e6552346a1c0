//! Samples of one side, drawn, scored and resumed as rollouts are. Knows folders and rewards, no procedure.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trimtab_data::{Rollout, RolloutReader};

use super::settings::Settings;
use crate::args::{DrawArgs, RolloutArgs};
use crate::resolve::ReadyModel;
use crate::rollout::{self, Rewards};

/// Between the seeds of the two sides: their coins must be independent, or a policy that has not moved would tie.
const POLICY_SEED_STEP: u64 = 1 << 32;

/// Which side, for its coins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Reference,
    /// All policies draw with the same coins: their differences are less noisy.
    Policy,
}

impl Side {
    /// The seed of its samples in a run seeded with `seed`.
    pub(super) fn seed(self, seed: u64) -> u64 {
        match self {
            Self::Reference => seed,
            Self::Policy => seed.wrapping_add(POLICY_SEED_STEP),
        }
    }
}

/// The rewards of one prompt's samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PromptRewards {
    pub(super) prompt_token_ids: Vec<u32>,
    /// `[rewards][samples]`, the one that procedures choose by first.
    pub(super) rewards: Vec<Vec<f64>>,
    /// Mean tokens of a sample.
    pub(super) response_len: f64,
}

/// Draws what is missing in `folder`, and gives all its rewards.
pub(super) fn draw(
    settings: &Settings<'_>,
    (model, side): (&ReadyModel, Side),
    rewards: &Rewards,
    folder: &Path,
) -> Result<Vec<PromptRewards>> {
    let args = rollout_args(settings, (model, side), folder.to_owned());
    rollout::run_on(&args, model, rewards)?;
    let names: Vec<&str> = rewards
        .columns()
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let mut prompts = Vec::new();
    let mut group: Vec<Rollout> = Vec::new();
    for row in RolloutReader::open(folder)? {
        let row = row?;
        if group.last().is_some_and(|last| last.prompt_idx != row.prompt_idx) {
            prompts.push(of_prompt(&group, &names)?);
            group.clear();
        }
        group.push(row);
    }
    prompts.push(of_prompt(&group, &names)?);
    Ok(prompts)
}

fn of_prompt(rows: &[Rollout], names: &[&str]) -> Result<PromptRewards> {
    let of = |name: &&str| {
        let values = rows.iter().map(|row| row.rewards.get(*name).copied());
        values
            .collect::<Option<Vec<f64>>>()
            .with_context(|| format!("a sample has no reward {name}"))
    };
    let num_tokens: usize = rows.iter().map(|row| row.response_token_ids.len()).sum();
    Ok(PromptRewards {
        prompt_token_ids: rows
            .first()
            .map_or_else(Vec::new, |row| row.prompt_token_ids.clone()),
        rewards: names.iter().map(of).collect::<Result<_>>()?,
        response_len: num_tokens as f64 / rows.len().max(1) as f64,
    })
}

/// The samples of one side as rollouts.
pub(super) fn rollout_args(
    settings: &Settings<'_>,
    (model, side): (&ReadyModel, Side),
    out: PathBuf,
) -> RolloutArgs {
    let args = settings.args;
    let rewards = std::iter::once(&settings.reward).chain(&args.judge);
    RolloutArgs {
        model: model.stored.name.clone(),
        prompts: settings.prompts.clone(),
        responses: None,
        draw: DrawArgs {
            seed: side.seed(settings.draw.seed),
            ..settings.draw.clone()
        },
        per_prompt: settings.per_prompt(side),
        decode: rollout::reference(),
        reward: rewards.cloned().collect(),
        out,
        rows_per_shard: rollout::ROWS_PER_SHARD,
        json: false,
        run: args.run.clone(),
    }
}
