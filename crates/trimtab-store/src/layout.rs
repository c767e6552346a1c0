//! The store's folder: which file lies where, and the lock of each model. Knows names, not contents.
//!
//! ```text
//! models/KEY/         a whole model: its files and manifest.json
//! partial/KEY/        one being fetched: .part files, whole/, work/
//! rejected/KEY/       files with a wrong hash, kept for a look
//! locks/KEY.lock      held while KEY is fetched or removed; empty, never deleted
//! local-hashes/       hashes of files outside the store, by path, size and time of change
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::part::Stage;
use crate::progress::{Event, Progress};

/// The paths below the root of a store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The sole right to change one model; it ends when this is dropped or the process dies.
#[derive(Debug)]
pub(crate) struct ModelLock {
    _file: File,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn models_dir(&self) -> PathBuf {
        self.root.join("models")
    }

    pub(crate) fn model_dir(&self, key: &str) -> PathBuf {
        self.models_dir().join(key)
    }

    pub(crate) fn stage(&self, key: &str) -> Stage {
        Stage {
            dir: self.root.join("partial").join(key),
            rejected_dir: self.root.join("rejected").join(key),
        }
    }

    pub(crate) fn local_hashes_dir(&self) -> PathBuf {
        self.root.join("local-hashes")
    }

    /// Waits until no other thread or process holds the lock of `key`; tells `progress` if it has to.
    pub(crate) fn lock(&self, key: &str, progress: &mut dyn Progress) -> Result<ModelLock, StoreError> {
        let dir = self.root.join("locks");
        create_dir(&dir)?;
        let path = dir.join(format!("{key}.lock"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.event(Event::Waiting { name: key });
                file.lock().map_err(StoreError::io("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
        }
        Ok(ModelLock { _file: file })
    }
}

pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(dir).map_err(StoreError::io("create folder", dir))
}

/// Removes a folder with all that is in it and gives the bytes that its files had; zero if there is none.
pub(crate) fn remove_dir(dir: &Path) -> Result<u64, StoreError> {
    let bytes = dir_bytes(dir);
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io("remove", dir)(error)),
        Ok(()) => Ok(bytes),
    }
}

/// The size of all files below `dir`. Files may vanish while it runs: they then count as nothing.
pub(crate) fn dir_bytes(dir: &Path) -> u64 {
    let Ok(entries) = dir.read_dir() else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| {
            if metadata.is_dir() {
                dir_bytes(&path)
            } else {
                metadata.len()
            }
        })
        .sum()
}
