//! Files that appear whole, their hashes, and the lock of a folder. Knows no content.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::DataError;

/// Writes a file under a temporary name and renames it, so that it is never seen in part.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let part = part_path(path);
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(DataError::io("write", &part))?;
    std::fs::rename(&part, path).map_err(DataError::io("write", path))
}

/// The name under which `path` is written.
pub(crate) fn part_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// SHA-256 of a file in hexadecimal, read once as a stream.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, DataError> {
    let hash = || {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 18];
        let mut hasher = Sha256::new();
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex::encode(hasher.finalize())),
                len => hasher.update(&buffer[..len]),
            }
        }
    };
    hash().map_err(DataError::io("read", path))
}

/// SHA-256 of some bytes in hexadecimal.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Keeps other processes from writing a folder until the lock is dropped, which the end of the process does too.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _folder: Option<File>,
}

impl FolderLock {
    /// Locks a folder that exists.
    ///
    /// # Errors
    /// [`DataError::Busy`] if another process has it.
    pub(crate) fn take(folder: &Path) -> Result<Self, DataError> {
        // Where a folder cannot be opened as a file, or the file system keeps no locks, a run alone is still right.
        let Ok(file) = File::open(folder) else {
            return Ok(Self { _folder: None });
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _folder: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(DataError::Busy {
                path: folder.to_owned(),
            }),
            Err(TryLockError::Error(error))
                if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) =>
            {
                Ok(Self { _folder: None })
            }
            Err(TryLockError::Error(error)) => Err(DataError::io("lock", folder)(error)),
        }
    }
}
