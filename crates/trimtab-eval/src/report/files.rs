//! Files that appear only when whole. Knows bytes, not what they say.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::EvalError;

/// Writes beside `path` and renames, so that a reader, or a kill, never meets half a file.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), EvalError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let written = fs::File::create(beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(beside, path));
    written.map_err(|source| {
        // The error that matters is the first; a part that cannot be removed is overwritten next time.
        let _ = fs::remove_file(beside);
        EvalError::Write {
            path: path.to_owned(),
            source,
        }
    })
}
