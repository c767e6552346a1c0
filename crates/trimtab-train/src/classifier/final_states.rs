//! States after the last tokens of texts, in memory: where a classifier on a frozen model reads. Knows no label.

use burn::tensor::{Device, Tensor, TensorData};
use sha2::{Digest as _, Sha256};

use super::judgements::{check_len, refuse};
use super::on_items::States;
use crate::error::TrainError;
use crate::heads::{Heads, Standardisation};

/// One state a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FinalStates {
    /// Width of a state.
    pub hidden_len: usize,
    /// States after the last token of each text. `[texts, hidden_len]`
    pub values: Vec<f32>,
}

impl FinalStates {
    /// Number of texts.
    pub fn num_texts(&self) -> usize {
        self.values.len() / self.hidden_len.max(1)
    }

    /// The state of one text. `[hidden_len]`
    pub fn state(&self, text: u32) -> &[f32] {
        &self.values[text as usize * self.hidden_len..][..self.hidden_len]
    }

    /// Refuses a width that does not divide the values, and values that are not finite.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        if self.hidden_len == 0 {
            return refuse("states have a width of 0, expected at least 1".to_owned());
        }
        check_len("states", self.values.len(), self.num_texts() * self.hidden_len)?;
        match self.values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => refuse(format!(
                "the state of text {} has {}, expected finite numbers",
                at / self.hidden_len,
                self.values[at]
            )),
        }
    }

    pub(super) fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update((self.hidden_len as u64).to_le_bytes());
        for value in &self.values {
            hash.update(value.to_le_bytes());
        }
        hex::encode(hash.finalize())
    }
}

/// [`FinalStates`] as the heads' input.
pub(super) struct StandardisedStates<'a> {
    pub(super) states: &'a FinalStates,
    pub(super) standardisation: Standardisation,
    pub(super) device: Device,
}

impl States<Heads> for StandardisedStates<'_> {
    fn read(&self, _heads: &Heads, texts: &[u32]) -> Tensor<2> {
        let Standardisation { mean, std } = &self.standardisation;
        let mut values = Vec::with_capacity(texts.len() * mean.len());
        for &text in texts {
            let state = self.states.state(text).iter();
            values.extend(
                state
                    .zip(mean.iter().zip(std))
                    .map(|(value, (mean, std))| (value - mean) / std),
            );
        }
        let shape = [texts.len(), mean.len()];
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    fn head<'m>(&self, heads: &'m Heads, _head_idx: usize) -> &'m Heads {
        heads
    }

    fn text_len(&self, _text: u32) -> usize {
        1
    }

    fn is_padded(&self) -> bool {
        false
    }
}
