//! A run folder: `config.toml`, `run.json`, `metrics.jsonl` and scalars for `TensorBoard`. Knows no objective.
//!
//! The metrics are a function of the run: a run that goes on first forgets what was logged after its checkpoint, so
//! that the files of a killed run end as those of an uninterrupted one.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::events::Metrics;
use crate::files::{create_dir, sha256_hex, write_atomic};
use crate::tensorboard;

/// The library whose arithmetic makes the weights.
const TENSOR_LIBRARY: &str = "burn 0.22";

const CONFIG_NAME: &str = "config.toml";
const FACTS_NAME: &str = "run.json";
const METRICS_NAME: &str = "metrics.jsonl";
const EVENTS_NAME: &str = "events.out.tfevents.0.trimtab";

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

    /// Whether a run has been opened in the folder.
    pub fn is_begun(&self) -> bool {
        self.path.join(FACTS_NAME).exists()
    }

    /// Creates the folder with its configuration, or enters the one of the same run.
    ///
    /// # Errors
    /// A folder of another configuration or other data, or the file system's.
    pub fn open<C: Serialize>(
        &self,
        kind: &str,
        config: &C,
        data_sha256: &str,
        seed: u64,
    ) -> Result<RunFolder, TrainError> {
        create_dir(&self.path)?;
        let config = toml::to_string_pretty(config)
            .map_err(|error| TrainError::bad_file(&self.path.join(CONFIG_NAME), error.to_string()))?;
        let facts = RunFacts {
            kind: kind.to_owned(),
            seed,
            source_revision: self.source_revision.clone(),
            tensor_library: TENSOR_LIBRARY.to_owned(),
            config_sha256: sha256_hex(config.as_bytes()),
            data_sha256: data_sha256.to_owned(),
        };
        let path = self.path.join(FACTS_NAME);
        if path.exists() {
            RunFacts::read(&path)?.expect_same_run(&facts, &self.path)?;
        } else {
            write_atomic(&self.path.join(CONFIG_NAME), config.as_bytes())?;
            let text = serde_json::to_string_pretty(&facts).expect("strings and numbers have a JSON form");
            write_atomic(&path, text.as_bytes())?;
        }
        Ok(RunFolder {
            path: self.path.clone(),
            logs: None,
        })
    }
}

/// `run.json`: what besides the configuration made the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFacts {
    /// What was trained, e.g. "cd-q".
    pub kind: String,
    /// The configuration's seed.
    pub seed: u64,
    /// Version or commit of the program.
    pub source_revision: String,
    /// Library and version whose arithmetic was used.
    pub tensor_library: String,
    /// Hash of `config.toml`.
    pub config_sha256: String,
    /// Hash of the data's content.
    pub data_sha256: String,
}

impl RunFacts {
    fn read(path: &Path) -> Result<Self, TrainError> {
        let text = fs::read_to_string(path).map_err(|error| TrainError::io("read", path, error))?;
        serde_json::from_str(&text).map_err(|error| TrainError::bad_file(path, error.to_string()))
    }

    fn expect_same_run(&self, here: &Self, path: &Path) -> Result<(), TrainError> {
        let fields = [
            ("objective", &self.kind, &here.kind),
            ("data", &self.data_sha256, &here.data_sha256),
            ("configuration", &self.config_sha256, &here.config_sha256),
        ];
        match fields.iter().find(|(_, there, here)| there != here) {
            None => Ok(()),
            Some((what, there, here)) => Err(TrainError::Mismatch {
                path: path.to_path_buf(),
                what,
                there: (*there).clone(),
                here: (*here).clone(),
            }),
        }
    }
}

/// An opened run folder.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    logs: Option<Logs>,
}

#[derive(Debug)]
struct Logs {
    metrics: BufWriter<File>,
    events: BufWriter<File>,
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
struct MetricsLine {
    step: u64,
    kind: String,
    #[serde(flatten)]
    metrics: Metrics,
}

impl MetricsLine {
    fn events(&self) -> Vec<u8> {
        let record = |(name, &value): (&String, &f64)| {
            tensorboard::scalar_record(self.step, &format!("{}/{name}", self.kind), value as f32)
        };
        self.metrics.iter().flat_map(record).collect()
    }
}

impl RunFolder {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets every metric after `step` and opens the logs for more.
    ///
    /// # Errors
    /// The file system's.
    pub fn rewind_to(&mut self, step: u64) -> Result<(), TrainError> {
        let metrics = self.path.join(METRICS_NAME);
        let events = self.path.join(EVENTS_NAME);
        // Lines are kept as they are: numbers read and printed again need not be the same digits. A line that a kill has
        // torn is of a step after the checkpoint, which flushed the lines before it.
        let is_kept =
            |line: &&str| serde_json::from_str::<MetricsLine>(line).is_ok_and(|line| line.step <= step);
        let text = String::from_utf8_lossy(&read_or_empty(&metrics)?).into_owned();
        let kept: String = text.split_inclusive('\n').filter(is_kept).collect();
        write_atomic(&metrics, kept.as_bytes())?;
        let records = tensorboard::records_until(&read_or_empty(&events)?, step);
        write_atomic(&events, &records)?;
        self.logs = Some(Logs {
            metrics: append(&metrics)?,
            events: append(&events)?,
        });
        Ok(())
    }

    /// Adds one line to `metrics.jsonl` and its scalars to the events.
    ///
    /// # Errors
    /// The file system's.
    pub fn log(&mut self, step: u64, kind: &str, metrics: &Metrics) -> Result<(), TrainError> {
        if self.logs.is_none() {
            self.rewind_to(step)?;
        }
        let line = MetricsLine {
            step,
            kind: kind.to_owned(),
            metrics: metrics.clone(),
        };
        let logs = self.logs.as_mut().expect("the logs were just opened");
        let write = || {
            logs.metrics.write_all(line.to_json().as_bytes())?;
            logs.events.write_all(&line.events())
        };
        write_result(write, &self.path)
    }

    /// Hands everything logged to the operating system.
    ///
    /// # Errors
    /// The file system's.
    pub fn flush(&mut self) -> Result<(), TrainError> {
        let Some(logs) = self.logs.as_mut() else {
            return Ok(());
        };
        let write = || {
            logs.metrics.flush()?;
            logs.events.flush()
        };
        write_result(write, &self.path)
    }
}

impl MetricsLine {
    fn to_json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("names and numbers have a JSON form");
        text.push('\n');
        text
    }
}

fn write_result(write: impl FnOnce() -> std::io::Result<()>, folder: &Path) -> Result<(), TrainError> {
    write().map_err(|error| TrainError::io("write", &folder.join(METRICS_NAME), error))
}

fn read_or_empty(path: &Path) -> Result<Vec<u8>, TrainError> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(TrainError::io("read", path, error)),
    }
}

fn append(path: &Path) -> Result<BufWriter<File>, TrainError> {
    let file = File::options().append(true).open(path);
    file.map(BufWriter::new)
        .map_err(|error| TrainError::io("open", path, error))
}
