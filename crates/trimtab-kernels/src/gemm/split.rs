//! How the tiles of a product are divided into tasks.

use std::ops::Range;

/// A grid of tasks: each covers a block of rows and a run of panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    pub(super) rows: usize,
    pub(super) num_panels: usize,
    /// Rows of a task; a multiple of the kernel's tile, small enough that their activations stay in cache.
    pub(super) rows_per_task: usize,
    /// Panels of a task; a multiple of the kernel's tile.
    pub(super) panels_per_task: usize,
}

/// Tasks per thread: enough that a thread slowed by others on the machine does not hold up the rest.
const TASKS_PER_THREAD: usize = 4;

impl Split {
    /// Divides `num_panels` so that there are some tasks for each thread, none below `min_task_panels`.
    pub(super) fn panels_per_task(
        num_threads: usize,
        num_row_blocks: usize,
        num_panels: usize,
        min_task_panels: usize,
        tile_panels: usize,
    ) -> usize {
        let num_wanted = match num_threads {
            1 => 1,
            _ => (num_threads * TASKS_PER_THREAD).div_ceil(num_row_blocks),
        };
        num_panels
            .div_ceil(num_wanted)
            .max(min_task_panels)
            .next_multiple_of(tile_panels)
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
