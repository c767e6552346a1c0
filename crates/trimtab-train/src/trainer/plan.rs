//! Which batches make which step. Knows counts, no data.

use super::parts::WeightedSource;
use crate::config::OptimConfig;

/// Which batches make which step.
pub(super) struct StepPlan {
    /// Steps done when each epoch ends. `[epochs]`
    epoch_ends: Vec<u64>,
    accumulation: usize,
    eval_every_steps: Option<u64>,
}

impl StepPlan {
    pub(super) fn new<M, B>(
        source: &dyn WeightedSource<M, Batch = B>,
        config: &OptimConfig,
        epochs: u64,
    ) -> Self {
        let mut total = 0;
        let epoch_ends = (0..epochs)
            .map(|epoch| {
                total += source.num_batches(epoch).div_ceil(config.accumulation) as u64;
                total
            })
            .collect();
        Self {
            epoch_ends,
            accumulation: config.accumulation,
            eval_every_steps: config.eval_every_steps,
        }
    }

    pub(super) fn total_steps(&self) -> u64 {
        self.epoch_ends.last().copied().unwrap_or_default()
    }

    /// Epoch and first batch of the step after `done` steps.
    pub(super) fn locate(&self, done: u64) -> (u64, usize) {
        let epoch = self.epoch_ends.partition_point(|&end| end <= done);
        let begin = if epoch == 0 { 0 } else { self.epoch_ends[epoch - 1] };
        (epoch as u64, (done - begin) as usize * self.accumulation)
    }

    pub(super) fn evaluates_after(&self, step: u64) -> bool {
        let is_due = match self.eval_every_steps {
            Some(every) => step.is_multiple_of(every),
            None => self.epoch_ends.binary_search(&step).is_ok(),
        };
        is_due || step == self.total_steps()
    }
}
