//! One key head of one sequence with the query heads that share it. One thread's work.

use trimtab_kernels::product::{Target, View, product_here};
use trimtab_kernels::softmax::probs_of;
use trimtab_kernels::training::{rotation, scores};
use trimtab_kernels::vocab::log_sum_exp_row;

use super::Geometry;
use crate::decoder::positions::RotationTable;

/// Queries whose scores exist at once.
const QUERIES: usize = 64;

/// Rows of all heads, before rotation.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyValues<'a> {
    /// `[batch * seq, heads * head_dim]`
    pub(super) query: &'a [f32],
    /// `[batch * seq, kv_heads * head_dim]`
    pub(super) key: &'a [f32],
    /// `[batch * seq, kv_heads * head_dim]`
    pub(super) value: &'a [f32],
}

/// A key head and its query heads.
pub(super) struct Group<'a> {
    geometry: &'a Geometry,
    inputs: KeyValues<'a>,
    sequence: usize,
    kv_head: usize,
    /// Rotated. `[seq, head_dim]`
    key: Vec<f32>,
}

/// By the inputs of a group, before rotation.
#[derive(Debug)]
pub(super) struct Gradients {
    /// `[group, seq, head_dim]`
    pub(super) query: Vec<f32>,
    /// `[seq, head_dim]`
    pub(super) key: Vec<f32>,
    /// `[seq, head_dim]`
    pub(super) value: Vec<f32>,
}

/// A block of queries and the keys that any of them sees.
#[derive(Debug, Clone, Copy)]
struct Block {
    first_query: usize,
    num_queries: usize,
    first_key: usize,
    num_keys: usize,
}

impl<'a> Group<'a> {
    pub(super) fn new(
        geometry: &'a Geometry,
        inputs: KeyValues<'a>,
        (sequence, kv_head): (usize, usize),
    ) -> Self {
        let mut group = Self {
            geometry,
            inputs,
            sequence,
            kv_head,
            key: Vec::new(),
        };
        group.key = rotated(group.kv_rows(inputs.key), &geometry.key_table);
        group
    }

    /// Outputs `[group, seq, head_dim]` and log-sum-exps `[group, seq]`.
    pub(super) fn forward(&self) -> (Vec<f32>, Vec<f64>) {
        let (seq, head_dim) = (self.geometry.seq, self.geometry.head_dim);
        let group = self.geometry.group_len();
        let mut out = vec![0.0; group * seq * head_dim];
        let mut log_sums = vec![0.0; group * seq];
        let value = self.kv_view(self.inputs.value);
        let mut work = Work::new(seq);
        let heads = out
            .chunks_exact_mut(seq * head_dim)
            .zip(log_sums.chunks_exact_mut(seq));
        for (head, (out, log_sums)) in heads.enumerate() {
            let query = rotated(
                self.query_rows(self.inputs.query, head),
                &self.geometry.query_table,
            );
            for block in self.blocks() {
                self.scores(&query, block, &mut work.scores);
                for row in 0..block.num_queries {
                    let (seen, at) = self.row(block, row);
                    let scores = &work.scores[at.clone()];
                    let probs = &mut work.probs[row * block.num_keys..][..block.num_keys];
                    probs.fill(0.0);
                    let log_sum = log_sum_exp_row(scores);
                    probs_of(scores, log_sum, &mut probs[seen]);
                    log_sums[block.first_query + row] = log_sum;
                }
                let value = value.row_range(block.keys());
                let out = target(&mut out[block.first_query * head_dim..], head_dim, false);
                product_here(block.view(&work.probs), value, 1.0, out);
            }
        }
        (out, log_sums)
    }

    /// `grad`: of all heads' outputs, in rows; `out` and `log_sums`: what [`Self::forward`] gave.
    pub(super) fn backward(&self, grad: &[f32], out: &[f32], log_sums: &[f64]) -> Gradients {
        let (seq, head_dim) = (self.geometry.seq, self.geometry.head_dim);
        let group = self.geometry.group_len();
        let (mut by_key, mut by_value) = (vec![0.0; seq * head_dim], vec![0.0; seq * head_dim]);
        let mut by_query = Vec::with_capacity(group * seq * head_dim);
        let value = self.kv_view(self.inputs.value);
        let key = View::rows(&self.key, head_dim);
        let mut work = Work::new(seq);
        for head in 0..group {
            let query = rotated(
                self.query_rows(self.inputs.query, head),
                &self.geometry.query_table,
            );
            let grad: Vec<f32> = self.query_rows(grad, head).flatten().copied().collect(); // [seq, head_dim]
            let out = &out[head * seq * head_dim..][..seq * head_dim];
            let mut by_rotated = vec![0.0; seq * head_dim];
            for block in self.blocks() {
                let queries = block.first_query..block.first_query + block.num_queries;
                let grad_view = View::rows(&grad, head_dim).row_range(queries.clone());
                let query_view = View::rows(&query, head_dim).row_range(queries);
                self.scores(&query, block, &mut work.scores);
                let value = value.row_range(block.keys());
                let by_probs = target(&mut work.grads, block.num_keys, false);
                product_here(grad_view, value.transposed(), 1.0, by_probs);
                for row in 0..block.num_queries {
                    let (seen, at) = self.row(block, row);
                    let here = row * block.num_keys..(row + 1) * block.num_keys;
                    let (probs, grads) = (&mut work.probs[here.clone()], &mut work.grads[here]);
                    let position = block.first_query + row;
                    probs.fill(0.0);
                    let scores = &work.scores[at];
                    probs_of(scores, log_sums[head * seq + position], &mut probs[seen]);
                    let of_row = position * head_dim..(position + 1) * head_dim;
                    let mean = scores::dot(&grad[of_row.clone()], &out[of_row]);
                    scores::softmax_backward(probs, mean, grads);
                }
                let (probs, by_scores) = (block.view(&work.probs), block.view(&work.grads));
                let keys = block.first_key * head_dim;
                let by_query = target(&mut by_rotated[block.first_query * head_dim..], head_dim, false);
                product_here(by_scores, key.row_range(block.keys()), 1.0, by_query);
                let by_key = target(&mut by_key[keys..], head_dim, true);
                product_here(by_scores.transposed(), query_view, 1.0, by_key);
                let by_value = target(&mut by_value[keys..], head_dim, true);
                product_here(probs.transposed(), grad_view, 1.0, by_value);
            }
            by_query.extend(rotated_back(&by_rotated, head_dim, &self.geometry.query_table));
        }
        Gradients {
            query: by_query,
            key: rotated_back(&by_key, head_dim, &self.geometry.key_table),
            value: by_value,
        }
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        let seq = self.geometry.seq;
        (0..seq).step_by(QUERIES).map(move |first_query| {
            let end = seq.min(first_query + QUERIES);
            let first_key = self.geometry.first_key(first_query);
            Block {
                first_query,
                num_queries: end - first_query,
                first_key,
                num_keys: end - first_key,
            }
        })
    }

    /// Which of a block's keys a query sees, and where their scores are.
    fn row(&self, block: Block, row: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let query = block.first_query + row;
        let seen = self.geometry.first_key(query) - block.first_key..query + 1 - block.first_key;
        let start = row * block.num_keys;
        (seen.clone(), start + seen.start..start + seen.end)
    }

    /// `query` rotated, `[seq, head_dim]`; scores `[queries, keys]` of the block.
    fn scores(&self, query: &[f32], block: Block, scores: &mut [f32]) {
        let head_dim = self.geometry.head_dim;
        let queries = block.first_query..block.first_query + block.num_queries;
        let query = View::rows(query, head_dim).row_range(queries);
        let key = View::rows(&self.key, head_dim).row_range(block.keys());
        product_here(
            query,
            key.transposed(),
            1.0,
            target(scores, block.num_keys, false),
        );
    }

    /// A query head's rows of this sequence.
    fn query_rows<'b>(&self, rows: &'b [f32], head: usize) -> impl Iterator<Item = &'b [f32]> + use<'b> {
        let head = self.kv_head * self.geometry.group_len() + head;
        self.rows_of(rows, self.geometry.num_heads, head)
    }

    fn kv_rows<'b>(&self, rows: &'b [f32]) -> impl Iterator<Item = &'b [f32]> + use<'b> {
        self.rows_of(rows, self.geometry.num_kv_heads, self.kv_head)
    }

    fn rows_of<'b>(
        &self,
        rows: &'b [f32],
        num_heads: usize,
        head: usize,
    ) -> impl Iterator<Item = &'b [f32]> + use<'b> {
        let (seq, head_dim) = (self.geometry.seq, self.geometry.head_dim);
        let row_len = num_heads * head_dim;
        let rows = &rows[self.sequence * seq * row_len..][..seq * row_len];
        rows.chunks_exact(row_len)
            .map(move |row| &row[head * head_dim..][..head_dim])
    }

    /// This sequence's rows of the key head.
    fn kv_view<'b>(&self, rows: &'b [f32]) -> View<'b> {
        let (seq, head_dim) = (self.geometry.seq, self.geometry.head_dim);
        let start = self.kv_head * head_dim;
        View::rows(rows, self.geometry.num_kv_heads * head_dim)
            .row_range(self.sequence * seq..(self.sequence + 1) * seq)
            .col_range(start..start + head_dim)
    }
}

impl Block {
    fn keys(self) -> std::ops::Range<usize> {
        self.first_key..self.first_key + self.num_keys
    }

    /// `[queries, keys]`
    fn view(self, values: &[f32]) -> View<'_> {
        View::rows(&values[..self.num_queries * self.num_keys], self.num_keys)
    }
}

/// Scores of a block and what is made of them.
struct Work {
    scores: Vec<f32>,
    probs: Vec<f32>,
    grads: Vec<f32>,
}

impl Work {
    fn new(seq: usize) -> Self {
        let block = || vec![0.0; QUERIES.min(seq) * seq];
        Self {
            scores: block(),
            probs: block(),
            grads: block(),
        }
    }
}

fn target(data: &mut [f32], stride: usize, adds: bool) -> Target<'_> {
    Target { data, stride, adds }
}

/// Rows of positions `0..` rotated. `[seq, head_dim]`
fn rotated<'a>(rows: impl Iterator<Item = &'a [f32]>, table: &RotationTable) -> Vec<f32> {
    let mut out = Vec::new();
    for (position, row) in rows.enumerate() {
        let start = out.len();
        out.resize(start + row.len(), 0.0);
        let (cos, sin) = table.at(position);
        rotation::forward(row, cos, sin, &mut out[start..]);
    }
    out
}

/// Gradients by rows, given those by rotated rows.
fn rotated_back(grads: &[f32], head_dim: usize, table: &RotationTable) -> Vec<f32> {
    let mut out = vec![0.0; grads.len()];
    let rows = grads.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
    for (position, (grad, out)) in rows.enumerate() {
        let (cos, sin) = table.at(position);
        rotation::backward(grad, cos, sin, out);
    }
    out
}
