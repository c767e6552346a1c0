//! Grouped-query attention over whole sequences. Knows no batch's texts.
//!
//! In tensor operations, queries of one group are stacked under their key head, so keys and values are never repeated in
//! memory.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use super::fused::{self, Geometry};
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
        let [num_rows, _hidden] = rows.dims();
        let mut query = self.query.forward(rows.clone());
        let mut key = self.key.forward(rows.clone());
        let value = self.value.forward(rows);
        if let Some(norm) = &self.query_norm {
            query = self.norm_heads(norm, query);
        }
        if let Some(norm) = &self.key_norm {
            key = self.norm_heads(norm, key);
        }
        let geometry = Geometry {
            seq: num_rows / batch,
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            span: tables.span,
            query_table: tables.query.table.clone(),
            key_table: tables.key.table.clone(),
        };
        let attended = fused::attention(&query, &key, &value, &geometry);
        let attended =
            attended.unwrap_or_else(|| attend_in_tensors([query, key, value], (batch, &geometry), tables));
        self.output.forward(attended)
    }

    /// Each head by itself. `[rows, heads * head_dim]`
    fn norm_heads(&self, norm: &RmsNorm, rows: Tensor<2>) -> Tensor<2> {
        let [num_rows, row_len] = rows.dims();
        let heads = rows.reshape([num_rows * row_len / self.head_dim, self.head_dim]);
        norm.forward(heads).reshape([num_rows, row_len])
    }
}

/// Rotated queries, keys and values to what heads give, on any device. Query `[batch * seq, heads * head_dim]`, key and
/// value `[batch * seq, kv_heads * head_dim]`, result as the query.
pub(super) fn attend_in_tensors(
    [query, key, value]: [Tensor<2>; 3],
    (batch, geometry): (usize, &Geometry),
    tables: &SpanTables,
) -> Tensor<2> {
    let Geometry {
        seq,
        num_heads,
        num_kv_heads,
        head_dim,
        ..
    } = *geometry;
    let group = num_heads / num_kv_heads;
    let heads_of = |x: Tensor<2>, heads| x.reshape([batch, seq, heads, head_dim]).swap_dims(1, 2);
    let query = tables.query.apply(heads_of(query, num_heads)); // [batch, heads, seq, head_dim]
    let key = tables.key.apply(heads_of(key, num_kv_heads)); // [batch, kv_heads, seq, head_dim]
    let value = heads_of(value, num_kv_heads); // [batch, kv_heads, seq, head_dim]

    let grouped = query.reshape([batch, num_kv_heads, group * seq, head_dim]);
    let scores = grouped.matmul(key.swap_dims(2, 3)); // [batch, kv_heads, group * seq, seq]
    let scores = scores.reshape([batch, num_heads, seq, seq]) + tables.mask();
    let probs = softmax(scores, 3).reshape([batch, num_kv_heads, group * seq, seq]);
    let attended = probs.matmul(value); // [batch, kv_heads, group * seq, head_dim]
    attended
        .reshape([batch, num_heads, seq, head_dim])
        .swap_dims(1, 2)
        .reshape([batch * seq, num_heads * head_dim])
}
