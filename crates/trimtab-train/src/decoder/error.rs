//! Why a decoder cannot be trained or written. Knows no training loop.

use thiserror::Error;
use trimtab_checkpoint::WriteError;
use trimtab_model::ModelError;

/// Errors of the decoder's training forward.
#[derive(Debug, Error)]
pub enum DecoderError {
    /// The base model cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A batch without sequences.
    #[error("a batch needs at least one sequence")]
    EmptyBatch,
    /// A sequence without tokens.
    #[error("sequence {sequence} of the batch is empty")]
    EmptySequence {
        /// Its index.
        sequence: usize,
    },
    /// A sequence longer than the model's context.
    #[error(
        "a sequence of {len} tokens exceeds the model's context of {context_len}; cut it or leave it out"
    )]
    TooLong {
        /// Its length.
        len: usize,
        /// The model's.
        context_len: usize,
    },
    /// A token that the model does not have.
    #[error("token id {token} is outside the vocabulary of {vocab_len}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab_len: usize,
    },
    /// A setting of the adapters that cannot be.
    #[error("lora.{field} is {value}, expected {expected}")]
    BadLora {
        /// The setting.
        field: &'static str,
        /// The offending value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Logits were asked of a decoder that was loaded without an output head.
    #[error("this decoder was loaded without an output head, so it has no logits")]
    NoHead,
    /// A file of the exported model could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
