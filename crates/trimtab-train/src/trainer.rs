//! The one training loop. Objectives, data and evaluation are values passed to it; it knows none of them.
//!
//! A run is a function of its configuration, its data and its seed: batches are named by (epoch, index), so a run that
//! was killed goes on from its last checkpoint and ends in the same weights, bit for bit, on the same machine.
//!
//! A run that goes wrong names weights that were good. On data that follows the weights those are the ones before the last
//! update, because a batch judges the weights that drew it; on given data those of the last evaluation, whose numbers are
//! known. Before either there are those that the run began with: it begins with a checkpoint.

mod checkpoint;
mod in_memory;
mod optimizer;
mod params;
mod parts;
mod plan;
mod scalars;
mod schedule;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};

pub use checkpoint::{Checkpoint, CheckpointNames};
pub use optimizer::Optimizer;
pub use params::{load_params, params_of};
pub use parts::{
    BatchSource, Judge, Loss, Objective, Outcome, Parts, Progress, Stop, Verdict, WeightedSource,
};
pub use schedule::learning_rate;

use plan::StepPlan;
use scalars::Scalars;

use crate::config::OptimConfig;
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::run_dir::RunFolder;

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
        previous: None,
        optimizer: Optimizer::new(config.weight_decay),
        parts,
        config,
        plan,
        best: None,
        step: 0,
        stopped: None,
        last: Metrics::new(),
    };
    run.resume(folder)?;
    let started = TrainEvent::Started {
        total_steps: run.plan.total_steps(),
        done_steps: run.step,
        num_train_items: run.parts.source.num_items(),
        num_eval_items: run.parts.judge.num_items(),
    };
    let mut flow = on_event(started);
    while run.stopped.is_none() && run.step < run.plan.total_steps() {
        if flow.is_break() {
            run.checkpoint(folder)?;
            return Err(TrainError::Stopped { step: run.step });
        }
        if let Some(event) = run.step(folder)? {
            flow = on_event(event);
        }
        if run.step == run.plan.total_steps() && run.parts.source.follows_weights() {
            run.look(folder)?;
        }
        if run.stopped.is_some() || run.plan.evaluates_after(run.step) {
            let event = run.evaluate(folder)?;
            run.checkpoint(folder)?;
            if on_event(event).is_break() {
                flow = ControlFlow::Break(());
            }
        }
    }
    run.finish(folder)
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
    /// On data that follows the weights: those before the last update, which the numbers of the last step are of.
    previous: Option<M>,
    optimizer: Optimizer,
    parts: Parts<'a, M, B>,
    config: &'a OptimConfig,
    plan: StepPlan,
    best: Option<Best>,
    step: u64,
    /// Why it ends before its last step.
    stopped: Option<String>,
    /// The last of every number.
    last: Metrics,
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

    /// One update, or none where the objective says that this is the end.
    fn step(&mut self, folder: &mut RunFolder) -> Result<Option<TrainEvent>, TrainError> {
        let mut gradients = self.gradients()?;
        let (loss, grad_norm, mut numbers) = self.judge_gradients(&gradients, folder)?;
        let num_items = gradients.num_items.max(1) as f64;
        if self.stopped.is_some() {
            folder.log(self.step, "stop", &numbers)?;
            self.last.extend(numbers);
            return Ok(None);
        }
        let clip = self
            .config
            .clip_norm
            .map_or(1.0, |limit| (limit / grad_norm).min(1.0));
        let rate = learning_rate(self.config, self.step, self.plan.total_steps());
        let module = self.module.take().expect("the module is back after every update");
        if self.parts.source.follows_weights() {
            // A copy of all weights, which is 3% of a step: on given data the last evaluation's are near enough.
            self.previous = Some(module.clone());
        }
        let factor = clip / num_items;
        self.module = Some(self.optimizer.step(rate, module, &mut gradients.grads, factor));
        self.step += 1;
        let module = self.module.as_ref().expect("it was just put back");
        self.parts.objective.after_step(module, self.step);
        let of_the_loop = [("loss", loss), ("learning_rate", rate), ("grad_norm", grad_norm)];
        numbers.extend(of_the_loop.map(|(name, value)| (name.to_owned(), value)));
        folder.log(self.step, "train", &numbers)?;
        self.last.extend(numbers.clone());
        Ok(Some(TrainEvent::Step {
            step: self.step,
            total_steps: self.plan.total_steps(),
            epoch: gradients.epoch,
            num_items: gradients.num_items,
            loss,
            learning_rate: rate,
            grad_norm,
            metrics: numbers,
        }))
    }

    /// What the next step would see, for what the last one did; nothing moves.
    fn look(&mut self, folder: &mut RunFolder) -> Result<(), TrainError> {
        if self.stopped.is_some() {
            return Ok(());
        }
        let gradients = self.gradients()?;
        let (_, _, numbers) = self.judge_gradients(&gradients, folder)?;
        folder.log(self.step, "end", &numbers)?;
        self.last.extend(numbers);
        Ok(())
    }

    /// Loss, the gradient's norm and the objective's numbers, which may end the run.
    fn judge_gradients(
        &mut self,
        gradients: &StepGradients,
        folder: &RunFolder,
    ) -> Result<(f64, f64, Metrics), TrainError> {
        let num_items = gradients.num_items.max(1) as f64;
        let loss = gradients.loss_sum / num_items;
        let grad_norm = optimizer::norm(self.module(), &gradients.grads) / num_items;
        for (what, value) in [("the loss", loss), ("the gradient's norm", grad_norm)] {
            if !value.is_finite() {
                return Err(TrainError::NotFinite {
                    what,
                    step: self.step + 1,
                    batch: gradients.batches.clone(),
                    good: self.keep_good(folder)?,
                });
            }
        }
        let progress = Progress {
            step: self.step,
            epoch: gradients.epoch,
        };
        let verdict = self.parts.objective.verdict(progress);
        let numbers = self.follow(verdict, folder, |run| run.keep_good(folder))?;
        Ok((loss, grad_norm, numbers))
    }

    /// Writes the weights before the last update, or names those of the last evaluation; what was seen of them was good.
    fn keep_good(&self, folder: &RunFolder) -> Result<PathBuf, TrainError> {
        let Some(previous) = &self.previous else {
            return Ok(last_evaluated(folder));
        };
        let path = CheckpointNames::in_folder(folder.path()).good;
        Checkpoint::of_weights(previous, self.step - 1, &self.last).write(&path)?;
        Ok(path)
    }

    /// Keeps the weights and ends the run as a verdict says; gives its numbers back.
    fn follow(
        &mut self,
        verdict: Verdict,
        folder: &RunFolder,
        good: impl FnOnce(&Self) -> Result<PathBuf, TrainError>,
    ) -> Result<Metrics, TrainError> {
        let Verdict { metrics, keep, stop } = verdict;
        let names = CheckpointNames::in_folder(folder.path());
        for name in keep {
            let kept = Checkpoint::of_weights(self.module(), self.step, &metrics);
            kept.write(&names.kept(&name))?;
        }
        match stop {
            None => {}
            Some(Stop::Reached(cause)) => self.stopped = Some(cause),
            Some(Stop::Diverged(cause)) => {
                return Err(TrainError::Diverged {
                    cause,
                    step: self.step + 1,
                    good: good(self)?,
                });
            }
        }
        Ok(metrics)
    }

    fn gradients(&mut self) -> Result<StepGradients, TrainError> {
        let (epoch, first) = self.plan.locate(self.step);
        let end = (first + self.config.accumulation).min(self.parts.source.num_batches(epoch));
        let progress = Progress {
            step: self.step,
            epoch,
        };
        let mut sum = GradientsAccumulator::new();
        let (mut losses, mut num_items) = (Scalars::default(), 0);
        let module = self
            .module
            .as_ref()
            .expect("the module is back after every update");
        self.parts.source.prepare(module, progress)?;
        for idx in first..end {
            let batch = self.parts.source.batch(epoch, idx)?;
            for piece in 0..self.parts.objective.num_pieces(&batch) {
                let loss = self.parts.objective.piece_loss(module, &batch, piece, progress);
                losses.push(loss.sum.clone().detach());
                num_items += loss.num_items;
                sum.accumulate(module, GradientsParams::from_grads(loss.sum.backward(), module));
            }
        }
        Ok(StepGradients {
            grads: sum.grads(),
            loss_sum: losses.read().into_iter().map(f64::from).sum(),
            num_items,
            epoch,
            batches: format!("{first} to {} of epoch {epoch}", end.saturating_sub(1)),
        })
    }

    fn evaluate(&mut self, folder: &mut RunFolder) -> Result<TrainEvent, TrainError> {
        let module = self
            .module
            .as_ref()
            .expect("the module is back after every update");
        let metrics = self.parts.judge.evaluate(&module.valid(), self.step)?;
        folder.log(self.step, "eval", &metrics)?;
        self.last.extend(metrics.clone());
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
        let verdict = self.parts.judge.verdict(&metrics);
        self.follow(verdict, folder, |_| Ok(last_evaluated(folder)))?;
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
        checkpoint.stopped.clone_from(&self.stopped);
        checkpoint.last.clone_from(&self.last);
        checkpoint.memory = self.parts.objective.memory();
        checkpoint.moments = self.optimizer.to_tensors();
        checkpoint.companion = self
            .parts
            .objective
            .companion()
            .map(params_of)
            .unwrap_or_default();
        let goes_on = self.stopped.is_none() && self.step < self.plan.total_steps();
        if let Some(previous) = self.previous.as_ref().filter(|_| goes_on) {
            checkpoint.previous = params_of(previous);
        }
        checkpoint.write(&CheckpointNames::in_folder(folder.path()).last)
    }

    fn resume(&mut self, folder: &mut RunFolder) -> Result<(), TrainError> {
        let names = CheckpointNames::in_folder(folder.path());
        let path = names.last.clone();
        if !path.exists() {
            names.forget_kept_after(None)?;
            folder.rewind_to(0)?;
            return self.checkpoint(folder);
        }
        let checkpoint = Checkpoint::read(&path)?;
        let kept = names.forget_kept_after(Some(checkpoint.step))?;
        self.parts.objective.restore_kept(&kept);
        self.parts.judge.restore_kept(&kept);
        self.parts.objective.restore_memory(&checkpoint.memory);
        let module = self.module.take().expect("the module is back after every update");
        let restore = |module: M, params: &BTreeMap<_, _>| {
            load_params(module, params).map_err(|problem| TrainError::bad_file(&path, problem))
        };
        if !checkpoint.companion.is_empty() {
            let companion = restore(module.clone(), &checkpoint.companion)?;
            self.parts.objective.restore_companion(companion.no_grad());
        }
        if !checkpoint.previous.is_empty() {
            self.previous = Some(restore(module.clone(), &checkpoint.previous)?);
        }
        self.module = Some(restore(module, &checkpoint.weights)?);
        self.optimizer
            .load_tensors(&checkpoint.moments, &self.module().devices())
            .map_err(|problem| TrainError::bad_file(&path, problem))?;
        self.step = checkpoint.step;
        self.stopped = checkpoint.stopped;
        self.last = checkpoint.last;
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
            stopped: self.stopped,
            last: self.last,
        })
    }
}

/// The weights of the evaluation before this one, which are written when it has passed; before any, those of the beginning.
fn last_evaluated(folder: &RunFolder) -> PathBuf {
    CheckpointNames::in_folder(folder.path()).last
}
