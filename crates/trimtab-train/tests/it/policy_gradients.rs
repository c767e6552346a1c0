//! Gradients of policies' losses: by enumeration where they are expectations, by finite differences where they are not.

use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use proptest::prelude::*;
use trimtab_train::policy::bonbon::BonBon;
use trimtab_train::policy::dpo::Dpo;
use trimtab_train::policy::ipo::Ipo;
use trimtab_train::policy::objective::PolicyLoss;
use trimtab_train::policy::pieces::{Piece, PolicyItem};
use trimtab_train::policy::reference::fill_reference;
use trimtab_train::policy::rl::{Elsewhere, Rl, advantages};
use trimtab_train::policy::sft::Sft;
use trimtab_train::policy::source::{Unit, units_by_prompt};
use trimtab_train::policy::token_loss::Reads;
use trimtab_train::policy::vocab::{ByTokens, KeptLogits, Side, token_numbers, vocab_gradient};
use trimtab_train::policy::vocab_tensor::{self, KeptTensors};
use trimtab_train::policy::{
    Advantage, Importance, PolicyResponse, ResponseTokens, TokenDerivatives, TokenLoss,
};
use trimtab_train::trainer::{Objective, Progress};

use crate::decoder::values;
use crate::policy_table::World;

const BETA: f64 = 0.3;

const START: Progress = Progress { step: 0, epoch: 0 };

fn rl(importance: Importance, has_baseline: bool) -> Rl {
    Rl {
        beta: BETA,
        clip: None,
        importance,
        has_baseline,
    }
}

/// Loss of some units and its gradient by the table, at these logits.
fn loss_and_gradient(
    world: &World,
    logits: &[f64],
    loss: Box<dyn TokenLoss>,
    units: Vec<Unit>,
) -> (f64, Vec<f64>) {
    use burn::module::Module;
    let policy = world.policy(logits);
    let reference = world.policy(&world.reference_logits()).valid();
    // Two rows at a time: chunks end within responses.
    let objective = PolicyLoss::new(loss, reference, 2, None);
    let loss = objective.loss(&policy, &vec![Piece::new(units)], START);
    let value = values(loss.sum.clone())[0];
    let grads = GradientsParams::from_grads(loss.sum.backward(), &policy);
    let grad = grads.get::<2>(policy.logits_param().id).unwrap();
    let grad = values(grad).into_iter().map(f64::from).collect();
    (f64::from(value), grad)
}

/// `E[reward] - beta KL` by enumeration.
fn regularised_reward(world: &World, logits: &[f64]) -> f64 {
    let reference = world.reference_logits();
    let of = |response: &Vec<u32>| {
        let log_prob = world.log_prob(logits, response);
        let log_ratio = log_prob - world.log_prob(&reference, response);
        log_prob.exp() * (World::reward(response) - BETA * log_ratio)
    };
    world.responses.iter().map(of).sum()
}

/// Central differences of `of`.
fn differences(logits: &[f64], of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-4;
    let at = |place: usize, change: f64| {
        let mut moved = logits.to_vec();
        moved[place] += change;
        of(&moved)
    };
    (0..logits.len())
        .map(|place| (at(place, step) - at(place, -step)) / (2.0 * step))
        .collect()
}

/// Largest difference in units of the expected gradient's largest entry.
fn error(got: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0_f64, |max, value| max.max(value.abs()));
    let differences = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max) / largest
}

fn expected_gradient(world: &World, logits: &[f64]) -> Vec<f64> {
    differences(logits, |logits| -regularised_reward(world, logits))
}

/// All responses, each as often as `weights` say, each with a key of its own.
fn all_responses(world: &World, weights: &[f64]) -> Vec<PolicyResponse> {
    let response = |((key, tokens), &weight): ((u64, &Vec<u32>), &f64)| World::response(tokens, key, weight);
    (0..).zip(&world.responses).zip(weights).map(response).collect()
}

#[test]
fn the_expected_policy_gradient_is_that_of_the_regularised_reward() {
    let world = World::new();
    let logits = world.moved_logits();
    let responses = all_responses(&world, &world.law(&logits));
    let units = units_by_prompt(responses, Advantage::None);
    let loss = Box::new(rl(Importance::default(), false));
    let (value, gradient) = loss_and_gradient(&world, &logits, loss, units);
    let expected = expected_gradient(&world, &logits);
    let error = error(&gradient, &expected);
    assert!(error < 1e-3, "relative error {error}");
    // With every response as often as it is drawn, the value is the expectation too.
    let expected = -regularised_reward(&world, &logits);
    assert!((value - expected).abs() < 1e-5, "{value}, expected {expected}");
}

/// The shortcut: the KL of each position by itself, nothing for where a token leads.
struct WithoutKlToGo(Rl);

impl TokenLoss for WithoutKlToGo {
    fn reads(&self) -> Reads {
        self.0.reads()
    }

    fn num_items(&self, unit: &[ResponseTokens<'_>]) -> u64 {
        self.0.num_items(unit)
    }

    fn derivatives(&self, unit: &[ResponseTokens<'_>]) -> TokenDerivatives {
        let mut out = self.0.derivatives(unit);
        let of_reward = |tokens: &ResponseTokens<'_>| {
            let derivative = -tokens.item.weight * tokens.item.advantage;
            std::iter::repeat_n(derivative, tokens.log_probs.len())
        };
        out.log_prob = unit.iter().flat_map(of_reward).collect();
        out
    }
}

/// The KL with the wrong sign.
struct Reversed(Rl);

impl TokenLoss for Reversed {
    fn reads(&self) -> Reads {
        self.0.reads()
    }

    fn num_items(&self, unit: &[ResponseTokens<'_>]) -> u64 {
        self.0.num_items(unit)
    }

    fn derivatives(&self, unit: &[ResponseTokens<'_>]) -> TokenDerivatives {
        let mut out = self.0.derivatives(unit);
        out.kl
            .iter_mut()
            .for_each(|derivative| *derivative = -*derivative);
        out
    }
}

#[test]
fn without_the_kl_to_go_or_with_the_wrong_sign_it_is_not() {
    let world = World::new();
    let logits = world.moved_logits();
    let expected = expected_gradient(&world, &logits);
    let base = rl(Importance::default(), false);
    let wrong: [(&str, Box<dyn TokenLoss>); 3] = [
        ("no KL to go", Box::new(WithoutKlToGo(base))),
        ("the wrong sign", Box::new(Reversed(base))),
        ("no KL", Box::new(Rl { beta: 0.0, ..base })),
    ];
    for (name, loss) in wrong {
        let units = units_by_prompt(all_responses(&world, &world.law(&logits)), Advantage::None);
        let (_, gradient) = loss_and_gradient(&world, &logits, loss, units);
        let error = error(&gradient, &expected);
        assert!(
            error > 0.02,
            "{name} is off by {error} only, so the test above would not see it"
        );
    }
}

#[test]
fn leave_one_out_baselines_leave_the_expected_gradient_as_it_is() {
    // Every pair of draws as often as it occurs: the estimator's exact expectation at two responses to a prompt.
    let world = World::new();
    let logits = world.moved_logits();
    let law = world.law(&logits);
    let mut responses = Vec::new();
    let mut key = 0;
    for (first, first_prob) in world.responses.iter().zip(&law) {
        for (second, second_prob) in world.responses.iter().zip(&law) {
            let weight = first_prob * second_prob / 2.0;
            responses.push(World::response(first, key, weight));
            responses.push(World::response(second, key, weight));
            key += 1;
        }
    }
    let units = units_by_prompt(responses, Advantage::LeaveOneOut);
    let loss = Box::new(rl(Importance::default(), true));
    let (_, gradient) = loss_and_gradient(&world, &logits, loss, units);
    let error = error(&gradient, &expected_gradient(&world, &logits));
    assert!(error < 1e-3, "relative error {error}");
}

#[test]
fn responses_of_another_sampler_are_weighted_to_the_same_expectation() {
    let world = World::new();
    let (logits, sampler) = (world.moved_logits(), world.reference_logits());
    let mut responses = all_responses(&world, &world.law(&sampler));
    for response in &mut responses {
        let log_probs = world.token_log_probs(&sampler, &response.token_ids);
        response.sampler_log_probs = log_probs.into_iter().map(|p| p as f32).collect();
    }
    let expected = expected_gradient(&world, &logits);
    let error_of = |importance| {
        let units = units_by_prompt(responses.clone(), Advantage::None);
        let loss = Box::new(rl(importance, false));
        let (_, gradient) = loss_and_gradient(&world, &logits, loss, units);
        error(&gradient, &expected)
    };
    let by_sequence = error_of(Importance::Sequence { limit: 1e9 });
    assert!(by_sequence < 1e-3, "relative error {by_sequence}");
    let uncorrected = error_of(Importance::Off {});
    let by_token = error_of(Importance::Token { limit: 1e9 });
    assert!(
        uncorrected > 0.05 && by_token < uncorrected,
        "{uncorrected} without correction, {by_token} by token"
    );
}

#[test]
fn responses_of_the_reference_need_no_log_probs_of_their_sampler() {
    let world = World::new();
    let (logits, reference) = (world.moved_logits(), world.reference_logits());
    let mut responses = all_responses(&world, &world.law(&reference));
    for response in &mut responses {
        response.is_of_reference = true;
    }
    let gradient_of = |importance, responses: &[PolicyResponse]| {
        let units = units_by_prompt(responses.to_vec(), Advantage::None);
        let (_, gradient) = loss_and_gradient(&world, &logits, Box::new(rl(importance, false)), units);
        gradient
    };
    let by_sequence = gradient_of(Importance::Sequence { limit: 1e9 }, &responses);
    let expected = expected_gradient(&world, &logits);
    let by_sequence = error(&by_sequence, &expected);
    assert!(by_sequence < 1e-3, "relative error {by_sequence}");
    // The same ratios as from log-probs that are given.
    let by_token = gradient_of(Importance::default(), &responses);
    for response in &mut responses {
        let log_probs = world.token_log_probs(&reference, &response.token_ids);
        response.sampler_log_probs = log_probs.into_iter().map(|p| p as f32).collect();
        response.is_of_reference = false;
    }
    let given = gradient_of(Importance::default(), &responses);
    assert!(error(&by_token, &given) < 1e-5);
}

/// Gradient of a loss whose value it is, through tape and vocabulary.
fn check_differences(loss: impl Fn() -> Box<dyn TokenLoss>, units: &[Unit]) {
    let world = World::new();
    let logits = world.moved_logits();
    let (_, gradient) = loss_and_gradient(&world, &logits, loss(), units.to_vec());
    // The value in f64: the tape's is f32, whose differences would be noise.
    let value = |logits: &[f64]| -> f64 {
        let reference = world.reference_logits();
        let of_unit = |unit: &Unit| {
            let numbers = |logits: &[f64], item: &PolicyItem| world.token_log_probs(logits, &item.token_ids);
            let own: Vec<Vec<f64>> = unit.iter().map(|item| numbers(logits, item)).collect();
            let others: Vec<Vec<f64>> = unit.iter().map(|item| numbers(&reference, item)).collect();
            let tokens: Vec<ResponseTokens<'_>> = (0..unit.len())
                .map(|idx| ResponseTokens {
                    item: &unit[idx],
                    log_probs: &own[idx],
                    reference_log_probs: &others[idx],
                    kl_nats: &[],
                })
                .collect();
            loss().derivatives(&tokens).value
        };
        units.iter().map(of_unit).sum()
    };
    let error = error(&gradient, &differences(&logits, value));
    assert!(error < 1e-3, "relative error {error}");
}

fn pairs() -> Vec<Unit> {
    let item = |token_ids: &[u32], weight| PolicyItem {
        prompt_token_ids: vec![0],
        token_ids: token_ids.to_vec(),
        weight,
        ..PolicyItem::default()
    };
    vec![
        vec![item(&[1, 2, 0], 1.0), item(&[0], 1.0)],
        vec![item(&[2, 2, 1], 0.7), item(&[1, 1, 1], 0.7)],
    ]
}

#[test]
fn gradients_of_pair_losses_and_likelihood_equal_finite_differences() {
    check_differences(|| Box::new(Dpo { beta: 0.7 }), &pairs());
    check_differences(|| Box::new(Ipo { beta: 0.7 }), &pairs());
    check_differences(
        || {
            Box::new(BonBon {
                num_candidates: 4,
                alpha: 0.3,
            })
        },
        &pairs(),
    );
    check_differences(|| Box::new(Sft), &pairs());
}

#[test]
fn reference_log_probs_that_were_kept_change_nothing() {
    use burn::module::Module;
    let world = World::new();
    let logits = world.moved_logits();
    let reference = world.policy(&world.reference_logits()).valid();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.f64");
    let fill = |units: &mut Vec<Unit>| {
        let mut units: Vec<&mut Unit> = units.iter_mut().collect();
        // Pieces of one pair.
        fill_reference(&mut units, &reference, (2, 4), &path)
    };
    let plain = pairs();
    let mut kept = plain.clone();
    fill(&mut kept).unwrap();
    for item in kept.iter().flatten() {
        let expected = world.token_log_probs(&world.reference_logits(), &item.token_ids);
        let close = item.reference_log_probs.iter().zip(&expected);
        assert!(close.clone().all(|(a, b)| (a - b).abs() < 1e-6), "{item:?}");
        assert_eq!(close.len(), item.token_ids.len());
    }
    let losses: [fn() -> Box<dyn TokenLoss>; 3] = [
        || Box::new(Dpo { beta: 0.7 }),
        || Box::new(Ipo { beta: 0.7 }),
        || {
            Box::new(BonBon {
                num_candidates: 4,
                alpha: 0.3,
            })
        },
    ];
    let mut shifted = kept.clone();
    shifted[0][0].reference_log_probs[0] += 1.0;
    for loss in losses {
        let (value, gradient) = loss_and_gradient(&world, &logits, loss(), plain.clone());
        let (again, by_kept) = loss_and_gradient(&world, &logits, loss(), kept.clone());
        assert!((value - again).abs() < 1e-5 * value.abs(), "{value} and {again}");
        assert!(error(&by_kept, &gradient) < 1e-5);
        let (other, _) = loss_and_gradient(&world, &logits, loss(), shifted.clone());
        assert!((other - value).abs() > 1e-3, "what was kept is not looked at");
    }
    // Another time they are read, to the last bit.
    let mut again = plain;
    fill(&mut again).unwrap();
    assert_eq!(again, kept);
    again.pop();
    let error = fill(&mut again).unwrap_err().to_string();
    assert!(error.contains("expected 8 for each of 4 tokens"), "{error}");
}

proptest! {
    #[test]
    fn clipped_ratios_have_the_slope_of_ppo(
        log_ratio in -1.0_f64..1.0,
        advantage in -2.0_f64..2.0,
        range in 0.05_f64..0.5,
    ) {
        let edges = [(1.0 + range).ln(), (1.0 - range).ln()];
        prop_assume!(edges.iter().all(|edge| (log_ratio - edge).abs() > 1e-3));
        let sampler = -1.0_f64;
        let surrogate = |log_prob: f64| {
            let ratio = (log_prob - sampler).exp();
            -(ratio * advantage).min(ratio.clamp(1.0 - range, 1.0 + range) * advantage)
        };
        let log_prob = sampler + log_ratio;
        let item = PolicyItem {
            token_ids: vec![1],
            sampler_log_probs: vec![sampler as f32],
            advantage,
            weight: 1.0,
            ..PolicyItem::default()
        };
        let tokens = ResponseTokens {
            item: &item,
            log_probs: &[log_prob],
            reference_log_probs: &[-1.0],
            kl_nats: &[0.2],
        };
        let loss = Rl {
            beta: BETA,
            clip: Some(range),
            importance: Importance::Token { limit: 100.0 },
            has_baseline: false,
        };
        let expected = (surrogate(log_prob + 1e-6) - surrogate(log_prob - 1e-6)) / 2e-6;
        let got = loss.derivatives(&[tokens]).log_prob[0];
        prop_assert!((got - expected).abs() < 1e-4, "{} by differences, {}", expected, got);
    }
}

#[test]
fn advantages_are_as_their_papers_say() {
    let check = |rewards: &[f64], kind, expect: &[f64]| {
        let elsewhere = Elsewhere { sum: 1.0, num: 4.0 };
        let got = advantages(rewards, kind, elsewhere);
        let close = got.iter().zip(expect).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(
            close && got.len() == expect.len(),
            "{kind:?}: {got:?}, expected {expect:?}"
        );
    };
    check(&[1.0, 2.0, 6.0], Advantage::None, &[1.0, 2.0, 6.0]);
    check(&[1.0, 2.0, 6.0], Advantage::LeaveOneOut, &[-3.0, -1.5, 4.5]);
    check(&[1.0, 3.0], Advantage::Group, &[-1.0, 1.0]);
    check(&[1.0, 3.0], Advantage::Round, &[1.0 - 0.8, 3.0 - 0.4]);
    check(&[2.0, 2.0], Advantage::Round, &[1.4, 1.4]);
    // Of one response the mean elsewhere is all there is; of equal rewards nothing is to be learned.
    check(&[1.0], Advantage::LeaveOneOut, &[0.75]);
    for kind in [Advantage::LeaveOneOut, Advantage::Group] {
        check(&[2.0, 2.0], kind, &[0.0, 0.0]);
    }
}

/// States, heads and derivatives of five positions over a vocabulary of nine.
fn vocabulary() -> (Side, Side, [u32; 5], [f64; 5], [f64; 5]) {
    let wave = |rows: usize, columns: usize, speed: f32| {
        let values: Vec<f32> = (0..rows * columns).map(|at| (speed * at as f32).sin()).collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
    };
    let policy = Side {
        states: wave(5, 6, 0.7),
        head: wave(9, 6, 1.3),
    };
    let reference = Side {
        states: wave(5, 6, 0.8),
        head: wave(9, 6, 1.1),
    };
    let by_log_prob = [1.0, -0.5, 0.0, 2.0, -1.0];
    let by_kl = [0.3, 0.0, 0.7, 0.1, 0.2];
    (policy, reference, [0, 8, 3, 3, 1], by_log_prob, by_kl)
}

#[test]
fn the_written_out_gradient_of_the_vocabulary_is_that_of_a_tape() {
    let (policy, reference, tokens, by_log_prob, by_kl) = vocabulary();
    let by = ByTokens {
        log_prob: &by_log_prob,
        kl: &by_kl,
    };
    let sides = (&policy, Some(&reference));
    let got = vocab_gradient(sides, &tokens, by, (2, true), KeptLogits::default());

    let on_tape = |tensor: &Tensor<2>| Tensor::from_inner(tensor.clone()).require_grad();
    let (states, head) = (on_tape(&policy.states), on_tape(&policy.head));
    let log_probs = log_softmax(states.clone().matmul(head.clone().transpose()), 1);
    let logits = reference
        .states
        .clone()
        .matmul(reference.head.clone().transpose());
    let reference_log_probs = Tensor::from_inner(log_softmax(logits, 1));
    let ids = TensorData::new(tokens.map(|token| token as i32).to_vec(), [5, 1]);
    let taken = log_probs
        .clone()
        .gather(1, Tensor::<2, Int>::from_data(ids, &states.device()));
    let kl = (log_probs.clone().exp() * (log_probs - reference_log_probs)).sum_dim(1);
    let constant = |values: [f64; 5]| {
        let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        Tensor::<2>::from_data(TensorData::new(values, [5, 1]), &states.device())
    };
    let loss = (taken.clone() * constant(by_log_prob)).sum() + (kl.clone() * constant(by_kl)).sum();
    let grads = loss.backward();
    let close = |got: Vec<f32>, expected: Vec<f32>, name: &str| {
        let error = crate::decoder::relative_error(&got, &expected);
        assert!(error < 1e-5, "{name}: relative error {error}");
    };
    close(values(got.states), values(states.grad(&grads).unwrap()), "states");
    close(
        values(got.head.unwrap()),
        values(head.grad(&grads).unwrap()),
        "head",
    );
    let floats = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
    close(floats(&got.numbers.kl_nats), values(kl), "KL");
    close(floats(&got.numbers.log_probs), values(taken), "log-probs");
}

#[test]
fn logits_that_were_kept_change_nothing() {
    let (policy, reference, tokens, by_log_prob, by_kl) = vocabulary();
    let by = ByTokens {
        log_prob: &by_log_prob,
        kl: &by_kl,
    };
    let sides = (&policy, Some(&reference));
    let again = vocab_gradient(sides, &tokens, by, (2, true), KeptLogits::default());
    // Room for everything, and for the first two of three parts.
    for room in [1 << 20, 2 * 2 * 2 * 9 * 4] {
        let mut kept = KeptLogits::new(room, true);
        let numbers = token_numbers(sides, &tokens, 2, &mut kept);
        assert_eq!(numbers, again.numbers);
        let got = vocab_gradient(sides, &tokens, by, (2, true), kept);
        assert_eq!(values(got.states), values(again.states.clone()));
        assert_eq!(values(got.head.unwrap()), values(again.head.clone().unwrap()));
    }
}

#[test]
fn tensor_operations_give_what_the_loops_give() {
    let (policy, reference, tokens, by_log_prob, by_kl) = vocabulary();
    let close = |got: &[f64], expect: &[f64], name: &str| {
        let same = got.iter().zip(expect).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(
            same && got.len() == expect.len(),
            "{name}: {got:?}, expected {expect:?}"
        );
    };
    let tensors_close = |got: Tensor<2>, expect: Tensor<2>, name: &str| {
        let error = crate::decoder::relative_error(&values(got), &values(expect));
        assert!(error < 1e-5, "{name}: relative error {error}");
    };
    for (reference, kl) in [
        (Some(&reference), &by_kl[..]),
        (Some(&reference), &[]),
        (None, &[]),
    ] {
        let (sides, log_prob) = ((&policy, reference), &by_log_prob[..]);
        let by = ByTokens { log_prob, kl };
        let expect = vocab_gradient(sides, &tokens, by, (2, true), KeptLogits::default());
        // Room for nothing, for the first two of three parts, for everything.
        for room in [0, 2 * 2 * 2 * 9 * 4, 1 << 20] {
            let mut kept = KeptTensors::new(room, true);
            let numbers = vocab_tensor::token_numbers(sides, &tokens, 2, &mut kept);
            let got = vocab_tensor::vocab_gradient(sides, &tokens, by, (2, true), kept);
            assert_eq!(numbers, got.numbers);
            close(&numbers.log_probs, &expect.numbers.log_probs, "log-probs");
            close(&numbers.kl_nats, &expect.numbers.kl_nats, "KL");
            close(&numbers.entropy_nats, &expect.numbers.entropy_nats, "entropy");
            let of_reference = (&numbers.reference_log_probs, &expect.numbers.reference_log_probs);
            close(of_reference.0, of_reference.1, "the reference's log-probs");
            tensors_close(got.states, expect.states.clone(), "states");
            tensors_close(got.head.unwrap(), expect.head.clone().unwrap(), "head");
        }
    }
    let none = ByTokens {
        log_prob: &by_log_prob,
        kl: &[],
    };
    let got =
        vocab_tensor::vocab_gradient((&policy, None), &tokens, none, (9, false), KeptTensors::default());
    assert!(got.head.is_none());
}
