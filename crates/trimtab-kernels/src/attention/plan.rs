//! How the rows of a call are divided into tasks: who shares keys works together, and all threads have work.
//!
//! A plan decides what is computed side by side, never the order of the sums of a row.

use std::ops::Range;

use super::{AttentionRow, SPAN};
use crate::kv_cache::BLOCK_LEN;

/// Query vectors of a task: with a span's scores they stay in the second-level cache.
const MAX_TASK_QUERIES: usize = 96;
/// Query vectors below which a task is not divided further: a tile of the kernels.
const MIN_TASK_QUERIES: usize = 12;
/// Tasks per thread: enough that a thread slowed by others on the machine does not hold up the rest.
const TASKS_PER_THREAD: usize = 4;

/// One span of keys of one head, for some of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Indices into [`Plan::order`].
    pub(super) rows: Range<usize>,
    pub(super) span: usize,
    pub(super) kv_head: usize,
}

/// The tasks of one call.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Rows, those with a common first block next to each other.
    pub(super) order: Vec<u32>,
    pub(super) tasks: Vec<Task>,
    /// For each row the index of its first partial result; rows of a single span have none.
    pub(super) first_partials: Vec<Option<usize>>,
    pub(super) num_partials: usize,
}

/// Spans that hold keys of a row.
pub(super) fn spans(row: &AttentionRow<'_>) -> Range<usize> {
    row.first_key / SPAN..row.num_keys.div_ceil(SPAN)
}

impl Plan {
    /// Plans anew for `rows`; `group_len` query heads share one of `num_kv_heads`.
    pub(super) fn update(
        &mut self,
        rows: &[AttentionRow<'_>],
        num_kv_heads: usize,
        group_len: usize,
        num_threads: usize,
    ) {
        let first_block = |row: &AttentionRow<'_>| row.blocks[row.first_key / BLOCK_LEN];
        self.order.clear();
        self.order.extend(0..rows.len() as u32);
        // Stable, so that rows of one prompt that share more than the first block stay as they came.
        self.order.sort_by_key(|&row| first_block(&rows[row as usize]));
        self.first_partials.clear();
        self.num_partials = 0;
        for row in rows {
            let num_spans = spans(row).len();
            self.first_partials
                .push((num_spans > 1).then_some(self.num_partials));
            self.num_partials += if num_spans > 1 { num_spans } else { 0 };
        }
        let order = std::mem::take(&mut self.order);
        let groups =
            || order.chunk_by(|&a, &b| first_block(&rows[a as usize]) == first_block(&rows[b as usize]));
        let num_wanted = num_threads * TASKS_PER_THREAD;
        let num_tasks = |rows_per_task: usize| {
            let of_group =
                |group: &[u32]| group_spans(rows, group).len() * group.len().div_ceil(rows_per_task);
            groups().map(of_group).sum::<usize>() * num_kv_heads
        };
        let mut rows_per_task = (MAX_TASK_QUERIES / group_len).max(1);
        while rows_per_task * group_len >= 2 * MIN_TASK_QUERIES && num_tasks(rows_per_task) < num_wanted {
            rows_per_task = rows_per_task.div_ceil(2);
        }
        self.tasks.clear();
        let mut start = 0;
        for group in groups() {
            for span in group_spans(rows, group) {
                for kv_head in 0..num_kv_heads {
                    // Tasks that read the same keys follow each other.
                    for first in (0..group.len()).step_by(rows_per_task) {
                        let rows = start + first..start + group.len().min(first + rows_per_task);
                        self.tasks.push(Task { rows, span, kv_head });
                    }
                }
            }
            start += group.len();
        }
        self.order = order;
    }
}

/// Spans that hold keys of any row of a group.
fn group_spans(rows: &[AttentionRow<'_>], group: &[u32]) -> Range<usize> {
    let of_row = |&row: &u32| spans(&rows[row as usize]);
    let both = |a: Range<usize>, b: Range<usize>| a.start.min(b.start)..a.end.max(b.end);
    group.iter().map(of_row).reduce(both).unwrap_or(0..0)
}
