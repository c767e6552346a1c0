//! Reading one named member of a package file as a stream. Nothing is ever unpacked by the names that an archive
//! carries, so a hostile member name has nowhere to act; members that are not regular files are refused.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::error::SourceError;

/// Opens `archive` (`.whl`: zip; `.tgz`: gzipped tar) and hands a stream of `member` and its size to `take`.
pub(crate) fn with_member<T>(
    archive: &Path,
    member: &str,
    take: impl FnOnce(&mut dyn Read, u64) -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    let file = File::open(archive).map_err(SourceError::io("open", archive))?;
    let bad = |reason: String| SourceError::BadArchive {
        archive: file_name(archive),
        reason,
    };
    if archive.extension().is_some_and(|ext| ext == "whl") {
        let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| bad(error.to_string()))?;
        let mut entry = zip
            .by_name(member)
            .map_err(|error| bad(format!("{member}: {error}")))?;
        if !entry.is_file() || entry.is_symlink() {
            return Err(bad(format!("{member} is not a regular file")));
        }
        let size_bytes = entry.size();
        return take(&mut entry, size_bytes);
    }
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    for entry in tar.entries().map_err(|error| bad(error.to_string()))? {
        let mut entry = entry.map_err(|error| bad(error.to_string()))?;
        if entry.path_bytes().as_ref() == member.as_bytes() {
            if !entry.header().entry_type().is_file() {
                return Err(bad(format!("{member} is not a regular file")));
            }
            let size_bytes = entry.size();
            return take(&mut entry, size_bytes);
        }
    }
    Err(bad(format!("it has no member {member}")))
}

/// The last component of a path, for messages.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
