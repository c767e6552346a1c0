//! Grouped-query attention over whole sequences, in plain tensor operations. Knows no batch's texts.
//!
//! Queries of one group are stacked under their key head, so keys and values are never repeated in memory.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use super::linear::Linear;
use super::norm::RmsNorm;
use super::positions::SpanTables;

/// Attention of one layer.
#[derive(Module, Debug)]
pub struct Attention {
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    /// Of each head, before rotation (Qwen 3, Gemma 3).
    pub(super) query_norm: Option<RmsNorm>,
    /// As [`Self::query_norm`].
    pub(super) key_norm: Option<RmsNorm>,
    pub(super) num_heads: usize,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Attention {
    /// Attends within each sequence. `[batch * seq, hidden]` to the same.
    pub fn forward(&self, rows: Tensor<2>, batch: usize, tables: &SpanTables) -> Tensor<2> {
        let (num_heads, num_kv_heads, head_dim) = (self.num_heads, self.num_kv_heads, self.head_dim);
        let [num_rows, _hidden] = rows.dims();
        let (seq, group) = (num_rows / batch, num_heads / num_kv_heads);
        let heads_of = |x: Tensor<2>, heads| x.reshape([batch, seq, heads, head_dim]);

        let mut query = heads_of(self.query.forward(rows.clone()), num_heads);
        let mut key = heads_of(self.key.forward(rows.clone()), num_kv_heads);
        let value = heads_of(self.value.forward(rows), num_kv_heads);
        if let Some(norm) = &self.query_norm {
            query = norm.forward(query);
        }
        if let Some(norm) = &self.key_norm {
            key = norm.forward(key);
        }
        let query = tables.query.apply(query.swap_dims(1, 2)); // [batch, heads, seq, head_dim]
        let key = tables.key.apply(key.swap_dims(1, 2)); // [batch, kv_heads, seq, head_dim]
        let value = value.swap_dims(1, 2); // [batch, kv_heads, seq, head_dim]

        let grouped = query.reshape([batch, num_kv_heads, group * seq, head_dim]);
        let scores = grouped.matmul(key.swap_dims(2, 3)); // [batch, kv_heads, group * seq, seq]
        let scores = scores.reshape([batch, num_heads, seq, seq]) + tables.mask.clone();
        let probs = softmax(scores, 3).reshape([batch, num_kv_heads, group * seq, seq]);
        let attended = probs.matmul(value); // [batch, kv_heads, group * seq, head_dim]
        let attended = attended
            .reshape([batch, num_heads, seq, head_dim])
            .swap_dims(1, 2)
            .reshape([num_rows, num_heads * head_dim]);
        self.output.forward(attended)
    }
}
