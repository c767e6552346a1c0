//! How the tiles of a product are divided into tasks.

use std::ops::Range;

/// A grid of tasks: each covers a block of rows and a run of panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    rows: usize,
    num_panels: usize,
    /// Rows of a task; a multiple of the kernel's tile, small enough that their activations stay in cache.
    rows_per_task: usize,
    /// Panels of a task; a multiple of the kernel's tile.
    panels_per_task: usize,
}

/// Tasks per thread: enough that a thread slowed by others on the machine does not hold up the rest.
const TASKS_PER_THREAD: usize = 4;

/// Weights of a task below which it is not worth its claim.
const MIN_TASK_BYTES: usize = 32 << 10;
/// Weights of a task that stay in the second-level cache while the task goes over them for one group of rows after
/// the other.
const MAX_TASK_BYTES: usize = 384 << 10;

impl Split {
    /// Divides `num_panels` panels of `panel_bytes` so that there are some tasks for each thread.
    pub(super) fn new(
        (rows, rows_per_task): (usize, usize),
        (num_panels, panel_bytes): (usize, usize),
        tile_panels: usize,
        num_threads: usize,
    ) -> Self {
        let num_row_blocks = rows.div_ceil(rows_per_task);
        let num_wanted = (num_threads * TASKS_PER_THREAD).div_ceil(num_row_blocks);
        let (min_panels, max_panels) = (MIN_TASK_BYTES / panel_bytes, MAX_TASK_BYTES / panel_bytes);
        let panels_per_task = num_panels.div_ceil(num_wanted).min(max_panels).max(min_panels);
        Self {
            rows,
            num_panels,
            rows_per_task,
            panels_per_task: panels_per_task.max(1).next_multiple_of(tile_panels),
        }
    }

    pub(super) fn num_tasks(&self) -> usize {
        self.num_row_blocks() * self.num_panels.div_ceil(self.panels_per_task)
    }

    /// Rows and panels of one task. Tasks that share weights follow each other.
    pub(super) fn task(&self, task_idx: usize) -> (Range<usize>, Range<usize>) {
        let (panel_block, row_block) = (task_idx / self.num_row_blocks(), task_idx % self.num_row_blocks());
        let cut = |block: usize, len: usize, total: usize| block * len..((block + 1) * len).min(total);
        (
            cut(row_block, self.rows_per_task, self.rows),
            cut(panel_block, self.panels_per_task, self.num_panels),
        )
    }

    fn num_row_blocks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_task)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tasks_cover_each_row_and_panel_once(
            rows in 1_usize..300,
            rows_per_task in 1_usize..100,
            num_panels in 1_usize..60,
            panel_bytes in 1_usize..200_000,
            tile_panels in 1_usize..5,
            num_threads in 1_usize..9,
        ) {
            let split = Split::new((rows, rows_per_task), (num_panels, panel_bytes), tile_panels, num_threads);
            let mut counts = vec![0; rows * num_panels];
            for task_idx in 0..split.num_tasks() {
                let (rows, panels) = split.task(task_idx);
                prop_assert!(!rows.is_empty() && !panels.is_empty());
                prop_assert!(rows.start.is_multiple_of(rows_per_task) && panels.start.is_multiple_of(tile_panels));
                for row in rows {
                    panels.clone().for_each(|panel| counts[row * num_panels + panel] += 1);
                }
            }
            prop_assert!(counts.iter().all(|&count| count == 1));
        }
    }
}
