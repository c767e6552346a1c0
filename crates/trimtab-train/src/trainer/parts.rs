//! What a run is made of, as traits: loss, data, evaluation. Knows no loop.

use burn::tensor::Tensor;

use crate::error::TrainError;
use crate::events::Metrics;

/// Where in the run a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Optimiser steps done.
    pub step: u64,
    /// Pass over the data, counted from 0.
    pub epoch: u64,
}

/// What an objective says about one batch.
#[derive(Debug)]
pub struct Loss {
    /// Sum over the batch's items, on the tape. `[1]`
    pub sum: Tensor<1>,
    /// Items in the batch; gradients are divided by those of the whole step.
    pub num_items: u64,
}

/// A loss to minimise.
pub trait Objective<M> {
    /// What it reads.
    type Batch;

    /// The loss of a batch.
    fn loss(&self, module: &M, batch: &Self::Batch, progress: Progress) -> Loss;

    /// Told after each step, for a second set of weights that follows the first.
    fn after_step(&mut self, _module: &M, _step: u64) {}

    /// A second set of weights of the same shape (a target network), which checkpoints must carry.
    fn companion(&self) -> Option<&M> {
        None
    }

    /// Puts back what [`Self::companion`] gave.
    fn restore_companion(&mut self, _companion: M) {}

    /// Pieces of a batch whose gradients are computed one after another, so that only one piece's tape is in memory.
    fn num_pieces(&self, _batch: &Self::Batch) -> usize {
        1
    }

    /// The loss of one piece; those of all pieces add up to [`Self::loss`].
    fn piece_loss(&self, module: &M, batch: &Self::Batch, _piece: usize, progress: Progress) -> Loss {
        self.loss(module, batch, progress)
    }

    /// Told when all losses of a step are known and the weights have not moved yet.
    fn verdict(&mut self, _progress: Progress) -> Verdict {
        Verdict::default()
    }

    /// Told at the start which weights a run that goes on has kept.
    fn restore_kept(&mut self, _names: &[String]) {}

    /// Numbers of past steps that later verdicts look at, which checkpoints must carry.
    fn memory(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Puts back what [`Self::memory`] gave.
    fn restore_memory(&mut self, _memory: &[f64]) {}
}

/// Batches by name: every call with the same numbers gives the same batch.
pub trait BatchSource {
    /// What it makes.
    type Batch;

    /// Batches of one epoch.
    fn num_batches(&self, epoch: u64) -> usize;

    /// Items of one epoch.
    fn num_items(&self) -> u64;

    /// Batch `idx` of `epoch`.
    ///
    /// # Errors
    /// What reading the data may say.
    fn batch(&mut self, epoch: u64, idx: usize) -> Result<Self::Batch, TrainError>;
}

/// Batches that may depend on the weights that will learn from them: on-policy data is drawn here.
///
/// Every [`BatchSource`] is one that does not look at the weights.
pub trait WeightedSource<M> {
    /// What it makes.
    type Batch;

    /// Batches of one epoch, known before anything is drawn.
    fn num_batches(&self, epoch: u64) -> usize;

    /// Whether batches depend on the weights: then what the last update did is seen in one more batch only.
    fn follows_weights(&self) -> bool {
        false
    }

    /// Items of one epoch.
    fn num_items(&self) -> u64;

    /// Told the weights before the batches of a step are asked for.
    ///
    /// # Errors
    /// What drawing may say.
    fn prepare(&mut self, module: &M, progress: Progress) -> Result<(), TrainError>;

    /// Batch `idx` of `epoch`, a function of these numbers and of the weights of the epoch's first step.
    ///
    /// # Errors
    /// What reading the data may say.
    fn batch(&mut self, epoch: u64, idx: usize) -> Result<Self::Batch, TrainError>;
}

impl<M, S: BatchSource> WeightedSource<M> for S {
    type Batch = S::Batch;

    fn num_batches(&self, epoch: u64) -> usize {
        BatchSource::num_batches(self, epoch)
    }

    fn num_items(&self) -> u64 {
        BatchSource::num_items(self)
    }

    fn prepare(&mut self, _module: &M, _progress: Progress) -> Result<(), TrainError> {
        Ok(())
    }

    fn batch(&mut self, epoch: u64, idx: usize) -> Result<S::Batch, TrainError> {
        BatchSource::batch(self, epoch, idx)
    }
}

/// What is to happen after numbers were seen: of a step before the weights move, or of an evaluation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Numbers to log with the step.
    pub metrics: Metrics,
    /// Weights to keep, as they are now, under these names.
    pub keep: Vec<String>,
    /// Whether and why the run ends here.
    pub stop: Option<Stop>,
}

/// Why a run ends before its last step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It has gone as far as was asked: the weights are good, and the reason is in words.
    Reached(String),
    /// It went wrong: an error, which names the last good checkpoint.
    Diverged(String),
}

/// Numbers on data that was held out.
pub trait Judge<M> {
    /// Items it looks at.
    fn num_items(&self) -> u64;

    /// The numbers of these weights, which so many optimiser steps made.
    ///
    /// # Errors
    /// What reading the data may say.
    fn evaluate(&mut self, module: &M, step: u64) -> Result<Metrics, TrainError>;

    /// The number among them that chooses the best weights; smaller is better. None keeps the last weights.
    fn selects_by(&self) -> Option<&'static str>;

    /// What is to happen after an evaluation.
    fn verdict(&mut self, _metrics: &Metrics) -> Verdict {
        Verdict::default()
    }

    /// Told at the start which weights a run that goes on has kept.
    fn restore_kept(&mut self, _names: &[String]) {}
}

/// The parts that a run is made of.
pub struct Parts<'a, M, B> {
    /// The loss.
    pub objective: &'a mut dyn Objective<M, Batch = B>,
    /// The training data.
    pub source: &'a mut dyn WeightedSource<M, Batch = B>,
    /// The evaluation.
    pub judge: &'a mut dyn Judge<M>,
}

/// What a run ends with.
#[derive(Debug)]
pub struct Outcome<M> {
    /// The best weights by the judge, or the last.
    pub module: M,
    /// The judge's numbers of these weights.
    pub metrics: Metrics,
    /// The step they are from.
    pub step: u64,
    /// Why the run ended before its last step, if it did.
    pub stopped: Option<String>,
    /// The last of every number that a step or an evaluation gave.
    pub last: Metrics,
}
