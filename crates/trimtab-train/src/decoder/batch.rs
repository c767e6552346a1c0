//! Sequences of different lengths as one rectangle. Knows no model.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::error::DecoderError;

/// Sequences padded on the right to the longest of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// Rows of the longest length; padding repeats token 0, which no real position sees. `[batch, seq]`
    token_ids: Vec<u32>,
    lengths: Vec<usize>,
    seq: usize,
}

impl TokenBatch {
    /// Pads `sequences`.
    ///
    /// # Errors
    /// No sequence, or an empty one.
    pub fn pad(sequences: &[&[u32]]) -> Result<Self, DecoderError> {
        if let Some(sequence) = sequences.iter().position(|tokens| tokens.is_empty()) {
            return Err(DecoderError::EmptySequence { sequence });
        }
        let seq = sequences.iter().map(|tokens| tokens.len()).max();
        let seq = seq.ok_or(DecoderError::EmptyBatch)?;
        let mut token_ids = vec![0; sequences.len() * seq];
        for (row, tokens) in token_ids.chunks_exact_mut(seq).zip(sequences) {
            row[..tokens.len()].copy_from_slice(tokens);
        }
        Ok(Self {
            token_ids,
            lengths: sequences.iter().map(|tokens| tokens.len()).collect(),
            seq,
        })
    }

    /// Number of sequences.
    pub fn batch(&self) -> usize {
        self.lengths.len()
    }

    /// Length of the longest.
    pub fn seq(&self) -> usize {
        self.seq
    }

    /// Length of each sequence before padding.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Padded ids. `[batch, seq]`, row after row.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Padded ids as a tensor. `[batch, seq]`
    pub fn to_tensor(&self, device: &Device) -> Tensor<2, Int> {
        let ids: Vec<i32> = self.token_ids.iter().map(|&id| id as i32).collect();
        Tensor::from_data(TensorData::new(ids, [self.batch(), self.seq]), device)
    }

    /// 1 at real positions, 0 at padding. `[batch, seq]`, row after row.
    pub fn mask(&self) -> Vec<f32> {
        let row = |&len: &usize| (0..self.seq).map(move |position| f32::from(position < len));
        self.lengths.iter().flat_map(row).collect()
    }
}
