//! A checkpoint: weights, optimiser moments and counters in one safetensors file, so that it is whole or absent.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::TensorData;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::params_of;
use crate::error::TrainError;
use crate::events::Metrics;
use crate::files::{create_dir, write_atomic_by};

/// The one entry of the file's metadata.
const META_KEY: &str = "trimtab";

/// Files of a run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointNames {
    /// Where a run goes on; there from its beginning.
    pub last: PathBuf,
    /// The best weights so far.
    pub best: PathBuf,
    /// The weights before the last update of an on-policy run that went wrong: the last that were good.
    pub good: PathBuf,
    /// Folder of weights that were kept on the way.
    kept: PathBuf,
}

impl CheckpointNames {
    /// The names below a run folder.
    pub fn in_folder(path: &Path) -> Self {
        let folder = path.join("checkpoints");
        Self {
            last: folder.join("last.safetensors"),
            best: folder.join("best.safetensors"),
            good: folder.join("good.safetensors"),
            kept: folder.join("kept"),
        }
    }

    /// Weights that were kept under `name`.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.kept.join(format!("{name}.safetensors"))
    }

    /// Names of kept weights, in order.
    ///
    /// # Errors
    /// The file system's.
    pub fn kept_names(&self) -> Result<Vec<String>, TrainError> {
        let at = |error| TrainError::io("read", &self.kept, error);
        let entries = match fs::read_dir(&self.kept) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(at)?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".safetensors"));
            names.extend(name.map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Removes weights that were kept after `step`, or all of them; names the others.
    pub(super) fn forget_kept_after(&self, step: Option<u64>) -> Result<Vec<String>, TrainError> {
        let mut names = self.kept_names()?;
        let mut of_the_past = Vec::with_capacity(names.len());
        for name in names.drain(..) {
            let path = self.kept(&name);
            if step.is_some_and(|step| Checkpoint::read(&path).is_ok_and(|kept| kept.step <= step)) {
                of_the_past.push(name);
            } else {
                fs::remove_file(&path).map_err(|error| TrainError::io("remove", &path, error))?;
            }
        }
        Ok(of_the_past)
    }
}

/// Everything a run needs to go on.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Optimiser steps done.
    pub step: u64,
    /// Step of the best evaluation.
    pub best_step: Option<u64>,
    /// Numbers of that evaluation.
    pub metrics: Metrics,
    /// Why the run ended here, before its last step.
    pub stopped: Option<String>,
    /// The last of every number that a step or an evaluation gave.
    pub last: Metrics,
    /// Numbers of past steps that the objective remembers.
    pub memory: Vec<f64>,
    /// The module's weights by path.
    pub weights: BTreeMap<String, TensorData>,
    /// The optimiser's moments.
    pub moments: BTreeMap<String, TensorData>,
    /// Weights of an objective's second module.
    pub companion: BTreeMap<String, TensorData>,
    /// On-policy, while the run goes on: the weights before the last update, which are good where `weights` turn out not to be.
    pub previous: BTreeMap<String, TensorData>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    step: u64,
    best_step: Option<u64>,
    /// As text: a number read from JSON need not be the one that was written, to the last bit.
    metrics: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    last: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    memory: Vec<String>,
}

impl Meta {
    fn of(checkpoint: &Checkpoint) -> Self {
        let texts = |metrics: &Metrics| {
            let text = |(name, value): (&String, &f64)| (name.clone(), value.to_string());
            metrics.iter().map(text).collect()
        };
        Self {
            step: checkpoint.step,
            best_step: checkpoint.best_step,
            metrics: texts(&checkpoint.metrics),
            stopped: checkpoint.stopped.clone(),
            last: texts(&checkpoint.last),
            memory: checkpoint.memory.iter().map(f64::to_string).collect(),
        }
    }

    /// Counters and numbers, without tensors; none if a number is none.
    fn checkpoint(self) -> Option<Checkpoint> {
        let numbers = |texts: &BTreeMap<String, String>| -> Option<Metrics> {
            let number = |(name, text): (&String, &String)| Some((name.clone(), text.parse().ok()?));
            texts.iter().map(number).collect()
        };
        Some(Checkpoint {
            step: self.step,
            best_step: self.best_step,
            metrics: numbers(&self.metrics)?,
            last: numbers(&self.last)?,
            memory: self
                .memory
                .iter()
                .map(|text| text.parse().ok())
                .collect::<Option<_>>()?,
            stopped: self.stopped,
            ..Checkpoint::default()
        })
    }
}

impl Checkpoint {
    /// A checkpoint of weights alone.
    pub fn of_weights<M: Module>(module: &M, step: u64, metrics: &Metrics) -> Self {
        Self {
            step,
            best_step: Some(step),
            metrics: metrics.clone(),
            weights: params_of(module),
            ..Self::default()
        }
    }

    /// Writes the file under a temporary name and renames it.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let meta = serde_json::to_string(&Meta::of(self)).expect("counters and texts have a JSON form");
        let groups = self.groups();
        let named = groups.iter().flat_map(|(prefix, tensors)| {
            tensors
                .iter()
                .map(move |(name, data)| (format!("{prefix}/{name}"), data))
        });
        let views = named.map(|(name, data)| {
            TensorView::new(Dtype::F32, data.shape().as_slice().to_vec(), data.as_bytes())
                .map(|view| (name, view))
        });
        let bad = |error: SafeTensorError| TrainError::bad_file(path, error.to_string());
        let views = views.collect::<Result<Vec<_>, _>>().map_err(bad)?;
        let meta = Some(HashMap::from([(META_KEY.to_owned(), meta)]));
        if let Some(folder) = path.parent() {
            create_dir(folder)?;
        }
        // Tensor by tensor: a second copy of weights and moments in memory would be a step's peak.
        write_atomic_by(path, |temporary| {
            safetensors::serialize_to_file(views, meta, temporary).map_err(bad)
        })
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// A file that is missing, damaged or not a checkpoint.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let bytes = fs::read(path).map_err(|error| TrainError::io("read", path, error))?;
        let bad =
            |problem: String| TrainError::bad_file(path, format!("{problem}; remove it to start again"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| bad(error.to_string()))?;
        let meta = header
            .metadata()
            .as_ref()
            .and_then(|entries| entries.get(META_KEY));
        let meta = meta.ok_or_else(|| bad("not a checkpoint of a training run".to_owned()))?;
        let meta: Meta = serde_json::from_str(meta).map_err(|error| bad(error.to_string()))?;
        let mut checkpoint = meta
            .checkpoint()
            .ok_or_else(|| bad("a metric is not a number".to_owned()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| bad(error.to_string()))?;
        for (name, view) in tensors.tensors() {
            let (group, path) = name.split_once('/').unwrap_or_default();
            let target = match group {
                "weights" => &mut checkpoint.weights,
                "moments" => &mut checkpoint.moments,
                "companion" => &mut checkpoint.companion,
                "previous" => &mut checkpoint.previous,
                _ => return Err(bad(format!("tensor {name} is not of a checkpoint"))),
            };
            if view.dtype() != Dtype::F32 {
                return Err(bad(format!("tensor {name} is {:?}, expected F32", view.dtype())));
            }
            let values: Vec<f32> = view
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|raw| f32::from_le_bytes(*raw))
                .collect();
            target.insert(path.to_owned(), TensorData::new(values, view.shape().to_vec()));
        }
        Ok(checkpoint)
    }

    fn groups(&self) -> [(&'static str, &BTreeMap<String, TensorData>); 4] {
        [
            ("weights", &self.weights),
            ("moments", &self.moments),
            ("companion", &self.companion),
            ("previous", &self.previous),
        ]
    }
}
