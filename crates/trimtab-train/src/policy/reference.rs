//! What the reference says of given responses, computed once for all passes over them and kept with the run. Knows no loss.
//!
//! The reference does not move, so that the log-probs of a response under it are the same in every pass; a step that has
//! them runs the policy alone. They are computed before the first step, in pieces that depend on the data alone: kept as
//! they come up in training they would differ in their last bits with the batch that asked first, and a run that was stopped
//! would not end in the same bytes. Only log-probs of drawn tokens can be kept (8 bytes each); the exact KL needs the whole
//! distribution, and steps from kept log-probs do not report it.

use std::fs;
use std::path::Path;

use super::model::PolicyModule;
use super::pieces::{Piece, PolicyItem};
use super::source::Unit;
use super::vocab::Side;
use super::vocab_tensor::VocabPass;
use crate::error::TrainError;
use crate::files::write_atomic;

/// Fills in `reference_log_probs` of all responses, from the file at `path` or by computing and writing it.
///
/// `reference`: off the tape. `rows`: positions whose logits exist at once; `piece_tokens`: tokens whose states do.
///
/// # Errors
/// A file that is not of these responses, or the file system's.
pub fn fill_reference<M: PolicyModule>(
    units: &mut [&mut Unit],
    reference: &M,
    (rows, piece_tokens): (usize, usize),
    path: &Path,
) -> Result<(), TrainError> {
    if !path.exists() {
        let mut bytes = Vec::new();
        for piece in in_order(units, piece_tokens) {
            let log_probs = log_probs_under(reference, &piece, rows);
            // Rows follow the buckets, the file follows the responses.
            let by_item = piece.rows.iter().flat_map(|rows| &log_probs[rows.clone()]);
            bytes.extend(by_item.flat_map(|log_prob| log_prob.to_le_bytes()));
        }
        write_atomic(path, &bytes)?;
    }
    // Read back in both cases, so that there is one way in.
    let bytes = fs::read(path).map_err(|error| TrainError::io("read", path, error))?;
    let (numbers, rest) = bytes.as_chunks();
    let items = || units.iter().flat_map(|unit| unit.iter());
    let num_tokens: usize = items().map(|item| item.token_ids.len()).sum();
    if numbers.len() != num_tokens || !rest.is_empty() {
        let problem = format!(
            "{} bytes, expected 8 for each of {num_tokens} tokens; remove it to compute it again",
            bytes.len()
        );
        return Err(TrainError::bad_file(path, problem));
    }
    let mut log_probs = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes));
    for item in units.iter_mut().flat_map(|unit| unit.iter_mut()) {
        item.reference_log_probs = log_probs.by_ref().take(item.token_ids.len()).collect();
    }
    Ok(())
}

/// Units in their order, as many in a piece as fit.
fn in_order(units: &[&mut Unit], piece_tokens: usize) -> Vec<Piece> {
    let num_tokens = |unit: &Unit| unit.iter().map(PolicyItem::num_tokens).sum::<usize>();
    let mut pieces = Vec::new();
    let (mut open, mut sum): (Vec<Unit>, usize) = (Vec::new(), 0);
    for unit in units {
        if !open.is_empty() && sum + num_tokens(unit) > piece_tokens {
            pieces.push(Piece::new(std::mem::take(&mut open)));
            sum = 0;
        }
        sum += num_tokens(unit);
        open.push((**unit).clone());
    }
    if !open.is_empty() {
        pieces.push(Piece::new(open));
    }
    pieces
}

/// `log ref(y_t)` of a piece's tokens. `[positions]`
fn log_probs_under<M: PolicyModule>(reference: &M, piece: &Piece, rows: usize) -> Vec<f64> {
    let side = Side {
        states: reference.states(piece),
        head: reference.head(),
    };
    let mut pass = VocabPass::of(&side.states.device(), 0, false);
    pass.numbers((&side, None), &piece.tokens, rows).log_probs
}

impl Piece {
    /// The reference's log-probs of all tokens, if they are known of every response. `[positions]`
    pub fn reference_log_probs(&self) -> Option<Vec<f64>> {
        let mut log_probs = vec![0.0; self.tokens.len()];
        for (item, rows) in self.items.iter().zip(&self.rows) {
            if item.reference_log_probs.len() != rows.len() {
                return None;
            }
            log_probs[rows.clone()].copy_from_slice(&item.reference_log_probs);
        }
        Some(log_probs)
    }
}
