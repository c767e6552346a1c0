//! Causal, grouped-query, windowed attention with its rotations, some queries at a time. Knows no projections.
//!
//! Of `[heads, seq, seq]` only the scores of a block of queries exist, and only at keys that one of them sees. The tape
//! keeps inputs, output and each query's log-sum-exp; probabilities are made again on the way back
//! (`FlashAttention`, arXiv 2205.14135, sec. 3.1). With `p` the probabilities, `o` the output and `do` its gradient,
//!
//! ```text
//! dv = p^T do    ds = p (do v^T - rowsum(do o))    dq = ds k    dk = ds^T q
//! ```

mod head;

use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;
use trimtab_model::config::AttentionSpan;

use super::TASK_ROWS;
use super::tape::{Function, Gradient, Output, Values, apply};
use crate::decoder::positions::RotationTable;
use head::{Group, KeyValues};

/// Sizes and what depends on positions.
#[derive(Debug, Clone)]
pub(in crate::decoder) struct Geometry {
    pub(in crate::decoder) seq: usize,
    pub(in crate::decoder) num_heads: usize,
    pub(in crate::decoder) num_kv_heads: usize,
    pub(in crate::decoder) head_dim: usize,
    pub(in crate::decoder) span: AttentionSpan,
    /// The score scale included.
    pub(in crate::decoder) query_table: Arc<RotationTable>,
    pub(in crate::decoder) key_table: Arc<RotationTable>,
}

impl Geometry {
    /// Query heads of a key head.
    fn group_len(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// The first key that a query sees.
    fn first_key(&self, query: usize) -> usize {
        match self.span {
            AttentionSpan::Global => 0,
            AttentionSpan::Sliding { window } => (query + 1).saturating_sub(window),
        }
    }

    /// Which sequence and key head a task is about.
    fn place(&self, task: usize) -> (usize, usize) {
        (task / self.num_kv_heads, task % self.num_kv_heads)
    }

    /// Heads of tasks as rows. `parts`: by task, `[heads of a task, seq, head_dim]`; result `[batch * seq, heads * head_dim]`
    fn to_rows(&self, parts: &[&[f32]], heads_of_task: usize) -> Vec<f32> {
        let (seq, head_dim) = (self.seq, self.head_dim);
        let row_len = self.num_kv_heads * heads_of_task * head_dim;
        let mut rows = vec![0.0; parts.iter().map(|part| part.len()).sum()];
        rows.par_chunks_mut(TASK_ROWS * row_len)
            .enumerate()
            .for_each(|(idx, rows)| {
                for (at, row) in rows.chunks_exact_mut(row_len).enumerate() {
                    let (sequence, position) = ((idx * TASK_ROWS + at) / seq, (idx * TASK_ROWS + at) % seq);
                    for (head, out) in row.chunks_exact_mut(head_dim).enumerate() {
                        let part = parts[sequence * self.num_kv_heads + head / heads_of_task];
                        let start = (head % heads_of_task * seq + position) * head_dim;
                        out.copy_from_slice(&part[start..start + head_dim]);
                    }
                }
            });
        rows
    }
}

/// Attention within each sequence, on the CPU, before rotation: `query` `[batch * seq, heads * head_dim]`, `key` and
/// `value` `[batch * seq, kv_heads * head_dim]`; result of the query's shape.
pub(in crate::decoder) fn attention(
    query: &Tensor<2>,
    key: &Tensor<2>,
    value: &Tensor<2>,
    geometry: &Geometry,
) -> Option<Tensor<2>> {
    let inputs = [query, key, value].map(|input| input.clone().into_dispatch());
    apply(inputs, |[query, key, value]| {
        let mut function = Attended {
            geometry: geometry.clone(),
            query,
            key,
            value,
            out: Arc::default(),
            log_sums: Arc::default(),
        };
        let parts: Vec<(Vec<f32>, Vec<f64>)> = (0..function.num_tasks())
            .into_par_iter()
            .map(|task| function.group(task).forward())
            .collect();
        let outputs: Vec<&[f32]> = parts.iter().map(|(out, _)| &out[..]).collect();
        let values = geometry.to_rows(&outputs, geometry.group_len());
        let shape = function.query.shape();
        function.out = Arc::new(outputs.concat());
        function.log_sums = Arc::new(parts.iter().flat_map(|(_, sums)| sums).copied().collect());
        Output {
            values,
            shape,
            function,
        }
    })
}

#[derive(Debug, Clone)]
struct Attended {
    geometry: Geometry,
    query: Values,
    key: Values,
    value: Values,
    /// By task. `[batch, heads, seq, head_dim]`
    out: Arc<Vec<f32>>,
    /// `[batch, heads, seq]`
    log_sums: Arc<Vec<f64>>,
}

impl Attended {
    /// One for each key head of each sequence.
    fn num_tasks(&self) -> usize {
        let geometry = &self.geometry;
        self.key.as_slice().len() / (geometry.seq * geometry.head_dim)
    }

    fn group(&self, task: usize) -> Group<'_> {
        let inputs = KeyValues {
            query: self.query.as_slice(),
            key: self.key.as_slice(),
            value: self.value.as_slice(),
        };
        Group::new(&self.geometry, inputs, self.geometry.place(task))
    }
}

impl Function<3> for Attended {
    /// All three, whichever are wanted: they share the probabilities.
    fn backward(self, grad: &[f32], wanted: [bool; 3]) -> [Option<Gradient>; 3] {
        let geometry = &self.geometry;
        let rows = geometry.group_len() * geometry.seq;
        let parts: Vec<head::Gradients> = (0..self.num_tasks())
            .into_par_iter()
            .map(|task| {
                let out = &self.out[task * rows * geometry.head_dim..][..rows * geometry.head_dim];
                let log_sums = &self.log_sums[task * rows..][..rows];
                self.group(task).backward(grad, out, log_sums)
            })
            .collect();
        let gradient = |of: fn(&head::Gradients) -> &[f32], heads, shape| {
            let parts: Vec<&[f32]> = parts.iter().map(of).collect();
            Gradient {
                values: geometry.to_rows(&parts, heads),
                shape,
            }
        };
        let group = geometry.group_len();
        [
            wanted[0].then(|| gradient(|part| &part.query, group, self.query.shape())),
            wanted[1].then(|| gradient(|part| &part.key, 1, self.key.shape())),
            wanted[2].then(|| gradient(|part| &part.value, 1, self.value.shape())),
        ]
    }
}
