//! Why a scorer cannot be used: the value at fault and the remedy. Knows no layout.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use trimtab_checkpoint::CheckpointError;

/// Errors of this crate.
#[derive(Debug, Error)]
pub enum ScorerError {
    /// The system refused to read.
    #[error("cannot read {}: {source}{}", path.display(), hint_if_missing(source))]
    Read {
        /// File.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refused to write; what was there before is still there.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// File.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `scorer.json` is no card.
    #[error("{}: not a scorer card: {message}; train the scorer again or take a whole copy", path.display())]
    Card {
        /// File.
        path: PathBuf,
        /// Field and reason.
        message: String,
    },
    /// A card that must not be written or used.
    #[error("scorer {scorer}: {field} is {value}, expected {expected}")]
    CardValue {
        /// Name of the scorer.
        scorer: String,
        /// Field of the card.
        field: String,
        /// As it is.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A card of another version of this program.
    #[error(
        "{}: scorer format {got}, this version reads format {expected}; train the scorer again with this version",
        path.display()
    )]
    FormatVersion {
        /// File.
        path: PathBuf,
        /// As stored.
        got: u64,
        /// The one that is read.
        expected: u32,
    },
    /// The weights are not those that the card was written for.
    #[error(
        "{}: sha256 {got}, but scorer.json says {expected}; the file is damaged or of another scorer, take a whole \
         copy or train again",
        path.display()
    )]
    Checksum {
        /// File of weights.
        path: PathBuf,
        /// Of the file.
        got: String,
        /// In the card.
        expected: String,
    },
    /// The file of weights contradicts its format.
    #[error("{}: {}", path.display(), problem(source))]
    Weights {
        /// File.
        path: PathBuf,
        /// Field and value.
        source: CheckpointError,
    },
    /// What a file says is not what a scorer may be.
    #[error("{}: {source}", path.display())]
    InFile {
        /// File.
        path: PathBuf,
        /// Why.
        source: Box<ScorerError>,
    },
    /// A tensor has another shape than the others ask for.
    #[error("tensor {tensor} has shape {got}, expected {expected}")]
    Shape {
        /// Name.
        tensor: String,
        /// As it is.
        got: String,
        /// What would be right.
        expected: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "tensor {tensor} is {value} at element {idx}, expected finite numbers; the training diverged, train again"
    )]
    NotFinite {
        /// Name.
        tensor: String,
        /// First bad element.
        idx: usize,
        /// Its value.
        value: f32,
    },
    /// The scorer was trained on the states of another model.
    #[error(
        "scorer {scorer} was trained on model {expected} and got {got}; train one for this model with `trimtab train \
         scorer`, or use the model it was trained on"
    )]
    OtherBase {
        /// Name of the scorer.
        scorer: String,
        /// The model of the card, with what differs.
        expected: String,
        /// The model given, with what differs.
        got: String,
    },
    /// A use that the scorer's heads do not allow.
    #[error("scorer {scorer_idx} of {num_scorers}: {problem}")]
    Unfit {
        /// Place in the set.
        scorer_idx: usize,
        /// Scorers in the set.
        num_scorers: usize,
        /// What is wrong and what helps.
        problem: String,
    },
}

impl ScorerError {
    pub(crate) fn shape(tensor: &str, got: &[usize], expected: &[usize]) -> Self {
        Self::Shape {
            tensor: tensor.to_owned(),
            got: format!("{got:?}"),
            expected: format!("{expected:?}"),
        }
    }
}

fn hint_if_missing(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::NotFound {
        "; expected a folder that `trimtab train scorer` wrote"
    } else {
        ""
    }
}

/// Without the name under which the bytes were handed on.
fn problem(source: &CheckpointError) -> String {
    match source {
        CheckpointError::Malformed { problem, .. } => problem.to_string(),
        CheckpointError::MissingTensor { name, .. } => format!("no tensor named {name}"),
        other => other.to_string(),
    }
}
