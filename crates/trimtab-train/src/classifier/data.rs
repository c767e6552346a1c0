//! What a classifier learns from, in memory: single states with labels, or pairs. Knows no split and no loop.

use burn::tensor::Tensor;
use sha2::{Digest as _, Sha256};

use super::StateReader;
use crate::error::TrainError;
use crate::files::hex;
use crate::heads::Heads;
use crate::objectives::classifier::{BradleyTerry, LabelBatch, PairBatch, Pointwise};
use crate::trainer::Objective;

/// Items with a prompt each, a loss, and a notion of being right.
pub trait ClassifierData {
    /// Some items as tensors.
    type Batch;

    /// Refuses lengths that do not fit each other and numbers that are not finite.
    ///
    /// # Errors
    /// [`TrainError::BadData`] with the place.
    fn check(&self) -> Result<(), TrainError>;

    /// Width of a state.
    fn hidden_len(&self) -> usize;

    /// Prompt of each item. `[items]`
    fn keys(&self) -> &[u64];

    /// The states of one item, each `[hidden_len]`.
    fn states(&self, idx: usize) -> Vec<&[f32]>;

    /// These items as a batch.
    fn batch(&self, items: &[usize], states: &StateReader) -> Self::Batch;

    /// The loss that fits the items.
    fn objective(&self) -> Box<dyn Objective<Heads, Batch = Self::Batch>>;

    /// How many items of the batch the heads get right; a tie counts half.
    fn num_right(&self, heads: &Heads, batch: &Self::Batch) -> f64;

    /// Hash of all numbers.
    fn content_sha256(&self) -> String;
}

/// Single responses: the state after the last token, and the probability that the response is positive.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LabelledStates {
    /// Width of a state.
    pub hidden_len: usize,
    /// `[responses, hidden_len]`
    pub hidden: Vec<f32>,
    /// In `[0, 1]`. `[responses]`
    pub labels: Vec<f32>,
    /// Prompts; training and evaluation never share one. `[responses]`
    pub keys: Vec<u64>,
}

/// Pairs of responses to one prompt, of which one is better.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairedStates {
    /// Width of a state.
    pub hidden_len: usize,
    /// States after the last token of the better ones. `[pairs, hidden_len]`
    pub chosen: Vec<f32>,
    /// States after the last token of the others. `[pairs, hidden_len]`
    pub rejected: Vec<f32>,
    /// Prompts; training and evaluation never share one. `[pairs]`
    pub keys: Vec<u64>,
}

impl ClassifierData for LabelledStates {
    type Batch = LabelBatch;

    fn check(&self) -> Result<(), TrainError> {
        check_states("hidden", &self.hidden, self.hidden_len, self.keys.len())?;
        check_len("labels", self.labels.len(), self.keys.len())?;
        match self.labels.iter().position(|label| !(0.0..=1.0).contains(label)) {
            None => Ok(()),
            Some(idx) => refuse(format!(
                "label {idx} is {}, expected a number in [0, 1]",
                self.labels[idx]
            )),
        }
    }

    fn hidden_len(&self) -> usize {
        self.hidden_len
    }

    fn keys(&self) -> &[u64] {
        &self.keys
    }

    fn states(&self, idx: usize) -> Vec<&[f32]> {
        vec![row(&self.hidden, self.hidden_len, idx)]
    }

    fn batch(&self, items: &[usize], states: &StateReader) -> LabelBatch {
        LabelBatch {
            hidden: states.tensor(items.iter().map(|&idx| row(&self.hidden, self.hidden_len, idx))),
            labels: items.iter().map(|&idx| self.labels[idx]).collect(),
        }
    }

    fn objective(&self) -> Box<dyn Objective<Heads, Batch = LabelBatch>> {
        Box::new(Pointwise)
    }

    fn num_right(&self, heads: &Heads, batch: &LabelBatch) -> f64 {
        let logits = floats(heads.state.forward(batch.hidden.clone()));
        let pairs = logits.iter().zip(&batch.labels);
        // The sign that fits the likelier class; a label of one half has no right side.
        pairs.map(|(logit, label)| rightness(logit * (label - 0.5))).sum()
    }

    fn content_sha256(&self) -> String {
        hash(&[&self.hidden, &self.labels], &self.keys)
    }
}

impl ClassifierData for PairedStates {
    type Batch = PairBatch;

    fn check(&self) -> Result<(), TrainError> {
        check_states("chosen", &self.chosen, self.hidden_len, self.keys.len())?;
        check_states("rejected", &self.rejected, self.hidden_len, self.keys.len())
    }

    fn hidden_len(&self) -> usize {
        self.hidden_len
    }

    fn keys(&self) -> &[u64] {
        &self.keys
    }

    fn states(&self, idx: usize) -> Vec<&[f32]> {
        vec![
            row(&self.chosen, self.hidden_len, idx),
            row(&self.rejected, self.hidden_len, idx),
        ]
    }

    fn batch(&self, items: &[usize], states: &StateReader) -> PairBatch {
        let rows = |all| items.iter().map(move |&idx| row(all, self.hidden_len, idx));
        PairBatch {
            chosen: states.tensor(rows(&self.chosen)),
            rejected: states.tensor(rows(&self.rejected)),
        }
    }

    fn objective(&self) -> Box<dyn Objective<Heads, Batch = PairBatch>> {
        Box::new(BradleyTerry)
    }

    fn num_right(&self, heads: &Heads, batch: &PairBatch) -> f64 {
        let [chosen, rejected] = [&batch.chosen, &batch.rejected];
        let margins = heads.state.forward(chosen.clone()) - heads.state.forward(rejected.clone());
        floats(margins).into_iter().map(rightness).sum()
    }

    fn content_sha256(&self) -> String {
        hash(&[&self.chosen, &self.rejected], &self.keys)
    }
}

fn row(values: &[f32], width: usize, idx: usize) -> &[f32] {
    &values[idx * width..(idx + 1) * width]
}

fn floats(tensor: Tensor<1>) -> Vec<f32> {
    tensor.inner().into_data().try_to_vec().expect("values are f32")
}

fn rightness(margin: f32) -> f64 {
    match margin {
        margin if margin > 0.0 => 1.0,
        margin if margin < 0.0 => 0.0,
        _ => 0.5,
    }
}

fn refuse<T>(problem: String) -> Result<T, TrainError> {
    Err(TrainError::BadData { problem })
}

fn check_len(name: &str, got: usize, expected: usize) -> Result<(), TrainError> {
    if got == expected {
        return Ok(());
    }
    refuse(format!("{name} has {got} values, expected {expected}"))
}

fn check_states(name: &str, values: &[f32], hidden_len: usize, items: usize) -> Result<(), TrainError> {
    if hidden_len == 0 {
        return refuse("states have a width of 0, expected at least 1".to_owned());
    }
    check_len(name, values.len(), items * hidden_len)?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => refuse(format!(
            "{name} of item {} has {}, expected finite numbers",
            at / hidden_len,
            values[at]
        )),
    }
}

fn hash(tensors: &[&[f32]], keys: &[u64]) -> String {
    let mut hash = Sha256::new();
    for values in tensors {
        hash.update((values.len() as u64).to_le_bytes());
        for value in *values {
            hash.update(value.to_le_bytes());
        }
    }
    for key in keys {
        hash.update(key.to_le_bytes());
    }
    hex(&hash.finalize())
}
