//! Why training or a prefix set was refused. Knows nothing about how either works.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::device::TrainDevice;

/// Why a prefix set could not be written or read, or why a training run stopped.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The file system said no.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, e.g. "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file of ours is damaged or from another version.
    #[error("{path}: {problem}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A setting has a value that cannot be used.
    #[error("{field} = {got}: expected {expected}")]
    BadSetting {
        /// The setting as written in the configuration.
        field: &'static str,
        /// The value.
        got: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The place that tensors are to be computed in is not there.
    #[error("device {device}: {problem}")]
    NoDevice {
        /// What was asked for.
        device: TrainDevice,
        /// What is missing and what to do.
        problem: String,
    },
    /// One response cannot enter a prefix set.
    #[error("response {response_idx}: {problem}")]
    BadResponse {
        /// Its place in the order of pushing.
        response_idx: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that exists was made from other inputs.
    #[error(
        "{path} was made with another {what} (there: {there}, here: {here}); choose another folder or remove it"
    )]
    Mismatch {
        /// The folder or file that exists.
        path: PathBuf,
        /// Which input differs.
        what: &'static str,
        /// Its value in the file.
        there: String,
        /// Its value now.
        here: String,
    },
    /// The data cannot train or judge what was asked for.
    #[error("{problem}")]
    BadData {
        /// What is missing and what to do.
        problem: String,
    },
    /// A decoder could not be loaded, run or written.
    #[error(transparent)]
    Decoder(#[from] crate::decoder::DecoderError),
    /// The loss or the gradient stopped being a number.
    #[error(
        "{what} is not finite at step {step} (batch {batch}): lower learning_rate or clip_norm, or look at the rewards of \
         that batch; the last good checkpoint is {good}"
    )]
    NotFinite {
        /// Loss or gradient norm.
        what: &'static str,
        /// Optimiser step, counted from 1.
        step: u64,
        /// Which data the batch held.
        batch: String,
        /// The checkpoint of the last good weights, or of those that the run began with.
        good: PathBuf,
    },
    /// The objective says that the run went wrong.
    #[error("stopped before step {step}: {cause}; the last good checkpoint is {good}")]
    Diverged {
        /// What went wrong and what to do.
        cause: String,
        /// Optimiser step, counted from 1.
        step: u64,
        /// The checkpoint of the last good weights, or of those that the run began with.
        good: PathBuf,
    },
    /// The caller asked to stop; the run can be resumed from its folder.
    #[error("stopped at step {step} as asked; run again with the same configuration to resume")]
    Stopped {
        /// Optimiser steps done.
        step: u64,
    },
}

impl TrainError {
    /// The checkpoint of the last good weights of a run that went wrong.
    pub fn last_good(&self) -> Option<&Path> {
        match self {
            Self::NotFinite { good, .. } | Self::Diverged { good, .. } => Some(good),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn bad_file(path: &Path, problem: impl Into<String>) -> Self {
        Self::BadFile {
            path: path.to_path_buf(),
            problem: problem.into(),
        }
    }
}
