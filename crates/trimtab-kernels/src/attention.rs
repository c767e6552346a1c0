//! Attention of rows of queries over blocks of keys and values. Knows heads, blocks and positions, no sequences.
//!
//! Two properties decide everything here.
//!
//! **Batch invariance.** A row's result is a function of its queries, keys and values alone, to the last bit. Keys are
//! divided into spans of 256 by their position; within a span scores are sums over dimensions in rising order, the
//! softmax takes the span's largest score and adds exponentials in fixed lanes, values are added in order of position;
//! the spans of a row are then merged in order, as an online softmax does. Nothing of this depends on the other rows,
//! on threads, or on how rows are grouped.
//!
//! **Shared prefixes are read once.** Rows whose block lists agree on a block (candidates of one prompt, positions of
//! one prefill) go through its keys and values together, many query vectors for each load. Rows find their partners
//! when they are neighbours in the call, or at least start with the same block.
//!
//! A row whose queries, keys or values are not finite gets a result that is not, and touches no other row.

mod plan;
mod segments;
mod span;
mod tile;

use std::sync::{Mutex, MutexGuard, TryLockError};

use half::f16;

use crate::LANES;
use crate::exp::exp;
use crate::isa::Isa;
use crate::kv_cache::{BLOCK_LEN, KvCache, KvStorage};
use crate::pool::{DisjointSlice, Pool};
use plan::{Plan, spans};
use span::{Buffers, SpanResult, SpanTask};
use tile::Element;

#[cfg(test)]
mod tests;

/// Keys that are attended to in one piece; a multiple of the block length.
const SPAN: usize = 256;
const _: () = assert!(SPAN.is_multiple_of(BLOCK_LEN) && BLOCK_LEN.is_multiple_of(LANES));

/// Floats of a partial result after its values: largest score and sum.
const NORM_LEN: usize = 2;

/// The keys of one row of queries.
#[derive(Debug, Clone, Copy)]
pub struct AttentionRow<'a> {
    /// Blocks of the positions from 0 on; those before the block of `first_key` are not looked at.
    pub blocks: &'a [u32],
    /// First position attended to.
    pub first_key: usize,
    /// Positions before this one are attended to.
    pub num_keys: usize,
}

/// Working memory of [`attend`], reused between calls; one per thread that drives a model.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    plan: Plan,
    /// One per thread; a task takes one that is free.
    buffers: Vec<Mutex<Buffers>>,
    /// Results of single spans of rows with several. `[partials, num_heads, head_dim + NORM_LEN]`
    partials: Vec<f32>,
}

/// What all tasks of a call share.
struct Call<'a> {
    isa: Isa,
    kv: &'a KvCache,
    layer_idx: usize,
    rows: &'a [AttentionRow<'a>],
    num_heads: usize,
    score_scale: f32,
    queries: &'a [f32],
}

/// For each row and head `out = sum_j softmax_j(score_scale * query . key_j) value_j` over the row's keys `j`, with
/// consecutive groups of heads sharing a key/value head.
///
/// # Shapes
/// `queries`, `out`: `[rows, num_heads, head_dim]`.
///
/// # Panics
/// If lengths contradict each other, a row has no key or too few blocks, or a block does not exist.
#[allow(clippy::too_many_arguments, reason = "operands of one formula")]
pub fn attend(
    pool: &Pool,
    kv: &KvCache,
    layer_idx: usize,
    rows: &[AttentionRow<'_>],
    num_heads: usize,
    score_scale: f32,
    queries: &[f32],
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let call = Call {
        isa: Isa::detect(),
        kv,
        layer_idx,
        rows,
        num_heads,
        score_scale,
        queries,
    };
    call.check(out.len());
    call.run_stored(pool, out, scratch);
}

impl Call<'_> {
    fn check(&self, out_len: usize) {
        let layout = self.kv.layout();
        assert!(
            self.num_heads > 0 && self.num_heads.is_multiple_of(layout.num_kv_heads),
            "expected a multiple of {} heads, got {}",
            layout.num_kv_heads,
            self.num_heads
        );
        let queries_len = self.rows.len() * self.num_heads * layout.head_dim;
        assert_eq!(
            self.queries.len(),
            queries_len,
            "expected a query per row and head"
        );
        assert_eq!(out_len, queries_len, "expected an output per row and head");
        for row in self.rows {
            assert!(
                row.first_key < row.num_keys,
                "expected a row with keys, got {row:?}"
            );
            assert!(
                row.num_keys <= row.blocks.len() * BLOCK_LEN,
                "expected blocks for all keys, got {row:?}"
            );
        }
    }

    fn run_stored(&self, pool: &Pool, out: &mut [f32], scratch: &mut AttentionScratch) {
        match self.kv.layout().storage {
            KvStorage::F32 => self.run::<f32>(pool, out, scratch),
            KvStorage::F16 => self.run::<f16>(pool, out, scratch),
        }
    }

    fn run<T: Element>(&self, pool: &Pool, out: &mut [f32], scratch: &mut AttentionScratch) {
        let AttentionScratch {
            plan,
            buffers,
            partials,
        } = scratch;
        plan.update(
            self.rows,
            self.kv.layout().num_kv_heads,
            self.group_len(),
            pool.num_threads(),
        );
        buffers.resize_with(pool.num_threads().max(buffers.len()), Mutex::default);
        let needed = plan.num_partials * self.num_heads * self.partial_len();
        partials.resize(needed.max(partials.len()), 0.0);
        let (plan, buffers) = (&*plan, &*buffers);
        let (shared_out, shared_partials) = (DisjointSlice::new(out), DisjointSlice::new(partials));
        pool.run(plan.tasks.len(), &|task_idx| {
            let buffers = buffers.iter().find_map(try_lock);
            let mut buffers = buffers.expect("no more tasks run at once than there are threads");
            self.run_task::<T>(plan, task_idx, &mut buffers, &shared_out, &shared_partials);
        });
        if plan.num_partials > 0 {
            let row_len = self.num_heads * self.head_dim();
            pool.run_chunks_mut(out, row_len, |row, out| self.merge(plan, row, partials, out));
        }
    }

    /// One span of one head for some rows; writes outputs of rows with a single span and partial results of others.
    fn run_task<T: Element>(
        &self,
        plan: &Plan,
        task_idx: usize,
        buffers: &mut Buffers,
        out: &DisjointSlice<'_, f32>,
        partials: &DisjointSlice<'_, f32>,
    ) {
        let task = &plan.tasks[task_idx];
        let span_task = SpanTask {
            isa: self.isa,
            kv: self.kv,
            layer_idx: self.layer_idx,
            kv_head: task.kv_head,
            span: task.span,
            group_len: self.group_len(),
            score_scale: self.score_scale,
            rows: self.rows,
            queries: self.queries,
        };
        span_task.run::<T>(
            &plan.order[task.rows.clone()],
            buffers,
            |row, head_of_group, result| {
                let head = task.kv_head * self.group_len() + head_of_group;
                match plan.first_partials[row] {
                    None => {
                        let start = (row * self.num_heads + head) * self.head_dim();
                        // SAFETY: this row's only span is in one task, and `finish` is called once per row and head.
                        let out = unsafe { out.range(start..start + self.head_dim()) };
                        out.copy_from_slice(result.weighted_values);
                        divide(out, result.sum);
                    }
                    Some(first) => {
                        let partial = first + task.span - spans(&self.rows[row]).start;
                        let start = (partial * self.num_heads + head) * self.partial_len();
                        // SAFETY: each span of a row and head is in one task.
                        let partial = unsafe { partials.range(start..start + self.partial_len()) };
                        result.store(partial);
                    }
                }
            },
        );
    }

    /// Merges the spans of one row in order.
    fn merge(&self, plan: &Plan, row: usize, partials: &[f32], out: &mut [f32]) {
        let Some(first) = plan.first_partials[row] else {
            return;
        };
        let num_spans = spans(&self.rows[row]).len();
        let partial_len = self.partial_len();
        for (head, out) in out.chunks_exact_mut(self.head_dim()).enumerate() {
            let results = || {
                (first..first + num_spans).map(|partial| {
                    let start = (partial * self.num_heads + head) * partial_len;
                    SpanResult::load(&partials[start..start + partial_len])
                })
            };
            let max = results()
                .map(|result| result.max)
                .fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            out.fill(0.0);
            for result in results() {
                let factor = exp(result.max - max);
                sum += factor * result.sum;
                for (out, value) in out.iter_mut().zip(result.weighted_values) {
                    *out += factor * value;
                }
            }
            divide(out, sum);
        }
    }

    /// Query heads per key/value head.
    fn group_len(&self) -> usize {
        self.num_heads / self.kv.layout().num_kv_heads
    }

    fn head_dim(&self) -> usize {
        self.kv.layout().head_dim
    }

    fn partial_len(&self) -> usize {
        self.head_dim() + NORM_LEN
    }
}

impl<'a> SpanResult<'a> {
    fn store(&self, partial: &mut [f32]) {
        let (values, norm) = partial.split_at_mut(self.weighted_values.len());
        values.copy_from_slice(self.weighted_values);
        norm.copy_from_slice(&[self.max, self.sum]);
    }

    fn load(partial: &'a [f32]) -> Self {
        let (weighted_values, norm) = partial.split_at(partial.len() - NORM_LEN);
        Self {
            max: norm[0],
            sum: norm[1],
            weighted_values,
        }
    }
}

fn divide(out: &mut [f32], sum: f32) {
    let inverse = 1.0 / sum;
    for value in out {
        *value *= inverse;
    }
}

/// The lock if it is free. What a task that panicked left in the buffers does no harm: they are filled before use.
fn try_lock(buffers: &Mutex<Buffers>) -> Option<MutexGuard<'_, Buffers>> {
    match buffers.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
