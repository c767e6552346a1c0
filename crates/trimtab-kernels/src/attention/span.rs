//! One task: the attention of some rows over one span of keys of one head.
//!
//! Rows that agree on a block have its keys and values loaded once for all of them. A row's own numbers go through
//! the same operations in the same order whoever it is computed with.

use std::ops::Range;

use super::segments::{Segment, Segments, SpanRow};
use super::tile::{Element, ScoreArgs, ValueArgs, add_values, scores};
use super::{AttentionRow, SPAN};
use crate::LANES;
use crate::aligned::AlignedBytes;
use crate::exp::{exp, sum_lanes};
use crate::isa::{Isa, for_isa};
use crate::kv_cache::{BLOCK_LEN, KvCache};

/// Blocks of a span.
const SPAN_BLOCKS: usize = SPAN / BLOCK_LEN;
/// Floats between rows of scores: a power of two would put the rows into the same cache sets.
const SCORE_STRIDE: usize = SPAN + LANES;

/// What is to be computed: the query heads of one key/value head over one span.
pub(super) struct SpanTask<'a> {
    pub(super) isa: Isa,
    pub(super) kv: &'a KvCache,
    pub(super) layer_idx: usize,
    pub(super) kv_head: usize,
    pub(super) span: usize,
    /// Query heads that share the key/value head.
    pub(super) group_len: usize,
    pub(super) score_scale: f32,
    pub(super) rows: &'a [AttentionRow<'a>],
    /// `[rows, num_kv_heads, group_len, head_dim]`.
    pub(super) queries: &'a [f32],
}

/// Softmax of a row over a span, not yet divided by its sum.
pub(super) struct SpanResult<'a> {
    /// Largest score.
    pub(super) max: f32,
    /// Sum of `e^(score - max)`.
    pub(super) sum: f32,
    /// Sum of `e^(score - max) * value`. `[head_dim]`
    pub(super) weighted_values: &'a [f32],
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// `[span rows, group_len, head_dim]`, scaled.
    queries: AlignedBytes,
    /// `[span rows, group_len, SCORE_STRIDE]`: scores, then their exponentials.
    scores: AlignedBytes,
    /// `[span rows, group_len, value_stride]`.
    values: AlignedBytes,
    /// Largest score and sum of exponentials. `[span rows, group_len]`
    norms: Vec<(f32, f32)>,
    rows: Vec<SpanRow>,
    segments: Segments,
}

impl SpanTask<'_> {
    /// Computes the rows `order` and hands each result to `finish(row, head within the group, result)`.
    pub(super) fn run<T: Element>(
        &self,
        order: &[u32],
        buffers: &mut Buffers,
        finish: impl Fn(usize, usize, &SpanResult<'_>),
    ) {
        self.gather(order, buffers);
        if buffers.rows.is_empty() {
            return;
        }
        self.score::<T>(buffers);
        self.normalise(buffers);
        self.sum_values::<T>(buffers);
        let (head_dim, value_stride) = (self.head_dim(), self.kv.layout().value_stride());
        let heads = buffers
            .values
            .as_slice::<f32>()
            .chunks_exact(value_stride)
            .zip(&buffers.norms);
        for (idx, (values, &(max, sum))) in heads.enumerate() {
            let result = SpanResult {
                max,
                sum,
                weighted_values: &values[..head_dim],
            };
            finish(
                buffers.rows[idx / self.group_len].row,
                idx % self.group_len,
                &result,
            );
        }
    }

    fn head_dim(&self) -> usize {
        self.kv.layout().head_dim
    }

    /// Finds the rows with keys in the span and copies their scaled queries.
    fn gather(&self, order: &[u32], buffers: &mut Buffers) {
        let start = self.span * SPAN;
        buffers.rows.clear();
        buffers.rows.extend(order.iter().filter_map(|&row| {
            let keys = &self.rows[row as usize];
            let keys = keys.first_key.max(start)..keys.num_keys.min(start + SPAN);
            (!keys.is_empty()).then(|| SpanRow {
                row: row as usize,
                keys: keys.start - start..keys.end - start,
            })
        }));
        let row_len = self.group_len * self.head_dim();
        let num_queries = buffers.rows.len() * self.group_len;
        buffers.queries.grow::<f32>(num_queries * self.head_dim());
        buffers.scores.grow::<f32>(num_queries * SCORE_STRIDE);
        buffers
            .values
            .grow::<f32>(num_queries * self.kv.layout().value_stride());
        let scaled = buffers.queries.as_mut_slice::<f32>().chunks_exact_mut(row_len);
        for (scaled, span_row) in scaled.zip(&buffers.rows) {
            let first = (span_row.row * self.kv.layout().num_kv_heads + self.kv_head) * row_len;
            for (scaled, query) in scaled.iter_mut().zip(&self.queries[first..first + row_len]) {
                *scaled = query * self.score_scale;
            }
        }
    }

    /// Scores of whole blocks: what lies outside a row's keys is garbage that [`Self::normalise`] ignores.
    fn score<T: Element>(&self, buffers: &mut Buffers) {
        let num_heads = self.group_len;
        for segment in self.cut(&mut buffers.segments, &buffers.rows, |_, _| 0..BLOCK_LEN) {
            let mut keys: [&[T]; SPAN_BLOCKS] = [&[]; SPAN_BLOCKS];
            for (keys, block) in keys.iter_mut().zip(segment.blocks.clone()) {
                *keys = self.tile::<T>(&buffers.rows[segment.rows.start], block).0;
            }
            let queries = segment.rows.start * num_heads..segment.rows.end * num_heads;
            let first_score = queries.start * SCORE_STRIDE + segment.blocks.start * BLOCK_LEN;
            scores(
                self.isa,
                &mut ScoreArgs {
                    head_dim: self.head_dim(),
                    queries: &buffers.queries.as_slice()
                        [queries.start * self.head_dim()..queries.end * self.head_dim()],
                    keys: &keys[..segment.blocks.len()],
                    scores: &mut buffers.scores.as_mut_slice()[first_score..queries.end * SCORE_STRIDE],
                    score_stride: SCORE_STRIDE,
                },
            );
        }
    }

    /// Replaces scores by `e^(score - max)`.
    fn normalise(&self, buffers: &mut Buffers) {
        let isa = self.isa;
        let mut scores = buffers
            .scores
            .as_mut_slice::<f32>()
            .chunks_exact_mut(SCORE_STRIDE);
        buffers.norms.clear();
        for row in &buffers.rows {
            let keys = &row.keys;
            for _ in 0..self.group_len {
                let scores = scores.next().expect("there is a row of scores for each query");
                buffers
                    .norms
                    .push(for_isa!(isa, exp_in_place(scores: &mut [f32], keys: &Range<usize>) -> (f32, f32)));
            }
        }
    }

    /// Sums the values of each row's keys, times the exponentials.
    fn sum_values<T: Element>(&self, buffers: &mut Buffers) {
        let (num_heads, value_stride) = (self.group_len, self.kv.layout().value_stride());
        let keys_of = |row: &SpanRow, block: usize| {
            let start = block * BLOCK_LEN;
            row.keys.start.max(start) - start..row.keys.end.min(start + BLOCK_LEN) - start
        };
        let values_len = buffers.rows.len() * num_heads * value_stride;
        buffers.values.as_mut_slice::<f32>()[..values_len].fill(0.0);
        for segment in self.cut(&mut buffers.segments, &buffers.rows, keys_of) {
            let mut values: [&[T]; SPAN_BLOCKS] = [&[]; SPAN_BLOCKS];
            for (values, block) in values.iter_mut().zip(segment.blocks.clone()) {
                let block_values = self.tile::<T>(&buffers.rows[segment.rows.start], block).1;
                *values = &block_values[segment.keys.start * value_stride..segment.keys.end * value_stride];
            }
            let queries = segment.rows.start * num_heads..segment.rows.end * num_heads;
            let first_key = segment.blocks.start * BLOCK_LEN + segment.keys.start;
            add_values(
                self.isa,
                &mut ValueArgs {
                    probs: &buffers.scores.as_slice()
                        [queries.start * SCORE_STRIDE + first_key..queries.end * SCORE_STRIDE],
                    prob_stride: SCORE_STRIDE,
                    values: &values[..segment.blocks.len()],
                    num_keys: segment.keys.len(),
                    value_stride,
                    out: &mut buffers.values.as_mut_slice()
                        [queries.start * value_stride..queries.end * value_stride],
                },
            );
        }
    }

    /// Cuts the span into segments of rows that agree on a block and on `keys_of(row, block)`.
    fn cut<'a>(
        &self,
        segments: &'a mut Segments,
        rows: &[SpanRow],
        keys_of: impl Fn(&SpanRow, usize) -> Range<usize>,
    ) -> &'a [Segment] {
        let first_block = self.span * SPAN_BLOCKS;
        let block_of = |row: &SpanRow, block: usize| self.rows[row.row].blocks[first_block + block];
        segments.cut(rows, block_of, keys_of)
    }

    /// Keys and values of a block of a row.
    fn tile<T: Element>(&self, row: &SpanRow, block: usize) -> (&[T], &[T]) {
        let block = self.rows[row.row].blocks[self.span * SPAN_BLOCKS + block];
        self.kv.tile(self.layer_idx, block, self.kv_head)
    }
}

/// Replaces the scores of `keys` by `e^(score - max)`, what else is in their vectors by 0; returns `max` and the sum.
#[inline(always)]
fn exp_in_place(scores: &mut [f32], keys: &Range<usize>) -> (f32, f32) {
    let vectors = keys.start / LANES * LANES..keys.end.next_multiple_of(LANES);
    scores[vectors.start..keys.start].fill(f32::NEG_INFINITY);
    scores[keys.end..vectors.end].fill(f32::NEG_INFINITY);
    let vectors = scores[vectors].as_chunks_mut::<LANES>().0;
    let mut max = [f32::NEG_INFINITY; LANES];
    for vector in &*vectors {
        for (max, &score) in max.iter_mut().zip(vector) {
            *max = if score > *max { score } else { *max };
        }
    }
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for vector in vectors {
        for (sum, score) in sums.iter_mut().zip(vector) {
            *score = exp(*score - max);
            *sum += *score;
        }
    }
    (max, sum_lanes(sums))
}
