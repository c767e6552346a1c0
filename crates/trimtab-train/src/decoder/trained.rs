//! A trained decoder as a source of weights again: what the engine runs and what files are written from.
//!
//! Adapters are merged here, once: `W + alpha / r * B A`. Weights that were not trained are read from the base.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use trimtab_model::ModelError;
use trimtab_model::load::WeightSource;
use trimtab_model::names::{LayerRole, Role};

use super::layer::DecoderLayer;
use super::linear::Linear;
use super::model::Decoder;
use super::norm::RmsNorm;
use super::weight::Weight;

/// The base's weights with the trained ones in their places.
pub struct TrainedWeights {
    base: Arc<dyn WeightSource>,
    trained: HashMap<Role, Stored>,
}

/// A tensor in the order of files: `[out, in]` row by row, or a vector.
struct Stored {
    values: Vec<f32>,
    row_len: usize,
}

impl Decoder {
    /// The weights that training changed, over `base`, from which this decoder was loaded.
    pub fn trained_weights(&self, base: Arc<dyn WeightSource>) -> TrainedWeights {
        let mut trained = Collector::default();
        trained.weight(Role::Embedding, &self.embedding);
        trained.norm(Role::FinalNorm, Some(&self.final_norm));
        if let Some(head) = &self.head {
            trained.weight(Role::Head, head);
        }
        for (idx, layer) in self.layers.iter().enumerate() {
            trained.layer(idx, layer);
        }
        TrainedWeights {
            base,
            trained: trained.0,
        }
    }
}

#[derive(Default)]
struct Collector(HashMap<Role, Stored>);

impl Collector {
    fn layer(&mut self, idx: usize, layer: &DecoderLayer) {
        let role = |part| Role::Layer(idx, part);
        let attention = &layer.attention;
        let linears = [
            (LayerRole::Query, Some(LayerRole::QueryBias), &attention.query),
            (LayerRole::Key, Some(LayerRole::KeyBias), &attention.key),
            (LayerRole::Value, Some(LayerRole::ValueBias), &attention.value),
            (LayerRole::AttentionOutput, None, &attention.output),
            (LayerRole::Gate, None, &layer.ffn.gate),
            (LayerRole::Up, None, &layer.ffn.up),
            (LayerRole::Down, None, &layer.ffn.down),
        ];
        for (part, bias, linear) in linears {
            self.linear(role(part), bias.map(role), linear);
        }
        let norms = [
            (LayerRole::AttentionNorm, Some(&layer.attention_norm)),
            (LayerRole::QueryNorm, attention.query_norm.as_ref()),
            (LayerRole::KeyNorm, attention.key_norm.as_ref()),
            (LayerRole::PostAttentionNorm, layer.post_attention_norm.as_ref()),
            (LayerRole::FfnNorm, Some(&layer.ffn_norm)),
            (LayerRole::PostFfnNorm, layer.post_ffn_norm.as_ref()),
        ];
        for (part, norm) in norms {
            self.norm(role(part), norm);
        }
    }

    fn linear(&mut self, role: Role, bias_role: Option<Role>, linear: &Linear) {
        if linear.is_trained() {
            self.put(role, linear.merged().transpose());
        }
        if let (Some(role), Some(bias)) = (bias_role, &linear.bias) {
            self.weight(role, bias);
        }
    }

    fn norm(&mut self, role: Role, norm: Option<&RmsNorm>) {
        if let Some(norm) = norm {
            self.weight(role, &norm.weight);
        }
    }

    fn weight<const D: usize>(&mut self, role: Role, weight: &Weight<D>) {
        if weight.is_trained() {
            self.put(role, weight.value());
        }
    }

    fn put<const D: usize>(&mut self, role: Role, tensor: Tensor<D>) {
        let row_len = *tensor.dims().last().expect("a weight has at least one axis");
        let values = tensor.into_data().iter::<f32>().collect();
        self.0.insert(role, Stored { values, row_len });
    }
}

impl WeightSource for TrainedWeights {
    fn shape(&self, role: Role) -> Result<Vec<usize>, ModelError> {
        self.base.shape(role)
    }

    fn read_row(&self, role: Role, row: usize, out: &mut [f32]) {
        match self.trained.get(&role) {
            Some(stored) => out.copy_from_slice(&stored.values[row * stored.row_len..][..stored.row_len]),
            None => self.base.read_row(role, row, out),
        }
    }

    fn describe(&self, role: Role) -> String {
        self.base.describe(role)
    }

    fn release(&self, role: Role) {
        if !self.trained.contains_key(&role) {
            self.base.release(role);
        }
    }
}
