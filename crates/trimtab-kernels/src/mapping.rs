//! A read-only view of a file in memory.
//!
//! Weights are read once, in file order, and packed; mapping the file lets the system page them in and drop them
//! again, so that peak memory stays near the size of the packed weights. It does not know what the bytes mean.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

/// A file mapped read-only; dereferences to its bytes.
///
/// **Caveat.** The bytes are the file's own pages. If another process truncates the file while it is mapped, a
/// read past the new end raises `SIGBUS`; if it overwrites the file in place, the bytes change. Replace weight
/// files by renaming a new file over the old one, as download tools do, and neither can happen.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// # Errors
    /// The system's, when the file cannot be opened or mapped.
    #[allow(
        clippy::disallowed_methods,
        reason = "opening files to map is this module's one task"
    )]
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is private to this type and read-only here; changes by other processes are excluded by
        // the contract in the type's documentation.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// Tells the system that the bytes of `range` are not needed for now, so that it may free their pages.
    ///
    /// Best effort: it changes memory use, never contents, and does nothing where the system has no such call.
    /// Reading the range again is allowed and fetches it from the file.
    pub fn advise_dont_need(&self, range: Range<usize>) {
        let end = range.end.min(self.map.len());
        if range.start >= end {
            return;
        }
        #[cfg(unix)]
        // SAFETY: the pages are clean pages of a read-only file map; when dropped they are read from the file
        // again on the next access, so no reference into the map can observe a change.
        let _ignored = unsafe {
            self.map.unchecked_advise_range(
                memmap2::UncheckedAdvice::DontNeed,
                range.start,
                end - range.start,
            )
        };
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_with(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn bytes_are_those_of_the_file_before_and_after_advice() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        let file = file_with(&bytes);
        let map = MappedFile::open(file.path()).unwrap();
        assert_eq!(&*map, bytes);
        for range in [
            0..bytes.len(),
            5_000..5_001,
            99_999..200_000,
            200_000..300_000,
            7..7,
        ] {
            map.advise_dont_need(range);
            assert_eq!(&*map, bytes);
        }
    }

    #[test]
    fn an_empty_file_is_an_empty_slice() {
        let file = file_with(&[]);
        let map = MappedFile::open(file.path()).unwrap();
        map.advise_dont_need(0..1);
        assert!(map.is_empty());
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = MappedFile::open(&folder.path().join("absent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
