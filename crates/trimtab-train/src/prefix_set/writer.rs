//! Writing a prefix set shard by shard, and going on after a kill. Knows the folder, not where responses come from.

use std::fs;
use std::path::{Path, PathBuf};

use super::{
    MANIFEST_NAME, Manifest, PREFIX_SET_VERSION, PrefixSet, PrefixSetHeader, ResponseFeatures, Shard,
    ShardEntry,
};
use crate::error::TrainError;
use crate::files::{create_dir, sha256_hex, write_atomic};

/// A shard is written once its states take this much.
const SHARD_BYTES: u64 = 64 << 20;

/// Appends responses to a prefix set.
#[derive(Debug)]
pub struct PrefixSetWriter {
    dir: PathBuf,
    manifest: Manifest,
    pending: Shard,
    shard_bytes: u64,
}

impl PrefixSetWriter {
    /// Starts a set in `dir`, or goes on with the one that a killed writer left there.
    ///
    /// The caller skips [`Self::num_durable`] responses of its stream and pushes the rest in the same order.
    ///
    /// # Errors
    /// A set of another header in `dir`, a damaged manifest, or the file system's.
    pub fn create(dir: &Path, header: PrefixSetHeader) -> Result<Self, TrainError> {
        create_dir(dir)?;
        let mut manifest = Manifest {
            format_version: PREFIX_SET_VERSION,
            complete: false,
            header,
            shards: Vec::new(),
        };
        if dir.join(MANIFEST_NAME).exists() {
            let there = Manifest::read(dir)?;
            manifest.header.expect_equal(&there.header, dir)?;
            manifest = there;
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest,
            pending: Shard::new(),
            shard_bytes: SHARD_BYTES,
        })
    }

    /// The same with another shard size in bytes of decoded states, for tests and small memories.
    #[must_use]
    pub fn with_shard_bytes(mut self, shard_bytes: u64) -> Self {
        self.shard_bytes = shard_bytes.max(1);
        self
    }

    /// Responses in whole shards: these survive a kill and must not be pushed again.
    pub fn num_durable(&self) -> u64 {
        self.manifest.shards.iter().map(|shard| shard.num_responses).sum()
    }

    /// Whether an earlier writer finished this set; nothing is left to push.
    pub fn is_complete(&self) -> bool {
        self.manifest.complete
    }

    /// Adds a response.
    ///
    /// # Errors
    /// Lengths that do not fit the header, values that are not finite in f16, or the file system's.
    pub fn push(&mut self, response: &ResponseFeatures) -> Result<(), TrainError> {
        if let Some(problem) = self.manifest.header.problem_of(response) {
            let response_idx = self.num_durable() + self.pending.num_responses() as u64;
            return Err(TrainError::BadResponse {
                response_idx,
                problem,
            });
        }
        self.pending.push(response);
        if self.pending.num_bytes() >= self.shard_bytes {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is pending, marks the set as whole and opens it.
    ///
    /// # Errors
    /// A set without responses, or the file system's.
    pub fn finish(mut self) -> Result<PrefixSet, TrainError> {
        if self.pending.num_responses() > 0 {
            self.flush()?;
        }
        if self.manifest.shards.is_empty() {
            return Err(TrainError::BadData {
                problem: "a prefix set needs at least one response".to_owned(),
            });
        }
        self.manifest.complete = true;
        self.manifest.write(&self.dir)?;
        PrefixSet::open(&self.dir)
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        let file = format!("shard-{:05}.safetensors", self.manifest.shards.len());
        let path = self.dir.join(&file);
        let bytes = self.pending.to_bytes(&self.manifest.header, &path)?;
        write_atomic(&path, &bytes)?;
        self.manifest.shards.push(ShardEntry {
            file,
            sha256: sha256_hex(&bytes),
            num_bytes: bytes.len() as u64,
            num_responses: self.pending.num_responses() as u64,
            num_prefixes: self.pending.num_prefixes() as u64,
        });
        self.manifest.write(&self.dir)?;
        self.pending = Shard::new();
        Ok(())
    }
}

impl Manifest {
    pub(super) fn read(dir: &Path) -> Result<Self, TrainError> {
        let path = dir.join(MANIFEST_NAME);
        let text = fs::read_to_string(&path).map_err(|error| TrainError::io("read", &path, error))?;
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| TrainError::bad_file(&path, error.to_string()))?;
        if manifest.format_version != PREFIX_SET_VERSION {
            let problem = format!(
                "format version {}, expected {PREFIX_SET_VERSION}: extract the prefixes again",
                manifest.format_version
            );
            return Err(TrainError::bad_file(&path, problem));
        }
        Ok(manifest)
    }

    fn write(&self, dir: &Path) -> Result<(), TrainError> {
        let path = dir.join(MANIFEST_NAME);
        let text = serde_json::to_string_pretty(self).expect("a manifest has string keys and finite numbers");
        write_atomic(&path, text.as_bytes())
    }
}

impl PrefixSetHeader {
    /// Refuses a set made from other inputs, naming the first that differs.
    ///
    /// # Errors
    /// [`TrainError::Mismatch`].
    pub fn expect_equal(&self, there: &Self, path: &Path) -> Result<(), TrainError> {
        let fields = [
            ("base model", &there.base_name, &self.base_name),
            ("base model's hash", &there.base_sha256, &self.base_sha256),
            ("precision", &there.precision, &self.precision),
            (
                "token features' hash",
                &there.features_sha256,
                &self.features_sha256,
            ),
            ("rollouts' hash", &there.rollouts_sha256, &self.rollouts_sha256),
            ("reward", &there.reward, &self.reward),
            ("reward unit", &there.reward_unit, &self.reward_unit),
        ];
        let lens = |header: &Self| format!("{:?}", (header.hidden_len, header.vocab_len, header.feature_len));
        let differing = fields.iter().find(|(_, there, here)| there != here);
        let (what, there, here) = match differing {
            Some((what, there, here)) => (*what, (*there).clone(), (*here).clone()),
            None if lens(there) != lens(self) => {
                ("(hidden, vocabulary, feature) length", lens(there), lens(self))
            }
            None => return Ok(()),
        };
        Err(TrainError::Mismatch {
            path: path.to_path_buf(),
            what,
            there,
            here,
        })
    }

    /// What keeps `response` out of a set with this header.
    fn problem_of(&self, response: &ResponseFeatures) -> Option<String> {
        let prefixes = response.num_prefixes();
        let lens = [
            ("hidden", response.hidden.len(), prefixes * self.hidden_len),
            (
                "expected_features",
                response.expected_features.len(),
                prefixes * self.feature_len,
            ),
        ];
        if let Some((name, got, expected)) = lens.iter().find(|(_, got, expected)| got != expected) {
            return Some(format!("{name} has {got} values, expected {expected}"));
        }
        if !response.reward.is_finite() {
            return Some(format!("reward is {}, expected a finite number", response.reward));
        }
        if let Some(token) = response
            .token_ids
            .iter()
            .find(|&&token| token as usize >= self.vocab_len)
        {
            return Some(format!(
                "token {token} is outside the vocabulary of {}",
                self.vocab_len
            ));
        }
        // f16 ends at 65504; a state beyond it would become infinite in the file.
        let bad = |&&value: &&f32| !value.is_finite() || value.abs() > 65504.0;
        if let Some(value) = response.hidden.iter().find(bad) {
            return Some(format!(
                "hidden state has {value}, expected a number within +-65504"
            ));
        }
        let value = response
            .expected_features
            .iter()
            .find(|value| !value.is_finite())?;
        Some(format!("expected_features has {value}, expected a finite number"))
    }
}
