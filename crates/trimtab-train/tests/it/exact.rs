//! On the model that can be enumerated: both objectives find `V*`, from the data they may learn from, and wrong ones do not.

use std::ops::ControlFlow;

use burn::tensor::Device;
use trimtab_base::Seed;
use trimtab_scorer::ScorerWeights;
use trimtab_train::heads::{HeadLens, Heads, value_at};
use trimtab_train::objectives::regression_loss;
use trimtab_train::prefix_batches::{BatchReader, PrefixBatch, PrefixSource, Split};
use trimtab_train::trainer::{Judge, Loss, Objective, Parts, Progress, train};
use trimtab_train::{
    Metrics, OptimConfig, PrefixSet, RunDir, ScorerObjective, ScorerTrainConfig, Select, TargetNetwork,
    TrainError, train_scorer,
};

use crate::table::{EVAL_FRACTION, SEED, Table};

/// Values are in about [-1, 1]; the best constant is off by more than 0.9.
const TOLERANCE: f64 = 0.03;

fn optim() -> OptimConfig {
    OptimConfig {
        batch_len: 2048,
        learning_rate: 0.03,
        weight_decay: 0.0,
        clip_norm: None,
        ..OptimConfig::default()
    }
}

fn config(objective: ScorerObjective, epochs: u64) -> ScorerTrainConfig {
    ScorerTrainConfig {
        objective,
        trunk_len: 0,
        epochs,
        optim: optim(),
        select: Select::Last,
        eval_fraction: EVAL_FRACTION,
        seed: SEED,
        ..ScorerTrainConfig::default()
    }
}

fn cd_q(lambda: f64, num_steps: usize, target_network: Option<TargetNetwork>) -> ScorerObjective {
    ScorerObjective::CdQ {
        lambda,
        num_steps,
        target_network,
    }
}

fn trained(table: &Table, set: &PrefixSet, objective: ScorerObjective, epochs: u64) -> ScorerWeights {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = RunDir::new(folder.path(), "test");
    let config = config(objective, epochs);
    let on_event = &mut |_| ControlFlow::Continue(());
    let scorer = train_scorer(&config, set, Some(&table.features()), &run_dir, on_event).unwrap();
    scorer.weights
}

/// Errors of state and action values after training on the model's own responses.
fn check_on_policy(objective: &ScorerObjective, epochs: u64) {
    let (table, folder) = (Table::new(), tempfile::tempdir().unwrap());
    let set = table.on_policy(folder.path());
    let (state, action) = table.errors(&trained(&table, &set, objective.clone(), epochs));
    assert!(
        state < TOLERANCE && action < TOLERANCE,
        "{objective:?}: largest error {state} of state values, {action} of action values"
    );
}

#[test]
fn cd_fudge_finds_the_value_of_the_reference() {
    check_on_policy(&ScorerObjective::CdFudge {}, 120);
}

#[test]
fn cd_q_finds_the_value_of_the_reference() {
    check_on_policy(&cd_q(0.0, 1, None), 160);
}

#[test]
fn extensions_of_cd_q_find_the_same_value_on_responses_of_the_reference() {
    for objective in [
        cd_q(0.7, 1, None),
        cd_q(0.0, 2, None),
        cd_q(0.0, 1, Some(TargetNetwork::Periodic { steps: 10 })),
        cd_q(0.0, 1, Some(TargetNetwork::Polyak { rate: 0.2 })),
    ] {
        check_on_policy(&objective, 160);
    }
}

#[test]
fn only_cd_q_finds_it_from_responses_of_another_policy() {
    let (table, folder) = (Table::new(), tempfile::tempdir().unwrap());
    let set = table.off_policy(folder.path());
    let (state, action) = table.errors(&trained(&table, &set, cd_q(0.0, 1, None), 400));
    assert!(state < TOLERANCE && action < TOLERANCE, "CD-Q: {state}, {action}");
    let (state, _) = table.errors(&trained(&table, &set, ScorerObjective::CdFudge {}, 400));
    assert!(
        state > 3.0 * TOLERANCE,
        "CD-FUDGE is off by {state} only, so this test would not see a difference"
    );
}

/// CD-Q with Q-learning's target, a maximum over possible tokens: control instead of evaluation.
struct MaxQ;

impl Objective<Heads> for MaxQ {
    type Batch = PrefixBatch;

    fn loss(&self, heads: &Heads, batch: &PrefixBatch, _: Progress) -> Loss {
        let (action, features) = (heads.action.as_ref().unwrap(), batch.features.as_ref().unwrap());
        let (base, direction) = action.forward(batch.hidden.clone());
        let of_token = |token: usize| {
            let one_hot = features
                .expected
                .clone()
                .zeros_like()
                .slice_fill([0..batch.num_prefixes(), token..token + 1], 1.0);
            let values = value_at(base.clone(), direction.clone(), one_hot);
            values.inner().into_data().try_to_vec::<f32>().unwrap()
        };
        let values: Vec<Vec<f32>> = (0..3).map(of_token).collect();
        let probs = features.expected.clone().into_data().try_to_vec::<f32>().unwrap();
        let mut targets: Vec<f32> = (0..batch.num_prefixes())
            .map(|row| {
                let possible = (0..3).filter(|token| probs[row * 3 + token] > 0.0);
                possible
                    .map(|token| values[token][row])
                    .fold(f32::NEG_INFINITY, f32::max)
            })
            .collect();
        for (rows, &reward) in batch.rows.iter().zip(&batch.rewards) {
            targets[rows.end - 1] = reward;
        }
        regression_loss(heads, batch, &targets)
    }
}

struct NoJudge;

impl Judge<Heads> for NoJudge {
    fn num_items(&self) -> u64 {
        0
    }

    fn evaluate(&mut self, _: &Heads, _: u64) -> Result<Metrics, TrainError> {
        Ok(Metrics::new())
    }

    fn selects_by(&self) -> Option<&'static str> {
        None
    }
}

#[test]
fn a_maximum_for_the_expectation_fails_the_same_test() {
    let (table, folder) = (Table::new(), tempfile::tempdir().unwrap());
    let set = table.on_policy(&folder.path().join("set"));
    let features = table.features();
    let split = Split::new(&set, EVAL_FRACTION, Seed(SEED)).unwrap();
    let device = Device::flex();
    let lens = HeadLens {
        hidden_len: table.prefixes.len(),
        trunk_len: 0,
        feature_len: features.len,
    };
    let heads = Heads::new(lens, Seed(SEED), &device.clone().autodiff());
    let reader = BatchReader {
        set: &set,
        features: Some(&features),
        standardisation: split.standardisation.clone(),
        scale: split.scale,
        device,
    };
    let mut source = PrefixSource::new(reader, split.train.clone(), 2048, Seed(SEED));
    let parts = Parts {
        objective: &mut MaxQ,
        source: &mut source,
        judge: &mut NoJudge,
    };
    let mut run = RunDir::new(folder.path().join("run"), "test")
        .open("max", &optim(), "", 0)
        .unwrap();
    let on_event = &mut |_| ControlFlow::Continue(());
    let outcome = train(heads, parts, (&optim(), 160), &mut run, on_event).unwrap();
    let weights = outcome
        .module
        .to_weights(&split.standardisation, split.scale, Some(&features));
    let (state, action) = table.errors(&weights);
    assert!(
        state > 3.0 * TOLERANCE && action > 3.0 * TOLERANCE,
        "a maximum is off by {state} and {action} only"
    );
}
