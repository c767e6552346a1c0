//! Why a model cannot be built or run. Knows no formats' details; those come from `trimtab-checkpoint`.

use std::borrow::Cow;

use thiserror::Error;
use trimtab_checkpoint::CheckpointError;

/// Errors of this crate.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The file could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The architecture is not one this decoder covers.
    #[error("architecture {name:?} is not supported; supported: {supported}")]
    UnknownArchitecture {
        /// As the file names it.
        name: String,
        /// What exists.
        supported: &'static str,
    },
    /// A number of the configuration is impossible.
    #[error("model configuration: {field} is {value}, expected {expected}")]
    BadConfig {
        /// Field as named in [`crate::ModelConfig`] or in the file.
        field: Cow<'static, str>,
        /// The offending value.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A tensor's shape contradicts the configuration.
    #[error("tensor {tensor}: expected shape {expected:?}, got {got:?}")]
    BadShape {
        /// Name in the file.
        tensor: String,
        /// `[out, in]` from the configuration.
        expected: Vec<usize>,
        /// As stored.
        got: Vec<usize>,
    },
    /// The file has a tensor that this decoder would ignore, so that its answers would be wrong.
    #[error("tensor {tensor} has no place in this decoder for architecture {architecture:?}")]
    UnusedTensor {
        /// Name in the file.
        tensor: String,
        /// As the file names it.
        architecture: String,
    },
    /// A row of a batch names a token the model does not have.
    #[error("token id {token} is outside the vocabulary of {vocab_len}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab_len: usize,
    },
    /// An embedding row of a batch has the wrong length.
    #[error("embedding row of length {got}, expected the hidden size {expected}")]
    BadEmbedding {
        /// Its length.
        got: usize,
        /// The hidden size.
        expected: usize,
    },
}
