//! The one training loop. Objectives, data and evaluation are values passed to it; it knows none of them.
//!
//! A run is a function of its configuration, its data and its seed: batches are named by (epoch, index), so a run that
//! was killed goes on from its last checkpoint and ends in the same weights, bit for bit, on the same machine.

mod checkpoint;
mod optimizer;
mod params;
mod schedule;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;

pub use checkpoint::{Checkpoint, CheckpointNames};
pub use optimizer::Optimizer;
pub use params::{load_params, params_of};
pub use schedule::learning_rate;

use crate::config::OptimConfig;
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::run_dir::RunFolder;

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

/// Numbers on data that was held out.
pub trait Judge<M> {
    /// Items it looks at.
    fn num_items(&self) -> u64;

    /// The numbers of these weights.
    ///
    /// # Errors
    /// What reading the data may say.
    fn evaluate(&mut self, module: &M) -> Result<Metrics, TrainError>;

    /// The number among them that chooses the best weights; smaller is better. None keeps the last weights.
    fn selects_by(&self) -> Option<&'static str>;
}

/// The parts that a run is made of.
pub struct Parts<'a, M, B> {
    /// The loss.
    pub objective: &'a mut dyn Objective<M, Batch = B>,
    /// The training data.
    pub source: &'a mut dyn BatchSource<Batch = B>,
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
}

/// Trains `module` for `epochs`, or goes on where the run in `folder` stopped.
///
/// # Errors
/// A loss or gradient that is not finite, files, or [`TrainError::Stopped`] after the callback said so.
pub fn train<'a, M: Module, B>(
    module: M,
    parts: Parts<'a, M, B>,
    (config, epochs): (&'a OptimConfig, u64),
    folder: &mut RunFolder,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<Outcome<M>, TrainError> {
    let plan = StepPlan::new(&*parts.source, config, epochs);
    let mut run = Run {
        module: Some(module),
        optimizer: Optimizer::new(config.weight_decay),
        parts,
        config,
        plan,
        best: None,
        step: 0,
    };
    run.resume(folder)?;
    let started = TrainEvent::Started {
        total_steps: run.plan.total_steps(),
        done_steps: run.step,
        num_train_items: run.parts.source.num_items(),
        num_eval_items: run.parts.judge.num_items(),
    };
    let mut flow = on_event(started);
    while run.step < run.plan.total_steps() {
        if flow.is_break() {
            run.checkpoint(folder)?;
            return Err(TrainError::Stopped { step: run.step });
        }
        let event = run.step(folder)?;
        flow = on_event(event);
        if run.plan.evaluates_after(run.step) {
            let event = run.evaluate(folder)?;
            run.checkpoint(folder)?;
            if on_event(event).is_break() {
                flow = ControlFlow::Break(());
            }
        }
    }
    run.finish(folder)
}

/// Which batches make which step.
struct StepPlan {
    /// Steps done when each epoch ends. `[epochs]`
    epoch_ends: Vec<u64>,
    accumulation: usize,
    eval_every_steps: Option<u64>,
}

impl StepPlan {
    fn new<B>(source: &dyn BatchSource<Batch = B>, config: &OptimConfig, epochs: u64) -> Self {
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

    fn total_steps(&self) -> u64 {
        self.epoch_ends.last().copied().unwrap_or_default()
    }

    /// Epoch and first batch of the step after `done` steps.
    fn locate(&self, done: u64) -> (u64, usize) {
        let epoch = self.epoch_ends.partition_point(|&end| end <= done);
        let begin = if epoch == 0 { 0 } else { self.epoch_ends[epoch - 1] };
        (epoch as u64, (done - begin) as usize * self.accumulation)
    }

    fn evaluates_after(&self, step: u64) -> bool {
        let is_due = match self.eval_every_steps {
            Some(every) => step.is_multiple_of(every),
            None => self.epoch_ends.binary_search(&step).is_ok(),
        };
        is_due || step == self.total_steps()
    }
}

/// The best evaluation so far.
#[derive(Debug, Clone)]
struct Best {
    step: u64,
    metrics: Metrics,
}

struct Run<'a, M, B> {
    /// Taken only inside the optimiser's update.
    module: Option<M>,
    optimizer: Optimizer,
    parts: Parts<'a, M, B>,
    config: &'a OptimConfig,
    plan: StepPlan,
    best: Option<Best>,
    step: u64,
}

/// Gradients of a step, summed over its batches.
struct StepGradients {
    grads: GradientsParams,
    loss_sum: f64,
    num_items: u64,
    epoch: u64,
    batches: String,
}

impl<M: Module, B> Run<'_, M, B> {
    fn module(&self) -> &M {
        self.module
            .as_ref()
            .expect("the module is back after every update")
    }

    fn step(&mut self, folder: &mut RunFolder) -> Result<TrainEvent, TrainError> {
        let mut gradients = self.gradients()?;
        let num_items = gradients.num_items.max(1) as f64;
        let loss = gradients.loss_sum / num_items;
        let grad_norm = optimizer::norm(self.module(), &gradients.grads) / num_items;
        for (what, value) in [("the loss", loss), ("the gradient's norm", grad_norm)] {
            if !value.is_finite() {
                return Err(self.not_finite(what, &gradients, folder));
            }
        }
        let clip = self
            .config
            .clip_norm
            .map_or(1.0, |limit| (limit / grad_norm).min(1.0));
        let rate = learning_rate(self.config, self.step, self.plan.total_steps());
        let module = self.module.take().expect("the module is back after every update");
        let factor = clip / num_items;
        self.module = Some(self.optimizer.step(rate, module, &mut gradients.grads, factor));
        self.step += 1;
        let module = self.module.as_ref().expect("it was just put back");
        self.parts.objective.after_step(module, self.step);
        let numbers = [("loss", loss), ("learning_rate", rate), ("grad_norm", grad_norm)];
        let numbers: Metrics = numbers.map(|(name, value)| (name.to_owned(), value)).into();
        folder.log(self.step, "train", &numbers)?;
        Ok(TrainEvent::Step {
            step: self.step,
            total_steps: self.plan.total_steps(),
            epoch: gradients.epoch,
            num_items: gradients.num_items,
            loss,
            learning_rate: rate,
            grad_norm,
        })
    }

    fn gradients(&mut self) -> Result<StepGradients, TrainError> {
        let (epoch, first) = self.plan.locate(self.step);
        let end = (first + self.config.accumulation).min(self.parts.source.num_batches(epoch));
        let progress = Progress {
            step: self.step,
            epoch,
        };
        let mut sum = GradientsAccumulator::new();
        let (mut loss_sum, mut num_items) = (0.0, 0);
        for idx in first..end {
            let batch = self.parts.source.batch(epoch, idx)?;
            let module = self
                .module
                .as_ref()
                .expect("the module is back after every update");
            let loss = self.parts.objective.loss(module, &batch, progress);
            loss_sum += f64::from(loss.sum.clone().into_scalar::<f32>());
            num_items += loss.num_items;
            sum.accumulate(module, GradientsParams::from_grads(loss.sum.backward(), module));
        }
        Ok(StepGradients {
            grads: sum.grads(),
            loss_sum,
            num_items,
            epoch,
            batches: format!("{first} to {} of epoch {epoch}", end.saturating_sub(1)),
        })
    }

    fn not_finite(&self, what: &'static str, gradients: &StepGradients, folder: &RunFolder) -> TrainError {
        let names = CheckpointNames::in_folder(folder.path());
        let checkpoint = if names.last.exists() {
            names.last.display().to_string()
        } else {
            "none (it was before the first evaluation)".to_owned()
        };
        TrainError::NotFinite {
            what,
            step: self.step + 1,
            batch: gradients.batches.clone(),
            checkpoint,
        }
    }

    fn evaluate(&mut self, folder: &mut RunFolder) -> Result<TrainEvent, TrainError> {
        let module = self
            .module
            .as_ref()
            .expect("the module is back after every update");
        let metrics = self.parts.judge.evaluate(&module.valid())?;
        folder.log(self.step, "eval", &metrics)?;
        let is_best = match (self.parts.judge.selects_by(), &self.best) {
            (Some(name), Some(best)) => metrics.get(name) < best.metrics.get(name),
            _ => true,
        };
        if is_best {
            self.best = Some(Best {
                step: self.step,
                metrics: metrics.clone(),
            });
            let best = Checkpoint::of_weights(self.module(), self.step, &metrics);
            best.write(&CheckpointNames::in_folder(folder.path()).best)?;
        }
        Ok(TrainEvent::Evaluated {
            step: self.step,
            metrics,
            is_best,
        })
    }

    fn checkpoint(&self, folder: &mut RunFolder) -> Result<(), TrainError> {
        folder.flush()?;
        let metrics = self
            .best
            .as_ref()
            .map(|best| best.metrics.clone())
            .unwrap_or_default();
        let mut checkpoint = Checkpoint::of_weights(self.module(), self.step, &metrics);
        checkpoint.best_step = self.best.as_ref().map(|best| best.step);
        checkpoint.moments = self.optimizer.to_tensors();
        checkpoint.companion = self
            .parts
            .objective
            .companion()
            .map(params_of)
            .unwrap_or_default();
        checkpoint.write(&CheckpointNames::in_folder(folder.path()).last)
    }

    fn resume(&mut self, folder: &mut RunFolder) -> Result<(), TrainError> {
        let path = CheckpointNames::in_folder(folder.path()).last;
        if !path.exists() {
            return folder.rewind_to(0);
        }
        let checkpoint = Checkpoint::read(&path)?;
        let module = self.module.take().expect("the module is back after every update");
        let restore = |module: M, params: &BTreeMap<_, _>| {
            load_params(module, params).map_err(|problem| TrainError::bad_file(&path, problem))
        };
        if !checkpoint.companion.is_empty() {
            let companion = restore(module.clone(), &checkpoint.companion)?;
            self.parts.objective.restore_companion(companion.no_grad());
        }
        self.module = Some(restore(module, &checkpoint.weights)?);
        self.optimizer
            .load_tensors(&checkpoint.moments, &self.module().devices())
            .map_err(|problem| TrainError::bad_file(&path, problem))?;
        self.step = checkpoint.step;
        let metrics = checkpoint.metrics;
        self.best = checkpoint.best_step.map(|step| Best { step, metrics });
        folder.rewind_to(self.step)
    }

    fn finish(self, folder: &mut RunFolder) -> Result<Outcome<M>, TrainError> {
        folder.flush()?;
        let best = self.best.expect("a run ends with an evaluation");
        let path = CheckpointNames::in_folder(folder.path()).best;
        let module = self.module.expect("the module is back after every update");
        let module = load_params(module, &Checkpoint::read(&path)?.weights)
            .map_err(|problem| TrainError::bad_file(&path, problem))?;
        Ok(Outcome {
            module,
            metrics: best.metrics,
            step: best.step,
        })
    }
}
