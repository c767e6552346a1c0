//! Everything that can be wrong with a vocabulary, a text or a chat template. Knows no other module.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use thiserror::Error;

/// Why a tokenizer could not be built, or a text not be tokenised.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The file names an algorithm that this crate does not implement.
    #[error("{field}: expected one of {supported}, got {got:?}; convert the model to a supported vocabulary")]
    Unsupported {
        /// Metadata key or JSON path that names the algorithm.
        field: &'static str,
        /// What the file says.
        got: String,
        /// What would have been accepted.
        supported: &'static str,
    },
    /// The vocabulary has something that the format it is to be written in has no place for.
    #[error("{format} cannot hold this tokenizer: {problem}; {remedy}")]
    Inexpressible {
        /// The format.
        format: &'static str,
        /// What has no place in it.
        problem: String,
        /// What can be done.
        remedy: &'static str,
    },
    /// A part of the vocabulary that this algorithm needs is absent.
    #[error("{field} is missing; the file is incomplete, fetch it again or convert it again")]
    Missing {
        /// Metadata key or JSON path.
        field: &'static str,
    },
    /// A list runs parallel to the tokens but has another length, or a vocabulary is larger than any model's, so that
    /// the file is taken to be hostile.
    #[error("{what}: expected {}, got {got}; the file is corrupt", count(expected))]
    WrongCount {
        /// Metadata key of the list, or what there are too many of.
        what: &'static str,
        /// Accepted numbers.
        expected: RangeInclusive<usize>,
        /// Number found, or the largest id plus one.
        got: usize,
    },
    /// Two ids share a piece, so text could not be mapped to one id.
    #[error("token {piece:?} has two ids, {first_id} and {second_id}; expected one, the file is corrupt")]
    DuplicatePiece {
        /// The piece as stored in the file.
        piece: String,
        /// Smaller or earlier id.
        first_id: u32,
        /// The other id.
        second_id: u32,
    },
    /// A special id points outside the vocabulary, or two pieces claim one id.
    #[error("{field}: id {id} is not a free id of the {vocab_len} tokens; the file is corrupt")]
    BadId {
        /// What the id is for.
        field: String,
        /// The id.
        id: u32,
        /// Number of tokens.
        vocab_len: usize,
    },
    /// A file names a special token that the vocabulary does not have.
    #[error("{field}: expected a token of the vocabulary, got {piece:?}; the files do not belong together")]
    UnknownPiece {
        /// What the token is for.
        field: &'static str,
        /// The token's text.
        piece: String,
    },
    /// A merge rule is not two pieces of the vocabulary that make a third.
    #[error("merge {merge_idx} {merge:?}: {problem}; the file is corrupt")]
    BadMerge {
        /// Place in the merge list.
        merge_idx: usize,
        /// The rule as stored.
        merge: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A merge score that cannot be ordered.
    #[error("score of token {id}: expected a finite number, got {score}; the file is corrupt")]
    BadScore {
        /// The token.
        id: u32,
        /// Its score.
        score: f32,
    },
    /// The vocabulary has no token for a byte, so this text (or any text) cannot be represented.
    #[error("the vocabulary has no token for byte 0x{byte:02X}; remove the character or use another model")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// A file could not be read or is not what its name says.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// The tokenizer library refused a normalizer, a regex or a text.
    #[error("{stage}: {problem}")]
    Library {
        /// What was being done.
        stage: &'static str,
        /// The library's words.
        problem: String,
    },
    /// The chat template is at fault.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

fn count(expected: &RangeInclusive<usize>) -> String {
    match (expected.start(), expected.end()) {
        (least, most) if least == most => format!("{most} entries, one per token"),
        (_, most) => format!("at most {most}"),
    }
}

/// Why a chat template could not be compiled or rendered.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// Not a valid template.
    #[error("chat template, line {line}: {problem}")]
    Syntax {
        /// Line in the template, from 1.
        line: usize,
        /// The template engine's words.
        problem: String,
    },
    /// The template itself refused the conversation, e.g. because roles do not alternate.
    #[error("the model's chat template refuses this conversation: {message}")]
    Refused {
        /// The template author's words.
        message: String,
    },
    /// The template ran longer than any honest one.
    #[error(
        "chat template used up its budget of {fuel} instructions; it may loop forever or build huge texts"
    )]
    OutOfFuel {
        /// The budget.
        fuel: u64,
    },
    /// Any other failure while rendering.
    #[error("chat template, line {line}: {problem}")]
    Render {
        /// Line in the template, from 1.
        line: usize,
        /// The template engine's words.
        problem: String,
    },
}
