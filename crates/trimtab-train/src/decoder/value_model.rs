//! A prefix scorer with weights of its own: a decoder whose states the heads read. Knows no files.
//!
//! The objectives are those of heads on cached states; here the states are live. Only this decoder is: what CD-Q needs
//! of the reference is one vector per prefix (`e_t`), computed before.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use super::model::Decoder;
use super::value_data::TokenResponseBatch;
use crate::heads::{Heads, Standardisation};
use crate::prefix_batches::PrefixBatch;
use crate::trainer::{Loss, Objective, Progress};

/// Decoder and heads, trained together.
#[derive(Module, Debug)]
pub struct ValueModel {
    /// Gives the states.
    pub decoder: Decoder,
    /// Read them, standardised.
    pub heads: Heads,
}

/// An objective of heads, on states that the decoder computes.
pub struct OnTokens {
    inner: Box<dyn Objective<Heads, Batch = PrefixBatch>>,
    inputs: HeadInputs,
}

/// From the decoder's states to the heads' input.
#[derive(Debug, Clone)]
pub struct HeadInputs {
    /// `[1, hidden]`
    mean: Tensor<2>,
    /// `[1, hidden]`
    inverse_std: Tensor<2>,
}

impl HeadInputs {
    /// Standardises with these moments, which stay as they are while the states move.
    pub fn new(standardisation: &Standardisation, device: &Device) -> Self {
        let row = |values: Vec<f32>| {
            let len = values.len();
            Tensor::from_data(TensorData::new(values, [1, len]), device)
        };
        let inverse = standardisation.std.iter().map(|std| 1.0 / std).collect();
        Self {
            mean: row(standardisation.mean.clone()),
            inverse_std: row(inverse),
        }
    }

    /// States as heads see them. `[rows, hidden]`
    pub fn standardise(&self, states: Tensor<2>) -> Tensor<2> {
        (states - self.mean.clone()) * self.inverse_std.clone()
    }

    /// The batch as heads see it.
    ///
    /// # Panics
    /// If a response was not checked against the decoder's configuration.
    pub fn of(&self, decoder: &Decoder, batch: &TokenResponseBatch) -> PrefixBatch {
        let states = prefix_states(decoder, batch); // [prefixes, hidden]
        PrefixBatch {
            hidden: self.standardise(states),
            features: batch.features.clone(),
            rows: batch.rows.clone(),
            rewards: batch.rewards.clone(),
        }
    }
}

/// States at the last token of each prefix. `[prefixes, hidden]`
pub(super) fn prefix_states(decoder: &Decoder, batch: &TokenResponseBatch) -> Tensor<2> {
    let hidden = decoder
        .forward(&batch.tokens)
        .expect("responses were checked against the configuration");
    let [num_sequences, seq, hidden_len] = hidden.dims();
    hidden
        .reshape([num_sequences * seq, hidden_len])
        .select(0, batch.places.clone())
}

impl OnTokens {
    /// `inner`, which must have no companion: a copy of the heads alone would read states that have moved on.
    pub fn new(inner: Box<dyn Objective<Heads, Batch = PrefixBatch>>, inputs: HeadInputs) -> Self {
        Self { inner, inputs }
    }
}

impl Objective<ValueModel> for OnTokens {
    type Batch = TokenResponseBatch;

    fn loss(&self, model: &ValueModel, batch: &TokenResponseBatch, progress: Progress) -> Loss {
        let prefixes = self.inputs.of(&model.decoder, batch);
        self.inner.loss(&model.heads, &prefixes, progress)
    }
}
