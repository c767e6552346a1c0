//! One layer: attention and feed-forward, each normalised and added to the residual stream.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, silu};
use trimtab_model::config::Activation;

use super::attention::Attention;
use super::fused;
use super::linear::Linear;
use super::norm::RmsNorm;
use super::positions::SpanTables;

/// Gated feed-forward layer: `down(act(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
    #[module(skip)]
    pub(super) activation: Activation,
}

impl FeedForward {
    /// `[rows, hidden]` to the same.
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let gate = self.gate.forward(rows.clone()); // [rows, ffn]
        let up = self.up.forward(rows); // [rows, ffn]
        let gated = fused::gated(&gate, &up, self.activation);
        self.down
            .forward(gated.unwrap_or_else(|| gated_in_tensors(gate, up, self.activation)))
    }
}

/// `act(gate) * up` on any device.
pub(super) fn gated_in_tensors(gate: Tensor<2>, up: Tensor<2>, activation: Activation) -> Tensor<2> {
    let gate = match activation {
        Activation::Silu => silu(gate),
        Activation::GeluTanh => gelu_approximate(gate),
    };
    gate * up
}

/// One layer of a decoder.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    pub(super) attention_norm: RmsNorm,
    pub(super) attention: Attention,
    pub(super) post_attention_norm: Option<RmsNorm>,
    pub(super) ffn_norm: RmsNorm,
    pub(super) ffn: FeedForward,
    pub(super) post_ffn_norm: Option<RmsNorm>,
}

impl DecoderLayer {
    /// The residual stream after this layer. `[batch * seq, hidden]`
    pub fn forward(&self, residual: Tensor<2>, batch: usize, tables: &SpanTables) -> Tensor<2> {
        let post = |norm: &Option<RmsNorm>, delta| match norm {
            Some(norm) => norm.forward(delta),
            None => delta,
        };
        let normed = self.attention_norm.forward(residual.clone());
        let attended = self.attention.forward(normed, batch, tables);
        let residual = residual + post(&self.post_attention_norm, attended);
        let fed = self.ffn.forward(self.ffn_norm.forward(residual.clone()));
        residual + post(&self.post_ffn_norm, fed)
    }
}
