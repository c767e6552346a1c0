//! Why data cannot be read or written, with the place and the values at fault. Knows no remedy outside this crate.

use std::path::PathBuf;

use thiserror::Error;

/// Errors of this crate. Rows are counted from 1, lines of text likewise.
#[derive(Debug, Error)]
pub enum DataError {
    /// The system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried: `read`, `write`, ...
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said. Part of the message and therefore no source, which would be printed again.
        cause: std::io::Error,
    },
    /// A file is not what its name says, or is cut off.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the row up to which it was right where that is known.
        problem: String,
    },
    /// A row cannot be used.
    #[error("{} row {row}, column {column:?}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, counted from 1; in text files the line.
        row: u64,
        /// The column at fault, or the columns of which one is missing.
        column: String,
        /// What was expected and what is there.
        problem: String,
    },
    /// The path is of no form that is read.
    #[error(
        "{}: {problem}; expected a rollout folder, .parquet, .jsonl, .jsonl.gz or .jsonl.zst",
        path.display()
    )]
    UnknownForm {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        problem: String,
    },
    /// A rollout folder that is not finished.
    #[error(
        "{} is not finished ({num_rows} rows in whole shards); repeat the command that writes it, which goes on where \
         it stopped",
        path.display()
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// Rows in shards that are whole.
        num_rows: u64,
    },
    /// A folder holds something else.
    #[error(
        "{} holds another run ({}); choose another folder or remove that one",
        path.display(),
        differences.join("; ")
    )]
    OtherRun {
        /// The folder.
        path: PathBuf,
        /// What differs, each with both values.
        differences: Vec<String>,
    },
    /// A folder that must not be there is there.
    #[error("{} exists; choose another folder or remove that one", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process writes the folder.
    #[error("another run is using {}; wait for it or choose another folder", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A rollout that cannot be written.
    #[error("rollout of prompt {prompt_idx}, sample {sample_idx}: {problem}")]
    BadRollout {
        /// [`Rollout::prompt_idx`](crate::Rollout::prompt_idx).
        prompt_idx: u64,
        /// [`Rollout::sample_idx`](crate::Rollout::sample_idx).
        sample_idx: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A column of rewards cannot be added.
    #[error("reward column {name:?}: {problem}")]
    RewardColumn {
        /// Its name.
        name: String,
        /// Why not.
        problem: String,
    },
}

impl DataError {
    /// For `map_err` on results of the system.
    pub(crate) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::Io { action, path, cause }
    }
}

/// A value for a message, cut if it is long.
pub(crate) fn shown(value: &serde_json::Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
