//! Gradients of every loss against finite differences, and heads against the scorer's slow reference.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed, TokenId};
use trimtab_scorer::TokenFeatures;
use trimtab_train::TargetNetwork;
use trimtab_train::heads::{HeadLens, Heads, RewardScale, Standardisation, value_at};
use trimtab_train::objectives::cd_fudge::CdFudge;
use trimtab_train::objectives::cd_q::CdQ;
use trimtab_train::objectives::classifier::{BatchVerdicts, ClassifierBatch, ClassifierLoss};
use trimtab_train::prefix_batches::{BatchFeatures, PrefixBatch};
use trimtab_train::trainer::{Objective, Progress, load_params, params_of};

const LENS: HeadLens = HeadLens {
    hidden_len: 5,
    trunk_len: 4,
    feature_len: 3,
};

const START: Progress = Progress { step: 0, epoch: 0 };

/// Numbers in [-1, 1] that differ by `number`.
fn numbers(number: u64, count: usize) -> Vec<f32> {
    let stream = SampleStream::new(Seed(9), PromptKey(number), 0, Purpose::Training);
    (0..count)
        .map(|at| (2.0 * stream.uniform(at as u64) - 1.0) as f32)
        .collect()
}

fn matrix(number: u64, rows: usize, width: usize) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(numbers(number, rows * width), [rows, width]),
        &Device::flex(),
    )
}

/// Heads none of whose weights is 0.
fn heads(lens: HeadLens) -> Heads {
    let heads = Heads::new(lens, Seed(1), &Device::flex().autodiff());
    let mut params = params_of(&heads);
    for (number, data) in params.values_mut().enumerate() {
        let values = numbers(100 + number as u64, data.num_elements());
        *data = TensorData::new(values, data.shape().clone());
    }
    load_params(heads, &params).unwrap()
}

/// Three responses of 2, 0 and 3 tokens.
fn prefix_batch() -> PrefixBatch {
    let rows = vec![0..3, 3..4, 4..8];
    let mut next = numbers(3, 8 * 3);
    for row in [2, 3, 7] {
        next[row * 3..row * 3 + 3].fill(0.0);
    }
    PrefixBatch {
        hidden: matrix(1, 8, 5),
        features: Some(BatchFeatures {
            expected: matrix(2, 8, 3),
            next: Tensor::from_data(TensorData::new(next, [8, 3]), &Device::flex()),
        }),
        rows,
        rewards: vec![0.5, -1.5, 2.0],
    }
}

fn loss<B>(objective: &dyn Objective<Heads, Batch = B>, heads: &Heads, batch: &B) -> f64 {
    f64::from(objective.loss(heads, batch, START).sum.into_scalar::<f32>())
}

/// Gradients by path, from the tape.
fn gradients<B>(
    objective: &dyn Objective<Heads, Batch = B>,
    heads: &Heads,
    batch: &B,
) -> BTreeMap<String, Vec<f32>> {
    let grads = objective.loss(heads, batch, START).sum.backward();
    let grads = GradientsParams::from_grads(grads, heads);
    // One plain descent step of rate 1 shows the gradient as a difference of weights.
    let mut descended = BTreeMap::new();
    collect(heads, grads, &mut descended);
    descended
}

fn collect(heads: &Heads, grads: GradientsParams, out: &mut BTreeMap<String, Vec<f32>>) {
    use burn::module::{ModuleVisitor, Param};
    struct Collector<'a>(Vec<String>, GradientsParams, &'a mut BTreeMap<String, Vec<f32>>);
    impl ModuleVisitor for Collector<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.1.remove::<D>(param.id) {
                self.2
                    .insert(self.0.join("."), grad.into_data().try_to_vec().unwrap());
            }
        }
    }
    heads.visit(&mut Collector(Vec::new(), grads, out));
}

/// Central differences of every weight that has a gradient.
fn check_gradients<B>(objective: &dyn Objective<Heads, Batch = B>, batch: &B, num_weights: usize) {
    const STEP: f32 = 2e-2;
    let heads = heads(LENS);
    let grads = gradients(objective, &heads, batch);
    let params = params_of(&heads);
    let mut checked = 0;
    for (path, grad) in &grads {
        for (at, &analytic) in grad.iter().enumerate() {
            let moved = |by: f32| {
                let mut params = params.clone();
                let data = params.get_mut(path).unwrap();
                let mut values = data.try_to_vec::<f32>().unwrap();
                values[at] += by;
                *data = TensorData::new(values, data.shape().clone());
                loss(objective, &load_params(heads.clone(), &params).unwrap(), batch)
            };
            let numeric = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
            let error = (numeric - f64::from(analytic)).abs();
            assert!(
                error < 5e-3 * (1.0 + f64::from(analytic).abs()),
                "{path}[{at}]: tape {analytic}, differences {numeric}"
            );
            checked += 1;
        }
    }
    assert_eq!(checked, num_weights);
}

/// Trunk and output of the state head; the same with a direction of the action head.
const NUM_STATE: usize = 5 * 4 + 4 + 4 + 1;
const NUM_ACTION: usize = 5 * 4 + 4 + 4 + 1 + 4 * 3 + 3;

#[test]
fn cd_fudge_has_its_gradient() {
    check_gradients(&CdFudge, &prefix_batch(), NUM_STATE + NUM_ACTION);
}

/// With a target network the targets do not move with the weights, so differences see what the tape sees.
#[test]
fn cd_q_has_its_gradient() {
    let frozen = TargetNetwork::Periodic { steps: 1000 };
    for (lambda, num_steps) in [(0.0, 1), (0.6, 1), (0.0, 2)] {
        let objective = CdQ::new(lambda, num_steps, Some(frozen), &heads(LENS));
        check_gradients(&objective, &prefix_batch(), NUM_STATE + NUM_ACTION);
    }
}

#[test]
fn cd_q_stops_the_gradient_at_its_targets() {
    let (heads, batch) = (heads(LENS), prefix_batch());
    let frozen = TargetNetwork::Periodic { steps: 1000 };
    let with_copy = gradients(&CdQ::new(0.0, 1, Some(frozen), &heads), &heads, &batch);
    let without = gradients(&CdQ::new(0.0, 1, None, &heads), &heads, &batch);
    assert_eq!(with_copy, without);
}

#[test]
fn classifiers_have_their_gradients() {
    for label_smoothing in [0.0, 0.2] {
        let loss = ClassifierLoss { label_smoothing };
        let labels = ClassifierBatch {
            hidden: matrix(4, 6, 5),
            verdicts: BatchVerdicts::Labels(vec![1.0, 0.0, 1.0, 0.3, 0.0, 1.0]),
        };
        check_gradients(&loss, &labels, NUM_STATE);
        for margins in [vec![0.0; 6], vec![0.5, 0.0, 2.0, 1.0, 0.0, 3.0]] {
            let pairs = ClassifierBatch {
                hidden: matrix(5, 12, 5),
                verdicts: BatchVerdicts::Pairs { margins },
            };
            check_gradients(&loss, &pairs, NUM_STATE);
        }
    }
}

/// The losses of two logits by hand: with `d = 1.2 - 0.5`, `e = 0.2` and `m = 0.3`.
#[test]
fn classifiers_have_the_losses_of_their_formulas() {
    let logits = || Tensor::<1>::from_data(TensorData::new(vec![1.2_f32, 0.5], [2]), &Device::flex());
    let log_sigmoid = |x: f64| -(1.0 + (-x).exp()).ln();
    let check = |label_smoothing: f64, verdicts: BatchVerdicts, expect: f64| {
        let loss = ClassifierLoss { label_smoothing }.of_logits(logits(), &verdicts);
        let got = f64::from(loss.sum.into_scalar::<f32>());
        assert!(
            (got - expect).abs() < 1e-6,
            "{verdicts:?}: {got}, expected {expect}"
        );
        assert_eq!(loss.num_items, verdicts.len() as u64);
    };
    let pair = |margin: f32| BatchVerdicts::Pairs {
        margins: vec![margin],
    };
    check(0.0, pair(0.0), -log_sigmoid(0.7));
    check(0.0, pair(0.3), -log_sigmoid(0.4));
    check(0.2, pair(0.3), -0.8 * log_sigmoid(0.4) - 0.2 * log_sigmoid(-1.0));
    let labels = BatchVerdicts::Labels(vec![1.0, 0.0]);
    check(0.0, labels.clone(), -log_sigmoid(1.2) - log_sigmoid(-0.5));
    let smoothed =
        -0.8 * (log_sigmoid(1.2) + log_sigmoid(-0.5)) - 0.2 * (log_sigmoid(-1.2) + log_sigmoid(0.5));
    check(0.2, labels.clone(), smoothed);
    assert_eq!(labels.num_right(&[1.2, 0.5]), 1.0);
    assert_eq!(pair(9.0).num_right(&[1.2, 0.5]), 1.0);
    assert_eq!(pair(0.0).num_right(&[0.5, 0.5]), 0.5);
}

#[test]
fn cd_q_on_slices_is_cd_q_on_the_tape() {
    let (heads, batch) = (heads(LENS), prefix_batch());
    let floats = |tensor: Tensor<1>| tensor.inner().into_data().try_to_vec::<f32>().unwrap();
    let action = heads.action.as_ref().unwrap();
    let features = batch.features.as_ref().unwrap();
    let (base, direction) = action.forward(batch.hidden.clone());
    let expected = floats(value_at(
        base.clone(),
        direction.clone(),
        features.expected.clone(),
    ));
    let next = floats(value_at(base, direction, features.next.clone()));
    let state = floats(heads.state.forward(batch.hidden.clone()));
    let mut sum = 0.0;
    for (rows, reward) in batch.rows.iter().zip(&batch.rewards) {
        let last = rows.end - 1;
        let target = |row: usize| if row == last { *reward } else { expected[row] };
        for row in rows.clone() {
            sum += 0.5 * (state[row] - target(row)).powi(2);
            if row < last {
                sum += 0.5 * (next[row] - target(row + 1)).powi(2);
            }
        }
    }
    let tape = loss(&CdQ::new(0.0, 1, None, &heads), &heads, &batch);
    assert!(
        (tape - f64::from(sum)).abs() < 1e-4 * tape.abs(),
        "{tape} and {sum}"
    );
}

/// Exported weights say what the heads on the tape say.
fn check_parity(lens: HeadLens) {
    const ROWS: usize = 7;
    const VOCAB: usize = 11;
    let heads = heads(lens);
    let standardisation = Standardisation {
        mean: numbers(20, lens.hidden_len),
        std: numbers(21, lens.hidden_len)
            .iter()
            .map(|value| value.abs() + 0.5)
            .collect(),
    };
    let scale = RewardScale {
        scale: 1.7,
        offset: -0.4,
    };
    let features = TokenFeatures {
        vocab_len: VOCAB,
        len: 3,
        values: numbers(22, VOCAB * 3),
    };
    let weights = heads.to_weights(&standardisation, scale, Some(&features));
    weights.check().unwrap();
    let hidden = numbers(23, ROWS * lens.hidden_len);
    let moments = standardisation.mean.iter().zip(&standardisation.std).cycle();
    let standard = hidden
        .iter()
        .zip(moments)
        .map(|(value, (mean, std))| (value - mean) / std)
        .collect();
    let x = Tensor::from_data(
        TensorData::new(standard, [ROWS, lens.hidden_len]),
        &Device::flex(),
    );
    let restored = |tensor: Tensor<1>| -> Vec<f64> {
        let values = tensor.inner().into_data().try_to_vec::<f32>().unwrap();
        values.into_iter().map(|value| scale.restore(value)).collect()
    };
    let close = |tape: f64, slow: f64| assert!((tape - slow).abs() < 1e-5, "{tape} and {slow}");
    let states = restored(heads.state.forward(x.clone()));
    for (row, state) in hidden.chunks_exact(lens.hidden_len).zip(&states) {
        close(*state, weights.state_value(row));
    }
    for token in 0..VOCAB {
        let feature_row = features.row(TokenId(token as u32)).to_vec();
        let repeated = TensorData::new(feature_row.repeat(ROWS), [ROWS, 3]);
        let (base, direction) = heads.action.as_ref().unwrap().forward(x.clone());
        let values = restored(value_at(
            base,
            direction,
            Tensor::from_data(repeated, &Device::flex()),
        ));
        for (row, value) in hidden.chunks_exact(lens.hidden_len).zip(&values) {
            close(*value, weights.action_value(row, TokenId(token as u32)));
        }
    }
}

#[test]
fn exported_heads_are_the_trained_ones() {
    check_parity(LENS);
    check_parity(HeadLens { trunk_len: 0, ..LENS });
}
