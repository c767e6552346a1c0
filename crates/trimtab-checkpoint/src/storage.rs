//! The bytes of one file, mapped or in memory. Knows no format.

use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use trimtab_kernels::mapping::MappedFile;

use crate::error::{CheckpointError, FormatError};

/// Bytes and the name they go by in errors.
#[derive(Debug)]
pub(crate) struct Storage {
    path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(MappedFile),
    Memory(Vec<u8>),
}

impl Storage {
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mapped = MappedFile::open(path).map_err(|cause| CheckpointError::Io {
            path: path.to_owned(),
            cause,
        })?;
        Ok(Self {
            path: path.to_owned(),
            bytes: Bytes::Mapped(mapped),
        })
    }

    /// Bytes that come from no file; `label` stands for the path in errors.
    pub(crate) fn memory(label: &str, bytes: Vec<u8>) -> Self {
        Self {
            path: PathBuf::from(label),
            bytes: Bytes::Memory(bytes),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the path to what is wrong with the bytes.
    pub(crate) fn malformed(&self, problem: FormatError) -> CheckpointError {
        CheckpointError::Malformed {
            path: self.path.clone(),
            problem,
        }
    }

    /// Says that a range will not be read again soon.
    pub(crate) fn release(&self, range: Range<usize>) {
        if let Bytes::Mapped(mapped) = &self.bytes {
            mapped.advise_dont_need(range);
        }
    }
}

impl Deref for Storage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(mapped) => mapped,
            Bytes::Memory(bytes) => bytes,
        }
    }
}
