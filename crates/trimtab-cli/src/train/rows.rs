//! Rollouts as training reads them: checked in a first pass, so that nothing is computed for data that cannot be used.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use trimtab_base::{RewardModel, ScoreInput, TokenId};
use trimtab_data::{Rollout, RolloutReader, RowRange};

/// Some rows of rollouts with their rewards.
pub(super) struct Rows {
    path: PathBuf,
    range: RowRange,
    /// The reward's column; none if it has to be scored.
    column: Option<String>,
    /// How many there are.
    pub(super) len: u64,
    /// SHA-256 of tokens and texts, wherever the rows lie, in hexadecimal.
    pub(super) sha256: String,
    /// SHA-256 of the rewards in the column, in hexadecimal: one name may be given to other numbers.
    pub(super) rewards_sha256: Option<String>,
    /// Unit of the column, where the rollouts say it.
    pub(super) unit: Option<String>,
}

/// What rows must fit.
pub(super) struct Fits<'a> {
    /// The reward's name.
    pub(super) reward: &'a str,
    /// Hash of the model's weights.
    pub(super) model_sha256: &'a str,
    /// Longest sequence of the model.
    pub(super) context_len: usize,
}

impl Rows {
    /// Reads everything once.
    ///
    /// # Errors
    /// The first row that cannot be used: without tokens, longer than the context, without the reward that others have
    /// or with one that is no finite number; rollouts of another model.
    pub(super) fn scan(path: &Path, range: RowRange, fits: &Fits<'_>) -> Result<Self> {
        let place = path.display();
        let reader = RolloutReader::open_range(path, range)?;
        if let Some(manifest) = reader.manifest()
            && manifest.identity.model_sha256 != fits.model_sha256
        {
            bail!(
                "{place} has the tokens of another model (sha256 {}, this one has {}); tokenise its texts for this \
                 one: trimtab rollout --responses {place} --out DIR",
                manifest.identity.model_sha256,
                fits.model_sha256
            );
        }
        let unit = reader.manifest().and_then(|manifest| {
            let mut columns = manifest.rewards.iter();
            columns
                .find(|column| column.name == fits.reward)
                .map(|column| column.unit.clone())
        });
        let (mut len, mut has_reward) = (0, None);
        let (mut hasher, mut rewards) = (Sha256::new(), Sha256::new());
        for row in reader {
            let row = row?;
            let label = || format!("{place} row {}", range.skip + len + 1);
            check_row(&row, fits).with_context(label)?;
            let reward = row.rewards.get(fits.reward);
            if *has_reward.get_or_insert(reward.is_some()) != reward.is_some() {
                bail!(
                    "{}: reward {} is {}, unlike in the rows before; leave out the column, so that all are scored now",
                    label(),
                    fits.reward,
                    if reward.is_some() { "there" } else { "missing" }
                );
            }
            let content = (&row.prompt_token_ids, &row.response_token_ids, &row.response);
            hasher.update(serde_json::to_vec(&content).context("cannot serialise a rollout")?);
            if let Some(reward) = reward {
                rewards.update(reward.to_le_bytes());
            }
            len += 1;
        }
        if len == 0 {
            bail!("{place} has no rollouts after the first {}", range.skip);
        }
        let has_reward = has_reward == Some(true);
        Ok(Self {
            path: path.to_owned(),
            range,
            column: has_reward.then(|| fits.reward.to_owned()),
            rewards_sha256: has_reward.then(|| hex::encode(rewards.finalize())),
            len,
            sha256: hex::encode(hasher.finalize()),
            unit,
        })
    }

    /// Whether the rewards are there.
    pub(super) fn are_scored(&self) -> bool {
        self.column.is_some()
    }

    /// The rows from number `start` on.
    pub(super) fn read_from(&self, start: u64) -> Result<impl Iterator<Item = Result<Rollout>> + use<>> {
        let range = RowRange {
            skip: self.range.skip + start,
            limit: Some(self.len - start),
        };
        let rows = RolloutReader::open_range(&self.path, range)?;
        Ok(rows.map(|row| Ok(row?)))
    }

    /// Rewards of some of the rows, of which `start` is the number of the first.
    ///
    /// # Errors
    /// A reward that fails or is no finite number, with its row.
    pub(super) fn rewards(&self, start: u64, rows: &[Rollout], reward: &dyn RewardModel) -> Result<Vec<f64>> {
        let place = self.path.display();
        let number = |idx: usize| self.range.skip + start + idx as u64 + 1;
        if let Some(column) = &self.column {
            return Ok(rows.iter().map(|row| row.rewards[column]).collect());
        }
        let inputs: Vec<ScoreInput> = rows.iter().map(score_input).collect();
        let rewards = reward
            .score(&inputs)
            .with_context(|| format!("scoring {place} from row {} on", number(0)))?;
        if rewards.len() != rows.len() {
            bail!(
                "reward {}: expected {} rewards, got {}",
                reward.name(),
                rows.len(),
                rewards.len()
            );
        }
        match rewards.iter().position(|reward| !reward.is_finite()) {
            None => Ok(rewards),
            Some(idx) => bail!(
                "{place} row {}: reward {} is {}, expected a finite number; leave the row out, or take another reward",
                number(idx),
                reward.name(),
                rewards[idx]
            ),
        }
    }
}

fn check_row(row: &Rollout, fits: &Fits<'_>) -> Result<()> {
    let (prompt, response) = (row.prompt_token_ids.len(), row.response_token_ids.len());
    if prompt == 0 || response == 0 {
        bail!(
            "a prompt of {prompt} tokens and a response of {response}, expected at least one each; tokenise texts with \
             trimtab rollout --responses"
        );
    }
    if prompt + response > fits.context_len {
        bail!(
            "a prompt of {prompt} tokens and a response of {response} exceed the model's context of {}; leave the row \
             out, or draw with fewer new tokens",
            fits.context_len
        );
    }
    match row.rewards.get(fits.reward) {
        Some(reward) if !reward.is_finite() => bail!(
            "reward {} is {reward}, expected a finite number; leave the row out, or score it again",
            fits.reward
        ),
        _ => Ok(()),
    }
}

fn score_input(row: &Rollout) -> ScoreInput {
    ScoreInput {
        prompt: row.prompt.clone(),
        response: row.response.clone(),
        token_ids: row.response_token_ids.iter().map(|&id| TokenId(id)).collect(),
        reference_log_prob: row.reference_log_prob.unwrap_or(f64::NAN),
        record: row.record.clone(),
    }
}
