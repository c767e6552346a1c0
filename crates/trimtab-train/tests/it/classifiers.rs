//! Classifiers learn what can be learnt, say how sure their accuracy is, and refuse what does not fit.

use std::ops::ControlFlow;

use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};
use trimtab_train::classifier::ClassifierData;
use trimtab_train::{
    ClassifierTrainConfig, LabelledStates, PairedStates, RunDir, TrainError, TrainedScorer, train_classifier,
};

const HIDDEN_LEN: usize = 4;
const COUNT: usize = 600;

/// States in [-1, 1] with an offset that standardisation must take away.
fn states(number: u64) -> Vec<f32> {
    let stream = SampleStream::new(Seed(4), PromptKey(number), 0, Purpose::Training);
    let draw = |at: usize| (2.0 * stream.uniform(at as u64) - 1.0) as f32 + 5.0;
    (0..COUNT * HIDDEN_LEN).map(draw).collect()
}

/// A score that no linear head can hold.
fn score(state: &[f32]) -> f32 {
    (state[0] - 5.0).abs() - (state[1] - 5.0).abs()
}

fn train<D: ClassifierData>(data: &D) -> Result<TrainedScorer, TrainError> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = ClassifierTrainConfig {
        trunk_len: 32,
        epochs: 60,
        eval_fraction: 0.25,
        ..ClassifierTrainConfig::default()
    };
    config.optim.learning_rate = 0.02;
    config.optim.batch_len = 64;
    train_classifier(&config, data, &RunDir::new(folder.path(), "test"), &mut |_| {
        ControlFlow::Continue(())
    })
}

fn keys() -> Vec<u64> {
    (0..COUNT as u64).collect()
}

fn check_learnt(scorer: &TrainedScorer) {
    let [accuracy, low, high] =
        ["accuracy", "accuracy_low", "accuracy_high"].map(|name| scorer.metrics[name]);
    assert!(accuracy > 0.9, "accuracy {accuracy}");
    assert!(
        low < accuracy && accuracy < high && high - low < 0.15,
        "{low} to {high}"
    );
    assert!(scorer.metrics["log_loss"] < 0.35, "{:?}", scorer.metrics);
    assert!(scorer.weights.action.is_none());
}

#[test]
fn labels_are_learnt_and_values_are_log_odds() {
    let hidden = states(1);
    let labels = hidden
        .chunks_exact(HIDDEN_LEN)
        .map(|state| f32::from(u8::from(score(state) > 0.0)));
    let data = LabelledStates {
        hidden_len: HIDDEN_LEN,
        labels: labels.collect(),
        keys: keys(),
        hidden,
    };
    let scorer = train(&data).unwrap();
    check_learnt(&scorer);
    assert!(scorer.weights.state_value(&[6.0, 5.0, 5.0, 5.0]) > 2.0);
    assert!(scorer.weights.state_value(&[5.0, 6.0, 5.0, 5.0]) < -2.0);
}

#[test]
fn preferences_are_learnt() {
    let (mut chosen, mut rejected) = (states(2), states(3));
    let pairs = chosen
        .chunks_exact_mut(HIDDEN_LEN)
        .zip(rejected.chunks_exact_mut(HIDDEN_LEN));
    for (first, second) in pairs {
        if score(first) < score(second) {
            first.swap_with_slice(second);
        }
    }
    let data = PairedStates {
        hidden_len: HIDDEN_LEN,
        chosen,
        rejected,
        keys: keys(),
    };
    check_learnt(&train(&data).unwrap());
}

#[test]
fn what_cannot_be_learnt_is_not_better_than_a_coin() {
    let coin = SampleStream::new(Seed(8), PromptKey(0), 0, Purpose::Training);
    let data = LabelledStates {
        hidden_len: HIDDEN_LEN,
        hidden: states(1),
        labels: (0..COUNT)
            .map(|idx| f32::from(u8::from(coin.uniform(idx as u64) < 0.5)))
            .collect(),
        keys: keys(),
    };
    let scorer = train(&data).unwrap();
    let (low, high) = (scorer.metrics["accuracy_low"], scorer.metrics["accuracy_high"]);
    assert!(low < 0.5 && 0.5 < high, "{low} to {high}");
}

#[test]
fn data_that_does_not_fit_is_refused() {
    let good = LabelledStates {
        hidden_len: 1,
        hidden: vec![1.0, 2.0],
        labels: vec![0.0, 1.0],
        keys: vec![1, 2],
    };
    let check = |change: &dyn Fn(&mut LabelledStates), expect: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = train(&bad).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(&|bad| bad.labels[1] = 1.5, "label 1 is 1.5");
    check(&|bad| bad.labels.truncate(1), "labels has 1 values, expected 2");
    check(&|bad| bad.hidden[1] = f32::NAN, "hidden of item 1 has NaN");
    check(&|bad| bad.hidden_len = 0, "width of 0");
    check(&|bad| bad.keys = vec![7, 7], "expected some of both");
}
