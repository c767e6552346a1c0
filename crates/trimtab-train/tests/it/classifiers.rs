//! Classifiers learn what can be learnt, say how sure their accuracy is, and refuse what does not fit.

use std::ops::ControlFlow;

use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};
use trimtab_train::{
    ClassifierTrainConfig, FinalStates, Judgements, RunDir, ScorerDepth, TrainError, TrainedScorer, Verdicts,
    train_classifier,
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

fn config() -> ClassifierTrainConfig {
    let mut config = ClassifierTrainConfig {
        trunk_len: 32,
        epochs: 60,
        eval_fraction: 0.25,
        ..ClassifierTrainConfig::default()
    };
    config.optim.learning_rate = 0.02;
    config.optim.batch_len = 64;
    config
}

fn train_with(
    config: &ClassifierTrainConfig,
    (values, judgements): (Vec<f32>, &Judgements),
) -> Result<TrainedScorer, TrainError> {
    let folder = tempfile::tempdir().unwrap();
    let states = FinalStates {
        hidden_len: HIDDEN_LEN,
        values,
    };
    let run_dir = RunDir::new(folder.path(), "test");
    train_classifier(config, (&states, judgements), &run_dir, &mut |_| {
        ControlFlow::Continue(())
    })
}

fn train(data: (Vec<f32>, &Judgements)) -> Result<TrainedScorer, TrainError> {
    train_with(&config(), data)
}

fn labelled(labels: Vec<f32>) -> Judgements {
    Judgements {
        verdicts: Verdicts::Labels {
            texts: (0..COUNT as u32).collect(),
            labels,
        },
        keys: keys(),
    }
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
    let judgements = labelled(labels.collect());
    let scorer = train((hidden.clone(), &judgements)).unwrap();
    check_learnt(&scorer);
    let value = |scorer: &TrainedScorer| scorer.weights.state_value(&[6.0, 5.0, 5.0, 5.0]);
    assert!(value(&scorer) > 2.0);
    assert!(scorer.weights.state_value(&[5.0, 6.0, 5.0, 5.0]) < -2.0);
    // Whoever thinks that a fifth of the labels is wrong is less sure.
    let doubting = ClassifierTrainConfig {
        label_smoothing: 0.2,
        ..config()
    };
    let doubting = train_with(&doubting, (hidden, &judgements)).unwrap();
    let (sure, unsure) = (value(&scorer), value(&doubting));
    assert!(unsure < 0.7 * sure, "{unsure} against {sure}");
    assert!(doubting.metrics["accuracy"] > 0.9);
}

/// Pairs of `COUNT` first and `COUNT` second texts; the texts of a pair are numbers, and one text may be in many.
#[test]
fn preferences_are_learnt_from_texts_in_any_order() {
    let all = [states(2), states(3)].concat();
    let state = |text: u32| &all[text as usize * HIDDEN_LEN..][..HIDDEN_LEN];
    let (mut chosen, mut rejected) = (Vec::new(), Vec::new());
    for item in 0..COUNT as u32 {
        let (a, b) = (item, COUNT as u32 + (item * 7) % 500);
        let (better, other) = if score(state(a)) < score(state(b)) {
            (b, a)
        } else {
            (a, b)
        };
        chosen.push(better);
        rejected.push(other);
    }
    let judgements = |margin: f32| Judgements {
        verdicts: Verdicts::Pairs {
            chosen: chosen.clone(),
            rejected: rejected.clone(),
            margins: vec![margin; COUNT],
        },
        keys: keys(),
    };
    let plain = train((all.clone(), &judgements(0.0))).unwrap();
    check_learnt(&plain);
    // A margin drives values further apart.
    let wide = train((all.clone(), &judgements(2.0))).unwrap();
    let spread = |scorer: &TrainedScorer| {
        let value = |text: u32| scorer.weights.state_value(state(text));
        let pairs = chosen.iter().zip(&rejected);
        pairs.map(|(&a, &b)| value(a) - value(b)).sum::<f64>() / COUNT as f64
    };
    assert!(
        spread(&wide) > spread(&plain) + 0.5,
        "{} {}",
        spread(&wide),
        spread(&plain)
    );
}

#[test]
fn what_cannot_be_learnt_is_not_better_than_a_coin() {
    let coin = SampleStream::new(Seed(8), PromptKey(0), 0, Purpose::Training);
    let labels = (0..COUNT).map(|idx| f32::from(u8::from(coin.uniform(idx as u64) < 0.5)));
    let scorer = train((states(1), &labelled(labels.collect()))).unwrap();
    let (low, high) = (scorer.metrics["accuracy_low"], scorer.metrics["accuracy_high"]);
    assert!(low < 0.5 && 0.5 < high, "{low} to {high}");
}

#[test]
fn data_that_does_not_fit_is_refused() {
    let good = labelled(vec![0.5; COUNT]);
    let check = |change: &dyn Fn(&mut Judgements, &mut Vec<f32>), expect: &str| {
        let (mut bad, mut values) = (good.clone(), states(1));
        change(&mut bad, &mut values);
        let error = train((values, &bad)).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let set = |bad: &mut Judgements, new: Verdicts| bad.verdicts = new;
    let texts = || (0..COUNT as u32).collect::<Vec<u32>>();
    let labels = |labels: Vec<f32>| Verdicts::Labels {
        texts: texts(),
        labels,
    };
    check(
        &|bad, _| {
            let mut wrong = vec![0.0; COUNT];
            wrong[1] = 1.5;
            set(bad, labels(wrong));
        },
        "label 1 is 1.5",
    );
    check(
        &|bad, _| set(bad, labels(vec![0.0])),
        "labels has 1 values, expected 600",
    );
    check(
        &|bad, _| {
            set(
                bad,
                Verdicts::Pairs {
                    chosen: texts(),
                    rejected: texts(),
                    margins: vec![-1.0; COUNT],
                },
            );
        },
        "margin 0 is -1",
    );
    check(
        &|_, values| values[HIDDEN_LEN] = f32::NAN,
        "the state of text 1 has NaN",
    );
    check(
        &|_, values| values.truncate(HIDDEN_LEN),
        "text 1 of 1 is not there",
    );
    check(&|bad, _| bad.keys = vec![7; COUNT], "expected some of both");
    let deep = ClassifierTrainConfig {
        depth: ScorerDepth::Full,
        ..config()
    };
    let error = train_with(&deep, (states(1), &good)).unwrap_err().to_string();
    assert!(error.contains("depth") && error.contains("full"), "{error}");
}
