//! What a training run tells its caller while it goes. Knows no clock: times to come are the caller's to estimate.

use std::collections::BTreeMap;

/// Named numbers of an evaluation or of a step.
pub type Metrics = BTreeMap<String, f64>;

/// Progress of a run. The callback answers `ControlFlow::Break` to stop after a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainEvent {
    /// The data is ready.
    Started {
        /// Optimiser steps of the whole run; an estimate from the first epoch's batches.
        total_steps: u64,
        /// Steps that an earlier run of this folder had done already.
        done_steps: u64,
        /// Items (prefixes) of the training part.
        num_train_items: u64,
        /// Items (prefixes) of the evaluation part.
        num_eval_items: u64,
    },
    /// One optimiser step was made.
    Step {
        /// Its number, counted from 1.
        step: u64,
        /// Optimiser steps of the whole run.
        total_steps: u64,
        /// Pass over the data, counted from 0.
        epoch: u64,
        /// Items (prefixes) in the step.
        num_items: u64,
        /// Mean loss of an item in normalised units.
        loss: f64,
        /// Learning rate used.
        learning_rate: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// All numbers of the step, those of the objective among them.
        metrics: Metrics,
    },
    /// The evaluation part was looked at and a checkpoint written.
    Evaluated {
        /// Steps done.
        step: u64,
        /// The numbers.
        metrics: Metrics,
        /// Whether these are the best weights so far.
        is_best: bool,
    },
}
