//! From final states with labels, or pairs of them, to a classifier: a scorer with a state head alone.

mod data;

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use trimtab_base::Seed;

pub use data::{ClassifierData, LabelledStates, PairedStates};

use crate::batches::{Packing, plan_batches};
use crate::config::{ClassifierTrainConfig, Select};
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::heads::{HeadLens, Heads, RewardScale, Standardisation};
use crate::prefix_batches::{Moments, is_held_out};
use crate::prefix_metrics::accuracy_metrics;
use crate::run_dir::RunDir;
use crate::scorer::TrainedScorer;
use crate::trainer::{BatchSource, Judge, Objective, Parts, Progress, train};

/// Trains a classifier, or goes on with the run that was stopped in `run_dir`. Its values are logits: the log-odds of
/// the positive class, or a score whose differences are the log-odds of a preference.
///
/// Metrics: `log_loss` (nats an item), `accuracy` with `accuracy_low` and `accuracy_high` (95% interval).
///
/// # Errors
/// Settings out of range, lengths that do not fit, values that are not finite, a folder of another run, a loss that is
/// not finite, or [`TrainError::Stopped`] where `on_event` asked to stop.
pub fn train_classifier<D: ClassifierData>(
    config: &ClassifierTrainConfig,
    data: &D,
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<TrainedScorer, TrainError> {
    config.validate()?;
    data.check()?;
    let seed = Seed(config.seed);
    let split = split(data, config)?;
    let device = Device::default();
    let lens = HeadLens {
        hidden_len: data.hidden_len(),
        trunk_len: config.trunk_len,
        feature_len: 0,
    };
    let heads = Heads::new(lens, seed, &device.clone().autodiff());
    let states = StateReader {
        standardisation: split.standardisation.clone(),
        device,
    };
    let mut source = ItemSource {
        data,
        states: &states,
        items: split.train.clone(),
        batch_len: config.optim.batch_len,
        seed,
    };
    let mut judge = ItemJudge {
        data,
        states: &states,
        items: split.eval,
        select: config.select,
    };
    let parts = Parts {
        objective: &mut *data.objective(),
        source: &mut source,
        judge: &mut judge,
    };
    let mut folder = run_dir.open("classifier", config, &data.content_sha256(), config.seed)?;
    let outcome = train(
        heads,
        parts,
        (&config.optim, config.epochs),
        &mut folder,
        on_event,
    )?;
    // A logit is its own unit.
    let scale = RewardScale {
        scale: 1.0,
        offset: 0.0,
    };
    Ok(TrainedScorer {
        weights: outcome.module.to_weights(&split.standardisation, scale, None),
        metrics: outcome.metrics,
        best_step: outcome.step,
        num_train_items: split.train.len() as u64,
    })
}

struct ItemSplit {
    train: Vec<usize>,
    eval: Vec<usize>,
    standardisation: Standardisation,
}

fn split<D: ClassifierData>(data: &D, config: &ClassifierTrainConfig) -> Result<ItemSplit, TrainError> {
    let keys = data.keys();
    let held_out = |&idx: &usize| is_held_out(keys[idx], config.eval_fraction, Seed(config.seed));
    let (eval, train): (Vec<usize>, Vec<usize>) = (0..keys.len()).partition(held_out);
    if eval.is_empty() || train.is_empty() {
        let problem = format!(
            "the prompts leave {} items to train and {} to evaluate, expected some of both: more prompts or another \
             eval_fraction",
            train.len(),
            eval.len()
        );
        return Err(TrainError::BadData { problem });
    }
    let mut moments = Moments::new(data.hidden_len());
    for state in train.iter().flat_map(|&idx| data.states(idx)) {
        moments.add(state.iter().map(|&value| f64::from(value)));
    }
    Ok(ItemSplit {
        train,
        eval,
        standardisation: moments.finish(),
    })
}

/// Standardises states into tensors.
#[derive(Debug)]
pub struct StateReader {
    standardisation: Standardisation,
    device: Device,
}

impl StateReader {
    /// `[states, hidden_len]`
    pub fn tensor<'a>(&self, states: impl Iterator<Item = &'a [f32]>) -> Tensor<2> {
        let Standardisation { mean, std } = &self.standardisation;
        let mut values = Vec::new();
        for state in states {
            let moments = mean.iter().zip(std);
            values.extend(
                state
                    .iter()
                    .zip(moments)
                    .map(|(value, (mean, std))| (value - mean) / std),
            );
        }
        let shape = [values.len() / mean.len(), mean.len()];
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }
}

struct ItemSource<'a, D> {
    data: &'a D,
    states: &'a StateReader,
    items: Vec<usize>,
    batch_len: usize,
    seed: Seed,
}

impl<D: ClassifierData> BatchSource for ItemSource<'_, D> {
    type Batch = D::Batch;

    fn num_batches(&self, _epoch: u64) -> usize {
        self.items.len().div_ceil(self.batch_len)
    }

    fn num_items(&self) -> u64 {
        self.items.len() as u64
    }

    fn batch(&mut self, epoch: u64, idx: usize) -> Result<D::Batch, TrainError> {
        let lens = vec![1; self.items.len()];
        let plan = plan_batches(&lens, self.batch_len, Packing::Flat, self.seed, epoch);
        let items: Vec<usize> = plan[idx].iter().map(|&place| self.items[place]).collect();
        Ok(self.data.batch(&items, self.states))
    }
}

struct ItemJudge<'a, D> {
    data: &'a D,
    states: &'a StateReader,
    items: Vec<usize>,
    select: Select,
}

impl<D: ClassifierData> Judge<Heads> for ItemJudge<'_, D> {
    fn num_items(&self) -> u64 {
        self.items.len() as u64
    }

    fn evaluate(&mut self, heads: &Heads) -> Result<Metrics, TrainError> {
        const BATCH_LEN: usize = 1024;
        let objective: Box<dyn Objective<Heads, Batch = D::Batch>> = self.data.objective();
        let (mut loss, mut num_right) = (0.0, 0.0);
        for items in self.items.chunks(BATCH_LEN) {
            let batch = self.data.batch(items, self.states);
            let sum = objective.loss(heads, &batch, Progress { step: 0, epoch: 0 }).sum;
            loss += f64::from(sum.into_scalar::<f32>());
            num_right += self.data.num_right(heads, &batch);
        }
        let count = self.items.len() as f64;
        let mut metrics = accuracy_metrics(num_right, count);
        metrics.insert("log_loss".to_owned(), loss / count);
        Ok(metrics)
    }

    fn selects_by(&self) -> Option<&'static str> {
        (self.select == Select::Best).then_some("log_loss")
    }
}
