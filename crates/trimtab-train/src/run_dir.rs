//! A run folder: `config.toml`, `run.json`, `metrics.jsonl` and scalars for `TensorBoard`. Knows no objective.

use std::path::{Path, PathBuf};

/// Where a run leaves its traces, and which source made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
    source_revision: String,
}

impl RunDir {
    /// A run in `path`, which is created; `source_revision` (version or commit) goes into `run.json`.
    pub fn new(path: impl Into<PathBuf>, source_revision: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            source_revision: source_revision.into(),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `run.json` says about the source.
    pub fn source_revision(&self) -> &str {
        &self.source_revision
    }
}
