//! What a rollout folder says about itself: shards with their hashes, rewards, and the run that wrote it. Knows no
//! rollouts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::DataError;
use crate::error::shown;
use crate::files::{sha256_of, write_whole};
use crate::schema::SCHEMA_VERSION;

/// Name of the manifest in a rollout folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// What makes two runs one: everything that their rollouts depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIdentity {
    /// SHA-256 of the weights that sampled or tokenised, in hexadecimal.
    pub model_sha256: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Every other setting that results depend on, by name; prompts by their hash.
    pub config: BTreeMap<String, Value>,
}

impl RunIdentity {
    /// SHA-256 of the settings, in hexadecimal.
    pub fn config_sha256(&self) -> String {
        let json = serde_json::to_vec(&self.config).expect("maps of JSON values are JSON");
        sha256_of(&json)
    }

    /// How `theirs` differs, part by part, each with both values; empty if both are of one run.
    pub fn differences(&self, theirs: &Self) -> Vec<String> {
        let differing = |what: &str, theirs: &str, ours: &str| format!("{what}: {theirs} there, {ours} here");
        let start = |sha256: &str| sha256.chars().take(12).collect::<String>();
        let mut differences = Vec::new();
        if self.model_sha256 != theirs.model_sha256 {
            let (theirs, ours) = (start(&theirs.model_sha256), start(&self.model_sha256));
            differences.push(differing("weights", &theirs, &ours));
        }
        if self.seed != theirs.seed {
            differences.push(differing(
                "seed",
                &theirs.seed.to_string(),
                &self.seed.to_string(),
            ));
        }
        let value = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), shown);
        let names: BTreeSet<&String> = self.config.keys().chain(theirs.config.keys()).collect();
        for name in names {
            let (theirs, ours) = (theirs.config.get(name), self.config.get(name));
            if theirs != ours {
                differences.push(differing(name, &value(theirs), &value(ours)));
            }
        }
        differences
    }
}

/// A column of rewards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardColumn {
    /// Name as the user wrote it.
    pub name: String,
    /// Unit of the values.
    pub unit: String,
}

/// A Parquet file of a rollout folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Name in the folder.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Rows in it.
    pub num_rows: u64,
    /// Prompts in it.
    pub num_prompts: u64,
}

/// `manifest.json` of a rollout folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Form of the shards, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Whether every row is there.
    pub complete: bool,
    /// The run that wrote it.
    pub identity: RunIdentity,
    /// Columns of rewards, in the order of the columns.
    pub rewards: Vec<RewardColumn>,
    /// The shards, in the order of the prompts.
    pub shards: Vec<Shard>,
}

impl Manifest {
    /// The manifest of a run that has no rows yet.
    pub(crate) fn new(identity: RunIdentity, rewards: Vec<RewardColumn>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            complete: false,
            identity,
            rewards,
            shards: Vec::new(),
        }
    }

    /// Reads the manifest of a folder; `None` if it has none.
    ///
    /// # Errors
    /// A manifest that cannot be read, or of another schema version.
    pub fn open(folder: &Path) -> Result<Option<Self>, DataError> {
        let path = manifest_path(folder);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(DataError::io("read", &path)(error)),
        };
        let damaged = |problem: String| DataError::Damaged {
            path: path.clone(),
            problem,
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if value["schema_version"] != SCHEMA_VERSION {
            return Err(damaged(format!(
                "expected schema_version {SCHEMA_VERSION}, got {}",
                shown(&value["schema_version"])
            )));
        }
        let manifest: Self = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        match manifest.shards.iter().find(|shard| !is_plain_name(&shard.file)) {
            Some(shard) => Err(damaged(format!(
                "shard {:?} is no file of this folder",
                shard.file
            ))),
            None => Ok(Some(manifest)),
        }
    }

    /// Writes it into a folder, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), DataError> {
        let mut json = serde_json::to_string_pretty(self).expect("a manifest is JSON");
        json.push('\n');
        write_whole(&manifest_path(folder), json.as_bytes())
    }

    /// Rows in all shards.
    pub fn num_rows(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.num_rows)
            .fold(0, u64::saturating_add)
    }

    /// Prompts in all shards.
    pub fn num_prompts(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.num_prompts)
            .fold(0, u64::saturating_add)
    }

    /// Name of the data by its content: SHA-256 over the lines `<sha256>\n` of the shards in order, in hexadecimal.
    pub fn content_sha256(&self) -> String {
        let lines = self.shards.iter().map(|shard| format!("{}\n", shard.sha256));
        sha256_of(lines.collect::<Vec<_>>().concat().as_bytes())
    }
}

fn manifest_path(folder: &Path) -> PathBuf {
    folder.join(MANIFEST_FILE)
}

fn is_plain_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}
