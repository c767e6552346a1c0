//! Files that appear whole or not at all, and their hashes. Knows no format.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::TrainError;

/// Writes `bytes` beside `path` and renames them into place, so that a kill leaves the old file or the new one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    write_atomic_by(path, |temporary| {
        let written = fs::File::create(temporary).and_then(|mut file| file.write_all(bytes));
        written.map_err(|error| TrainError::io("write", path, error))
    })
}

/// As [`write_atomic`], for what is not in memory as bytes: `write` makes the file that it is told.
pub(crate) fn write_atomic_by(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    write(temporary)?;
    let keep = || {
        fs::File::open(temporary)?.sync_all()?;
        fs::rename(temporary, path)
    };
    keep().map_err(|error| TrainError::io("write", path, error))
}

pub(crate) fn create_dir(path: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(path).map_err(|error| TrainError::io("create", path, error))
}

/// SHA-256 in lower-case hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
