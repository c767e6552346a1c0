//! Judgements as batches, loss and evaluation for the one loop, wherever states come from. Knows no decoder and no file.

use burn::tensor::Tensor;
use trimtab_base::Seed;

use super::judgements::{Judgements, refuse};
use crate::batches::{Packing, plan_batches};
use crate::config::Select;
use crate::error::TrainError;
use crate::events::Metrics;
use crate::heads::Heads;
use crate::objectives::classifier::{BatchVerdicts, ClassifierLoss};
use crate::prefix_batches::is_held_out;
use crate::prefix_metrics::accuracy_metrics;
use crate::trainer::{BatchSource, Judge, Loss, Objective, Progress};

/// Items sorted together by length, where batches are padded.
const WINDOW: usize = 512;

/// States of texts under the weights of `M`, kept or computed.
pub(super) trait States<M> {
    /// Standardised states of these texts. `[texts, hidden]`
    fn read(&self, module: &M, texts: &[u32]) -> Tensor<2>;

    /// The head of a task.
    fn head<'m>(&self, module: &'m M, head_idx: usize) -> &'m Heads;

    /// What a text counts in a batch: tokens, or 1.
    fn text_len(&self, text: u32) -> usize;

    /// Whether a batch is a rectangle, so that its length is that of the longest text times their number.
    fn is_padded(&self) -> bool;
}

/// A head's judgements, divided.
pub(super) struct Task<'a> {
    /// Before its metrics, where there are several.
    pub(super) name: &'a str,
    pub(super) judgements: &'a Judgements,
    pub(super) train: Vec<usize>,
    pub(super) eval: Vec<usize>,
}

impl<'a> Task<'a> {
    /// Divides by keys.
    ///
    /// # Errors
    /// A part that is left empty.
    pub(super) fn new(
        name: &'a str,
        judgements: &'a Judgements,
        eval_fraction: f64,
        seed: Seed,
    ) -> Result<Self, TrainError> {
        let held_out = |&idx: &usize| is_held_out(judgements.keys[idx], eval_fraction, seed);
        let (eval, train): (Vec<usize>, Vec<usize>) = (0..judgements.len()).partition(held_out);
        if eval.is_empty() || train.is_empty() {
            return refuse(format!(
                "the prompts leave {} items to train and {} to evaluate, expected some of both: more prompts or \
                 another eval_fraction",
                train.len(),
                eval.len()
            ));
        }
        Ok(Self {
            name,
            judgements,
            train,
            eval,
        })
    }
}

/// Some items of one task.
#[derive(Debug)]
pub(super) struct ItemBatch {
    head_idx: usize,
    /// As [`Judgements::texts_of`] gives them.
    texts: Vec<u32>,
    verdicts: BatchVerdicts,
}

impl ItemBatch {
    fn new(head_idx: usize, judgements: &Judgements, items: &[usize]) -> Self {
        Self {
            head_idx,
            texts: judgements.texts_of(items),
            verdicts: judgements.verdicts_of(items),
        }
    }
}

/// The loss of items through whatever gives their states.
pub(super) struct OnItems<'a, S> {
    pub(super) states: &'a S,
    pub(super) loss: ClassifierLoss,
}

impl<S> OnItems<'_, S> {
    fn logits<M>(&self, module: &M, batch: &ItemBatch) -> Tensor<1>
    where
        S: States<M>,
    {
        let hidden = self.states.read(module, &batch.texts);
        self.states.head(module, batch.head_idx).state.forward(hidden)
    }
}

impl<M, S: States<M>> Objective<M> for OnItems<'_, S> {
    type Batch = ItemBatch;

    fn loss(&self, module: &M, batch: &ItemBatch, _progress: Progress) -> Loss {
        self.loss.of_logits(self.logits(module, batch), &batch.verdicts)
    }
}

/// Task and items of each batch of an epoch.
type EpochPlan = Vec<(usize, Vec<usize>)>;

/// The training parts of all tasks as shuffled batches, each of one task, spread evenly over an epoch.
pub(super) struct ItemSource<'a> {
    tasks: &'a [Task<'a>],
    batch_len: usize,
    seed: Seed,
    /// Epoch and batches planned last.
    plan: Option<(u64, EpochPlan)>,
    /// What a text counts.
    text_len: Vec<Vec<usize>>,
    is_padded: bool,
}

impl<'a> ItemSource<'a> {
    pub(super) fn new<M>(
        tasks: &'a [Task<'a>],
        states: &impl States<M>,
        batch_len: usize,
        seed: Seed,
    ) -> Self {
        let lens = |task: &Task<'_>| {
            let is_padded = states.is_padded();
            let len = |&item: &usize| {
                let texts = task.judgements.texts(item);
                let longest = texts.iter().map(|&text| states.text_len(text)).max();
                // Where states are kept, an item counts 1 whatever it holds.
                longest.unwrap_or(1) * if is_padded { texts.len() } else { 1 }
            };
            task.train.iter().map(len).collect()
        };
        Self {
            tasks,
            batch_len,
            seed,
            plan: None,
            text_len: tasks.iter().map(lens).collect(),
            is_padded: states.is_padded(),
        }
    }

    fn plan(&self, epoch: u64) -> EpochPlan {
        let packing = if self.is_padded {
            Packing::Padded { window: WINDOW }
        } else {
            Packing::Flat
        };
        let mut planned: Vec<(f64, usize, Vec<usize>)> = Vec::new();
        for (task_idx, (task, lens)) in self.tasks.iter().zip(&self.text_len).enumerate() {
            let batches = plan_batches(lens, self.batch_len, packing, self.seed, epoch);
            let count = batches.len() as f64;
            planned.extend(batches.into_iter().enumerate().map(|(idx, batch)| {
                let items = batch.iter().map(|&place| task.train[place]).collect();
                ((idx as f64 + 0.5) / count, task_idx, items)
            }));
        }
        planned.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        planned
            .into_iter()
            .map(|(_, task_idx, items)| (task_idx, items))
            .collect()
    }
}

impl BatchSource for ItemSource<'_> {
    type Batch = ItemBatch;

    fn num_batches(&self, epoch: u64) -> usize {
        match &self.plan {
            Some((planned, batches)) if *planned == epoch => batches.len(),
            _ => self.plan(epoch).len(),
        }
    }

    fn num_items(&self) -> u64 {
        self.tasks.iter().map(|task| task.train.len() as u64).sum()
    }

    fn batch(&mut self, epoch: u64, idx: usize) -> Result<ItemBatch, TrainError> {
        if self.plan.as_ref().is_none_or(|(planned, _)| *planned != epoch) {
            self.plan = Some((epoch, self.plan(epoch)));
        }
        let (_, batches) = self.plan.as_ref().expect("it was just planned");
        let (task_idx, items) = &batches[idx];
        Ok(ItemBatch::new(*task_idx, self.tasks[*task_idx].judgements, items))
    }
}

/// Looks at the held-out items of all tasks.
pub(super) struct ItemJudge<'a, S> {
    pub(super) tasks: &'a [Task<'a>],
    pub(super) states: &'a S,
    /// Items at once.
    pub(super) batch_len: usize,
    pub(super) select: Select,
}

impl<M, S: States<M>> Judge<M> for ItemJudge<'_, S> {
    fn num_items(&self) -> u64 {
        self.tasks.iter().map(|task| task.eval.len() as u64).sum()
    }

    fn evaluate(&mut self, module: &M, _step: u64) -> Result<Metrics, TrainError> {
        let mut metrics = Metrics::new();
        let mut mean_loss = 0.0;
        for (task_idx, task) in self.tasks.iter().enumerate() {
            let (loss, of_task) = self.evaluate_task(module, (task_idx, task));
            mean_loss += loss / self.tasks.len() as f64;
            let prefix = if self.tasks.len() > 1 {
                format!("{}_", task.name)
            } else {
                String::new()
            };
            metrics.extend(
                of_task
                    .into_iter()
                    .map(|(name, value)| (format!("{prefix}{name}"), value)),
            );
        }
        metrics.insert("log_loss".to_owned(), mean_loss);
        Ok(metrics)
    }

    fn selects_by(&self) -> Option<&'static str> {
        (self.select == Select::Best).then_some("log_loss")
    }
}

impl<S> ItemJudge<'_, S> {
    /// Mean log-loss in nats, and numbers.
    fn evaluate_task<M>(&self, module: &M, (task_idx, task): (usize, &Task<'_>)) -> (f64, Metrics)
    where
        S: States<M>,
    {
        // Labels as they are: smoothing and margins belong to training.
        let objective = OnItems {
            states: self.states,
            loss: ClassifierLoss::default(),
        };
        let (mut loss, mut num_right) = (0.0, 0.0);
        for items in task.eval.chunks(self.batch_len) {
            let batch = ItemBatch::new(task_idx, task.judgements, items);
            let logits = objective.logits(module, &batch);
            let verdicts = batch.verdicts.without_margins();
            let sum = objective.loss.of_logits(logits.clone(), &verdicts).sum;
            loss += f64::from(sum.into_scalar::<f32>());
            let logits: Vec<f32> = logits.inner().into_data().iter::<f32>().collect();
            num_right += verdicts.num_right(&logits);
        }
        let count = task.eval.len() as f64;
        let mut metrics = accuracy_metrics(num_right, count);
        metrics.insert("log_loss".to_owned(), loss / count);
        (loss / count, metrics)
    }
}
