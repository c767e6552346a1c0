//! Why a checkpoint cannot be read: the file, the field and the value at fault. Knows no format's layout.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Errors of this crate.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The system refused.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The file's contents contradict its format.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// File.
        path: PathBuf,
        /// Field and value.
        problem: FormatError,
    },
    /// The file is of none of the formats read here.
    #[error(
        "{} is not a checkpoint that can be read: it begins with {start}; expected a GGUF file, a .safetensors file, \
         a folder with config.json and model.safetensors, or a llama2.c legacy .bin file",
        path.display()
    )]
    UnknownFormat {
        /// File.
        path: PathBuf,
        /// Its first bytes, readable.
        start: String,
    },
    /// No tensor of this name.
    #[error("{}: no tensor named {}", path.display(), shown(name))]
    MissingTensor {
        /// File or folder.
        path: PathBuf,
        /// The name asked for.
        name: String,
    },
}

/// What is wrong with the bytes of a file.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The file ends inside a field.
    #[error("{field} at byte {offset} needs {needed} bytes, but the file has only {left} left")]
    Truncated {
        /// Field.
        field: String,
        /// Where the field begins.
        offset: u64,
        /// Its length.
        needed: u64,
        /// Bytes from `offset` to the end.
        left: u64,
    },
    /// A number of entries that the rest of the file cannot hold.
    #[error("{field} is {count}, but the {left} bytes left hold at most {limit}")]
    CountTooLarge {
        /// Field.
        field: String,
        /// The count as stored.
        count: u64,
        /// Bytes left after it.
        left: u64,
        /// Entries that fit in them.
        limit: u64,
    },
    /// A value that the format does not allow.
    #[error("{field} is {value}, expected {expected}")]
    BadValue {
        /// Field.
        field: String,
        /// As stored, shortened where long.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// Two entries of one name.
    #[error("two {what} are named {}", shown(name))]
    Duplicate {
        /// Kind of entry, in the plural.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The data of two tensors share bytes.
    #[error(
        "the data of tensors {} and {} overlap at byte {offset}",
        shown(first),
        shown(second)
    )]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
        /// Where the second one begins in the file.
        offset: u64,
    },
    /// A metadata value is of another type than asked for.
    #[error("metadata {key:?} is {got}, expected {expected}")]
    WrongType {
        /// Key.
        key: String,
        /// Type as stored, with its value where short.
        got: String,
        /// Type asked for.
        expected: &'static str,
    },
    /// A tensor's element type cannot be read.
    #[error("tensor {} is of type {dtype}, expected one of {supported}", shown(tensor))]
    UnsupportedDtype {
        /// Tensor.
        tensor: String,
        /// Type as the file names or numbers it.
        dtype: String,
        /// What can be read.
        supported: &'static str,
    },
    /// JSON that does not parse.
    #[error("{field} is not the JSON expected: {message}")]
    Json {
        /// Document or entry.
        field: String,
        /// The parser's message, with line and column.
        message: String,
    },
}

impl FormatError {
    pub(crate) fn bad(
        field: impl fmt::Display,
        value: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self::BadValue {
            field: field.to_string(),
            value: value.to_string(),
            expected: expected.to_string(),
        }
    }
}

/// Longest text of a file that an error message repeats.
const SHOWN_CHARS: usize = 80;

/// A name from a file, quoted, escaped and shortened: hostile names are long or contain control characters.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}... ({} bytes)", &name[..end], name.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_names_are_shortened_and_escaped() {
        assert_eq!(shown("a\u{1b}b"), r#""a\u{1b}b""#);
        let long = "é".repeat(1000);
        let got = shown(&long);
        assert_eq!(got, format!("\"{}\"... (2000 bytes)", "é".repeat(80)));
    }
}
