//! Adds a column of rewards to rollouts that are there, once and offline. Knows no reward.

use std::path::{Path, PathBuf};

use crate::DataError;
use crate::manifest::{Manifest, RewardColumn};
use crate::rollout::Rollout;
use crate::rollout_reader::{RolloutReader, finished};
use crate::writer::{RolloutWriter, WriterConfig};

/// A column of rewards to add.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardTask {
    /// Finished rollout folder to read.
    pub source: PathBuf,
    /// Folder to write; it must not be there, and appears when it is whole.
    pub target: PathBuf,
    /// The column.
    pub column: RewardColumn,
    /// Most rows that are scored together; at least 1.
    pub batch_rows: usize,
}

/// Gives one reward per row of a batch.
pub type Score<'a, E> = dyn FnMut(&[Rollout]) -> Result<Vec<f64>, E> + 'a;

/// Copies a rollout folder with one more column of rewards: `score` gives one reward per row of a batch.
///
/// At most a batch and a shard are in memory. The shards are cut like those of the source. Nothing is left of a run
/// that failed.
///
/// # Errors
/// A source that is not finished, has a column of that name, or is damaged; a target that is there; a reward that is not
/// finite or is missing, with the row; whatever `score` returns.
pub fn add_rewards<E: From<DataError>>(task: &RewardTask, score: &mut Score<'_, E>) -> Result<Manifest, E> {
    let source = finished(&task.source)?;
    let config = config(task, source)?;
    if task.target.exists() {
        return Err(DataError::Exists {
            path: task.target.clone(),
        }
        .into());
    }
    let part = crate::files::part_path(&task.target);
    remove(&part)?;
    let written = copy(task, &part, config, score);
    if written.is_err() {
        // The first failure is what counts.
        let _ = remove(&part);
    }
    let manifest = written?;
    std::fs::rename(&part, &task.target).map_err(DataError::io("rename", &part))?;
    Ok(manifest)
}

fn remove(folder: &Path) -> Result<(), DataError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn config(task: &RewardTask, source: Manifest) -> Result<WriterConfig, DataError> {
    let Manifest {
        mut identity,
        mut rewards,
        shards,
        ..
    } = source;
    let name = &task.column.name;
    if rewards.iter().any(|column| column.name == *name) {
        return Err(DataError::RewardColumn {
            name: name.clone(),
            problem: format!("{} has it already", task.source.display()),
        });
    }
    identity
        .config
        .insert(format!("added_reward:{name}"), task.column.unit.clone().into());
    rewards.push(task.column.clone());
    // What the source was cut by; a source of one shard may say nothing else.
    let rows_per_shard = identity
        .config
        .get("rows_per_shard")
        .and_then(serde_json::Value::as_u64);
    let rows_per_shard = rows_per_shard.or_else(|| shards.first().map(|shard| shard.num_rows));
    Ok(WriterConfig {
        identity,
        rewards,
        rows_per_shard: usize::try_from(rows_per_shard.unwrap_or(1)).unwrap_or(usize::MAX),
    })
}

fn copy<E: From<DataError>>(
    task: &RewardTask,
    part: &Path,
    config: WriterConfig,
    score: &mut Score<'_, E>,
) -> Result<Manifest, E> {
    let mut writer = RolloutWriter::open(part, config)?;
    let mut rows = RolloutReader::open(&task.source)?;
    let mut prompt: Vec<Rollout> = Vec::new();
    let mut rows_before = 0;
    loop {
        let batch: Vec<Rollout> = rows
            .by_ref()
            .take(task.batch_rows.max(1))
            .collect::<Result<_, _>>()?;
        if batch.is_empty() {
            break;
        }
        let num_rows = batch.len();
        let rewards = score(&batch)?;
        for row in with_rewards(task, batch, &rewards, rows_before)? {
            if prompt
                .last()
                .is_some_and(|last| last.prompt_idx != row.prompt_idx)
            {
                writer.push(std::mem::take(&mut prompt))?;
            }
            prompt.push(row);
        }
        rows_before += num_rows as u64;
    }
    writer.push(prompt)?;
    Ok(writer.finish()?)
}

fn with_rewards(
    task: &RewardTask,
    mut batch: Vec<Rollout>,
    rewards: &[f64],
    rows_before: u64,
) -> Result<Vec<Rollout>, DataError> {
    let name = &task.column.name;
    let bad = |problem: String| DataError::RewardColumn {
        name: name.clone(),
        problem,
    };
    if rewards.len() != batch.len() {
        return Err(bad(format!(
            "expected {} rewards, got {}",
            batch.len(),
            rewards.len()
        )));
    }
    for (row, (rollout, &reward)) in (rows_before + 1..).zip(batch.iter_mut().zip(rewards)) {
        if !reward.is_finite() {
            return Err(bad(format!("row {row}: expected a finite number, got {reward}")));
        }
        rollout.rewards.insert(name.clone(), reward);
    }
    Ok(batch)
}
