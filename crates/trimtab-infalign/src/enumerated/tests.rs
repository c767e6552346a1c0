use trimtab_base::TokenId;
use trimtab_base::prob::kl_nats;
use trimtab_base::testing::TableLm;

use super::*;
use crate::{Procedure, ReferenceQuantiles, Transform};

/// A response, its reward and its probability under the reference.
struct Response {
    reward: f64,
    prob: f64,
}

/// Every response of the tiny model, in order of reward; several share one.
fn responses() -> Vec<Response> {
    let reward = |tokens: &[TokenId]| {
        let of_token = |token: &TokenId| [0.0, 1.0, -2.0][token.index()];
        tokens.iter().map(of_token).sum::<f64>()
    };
    let mut responses: Vec<Response> = TableLm::tiny()
        .enumerate()
        .into_iter()
        .map(|(tokens, log_prob)| Response {
            reward: reward(&tokens),
            prob: log_prob.exp(),
        })
        .collect();
    responses.sort_by(|a, b| a.reward.total_cmp(&b.reward));
    responses
}

/// Rewards and probabilities of the classes.
fn classes() -> (Vec<f64>, Vec<f64>) {
    let (mut rewards, mut probs): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    for response in responses() {
        if rewards.last() == Some(&response.reward) {
            *probs.last_mut().unwrap() += response.prob;
        } else {
            rewards.push(response.reward);
            probs.push(response.prob);
        }
    }
    assert!(
        rewards.len() > 4 && rewards.len() < responses().len(),
        "some rewards are shared"
    );
    (rewards, probs)
}

fn prepared(procedure: &str) -> PreparedProcedure {
    procedure.parse::<Procedure>().unwrap().prepare().unwrap()
}

/// The win rate of the kept ones of n draws on each side, by summing over all 2n-tuples of classes.
fn win_rate_by_tuples(policy: &[f64], reference: &[f64], n: u32, best: bool) -> f64 {
    let size = policy.len();
    let tuples = size.pow(n);
    // The kept class of a tuple and its probability.
    let law = |probs: &[f64]| -> Vec<f64> {
        let mut law = vec![0.0; size];
        for tuple in 0..tuples {
            let classes: Vec<usize> = (0..n).map(|place| tuple / size.pow(place) % size).collect();
            let prob: f64 = classes.iter().map(|&class| probs[class]).product();
            let kept = if best {
                classes.iter().max()
            } else {
                classes.iter().min()
            };
            law[*kept.unwrap()] += prob;
        }
        law
    };
    let (of_policy, of_reference) = (law(policy), law(reference));
    let mut won = 0.0;
    for (class, prob) in of_policy.iter().enumerate() {
        for (other, other_prob) in of_reference.iter().enumerate() {
            let win = match class.cmp(&other) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
            won += prob * other_prob * win;
        }
    }
    won
}

#[test]
fn calibrated_rewards_are_the_expected_wins() {
    let (rewards, probs) = classes();
    let calibrated = calibrated_rewards(&probs);
    for (reward, calibrated) in rewards.iter().zip(&calibrated) {
        let expect: f64 = responses()
            .iter()
            .map(|other| {
                let win = if *reward > other.reward {
                    1.0
                } else if *reward == other.reward {
                    0.5
                } else {
                    0.0
                };
                other.prob * win
            })
            .sum();
        assert!((calibrated - expect).abs() < 1e-14);
    }
    let mean: f64 = probs
        .iter()
        .zip(&calibrated)
        .map(|(prob, calibrated)| prob * calibrated)
        .sum();
    assert!((mean - 0.5).abs() < 1e-14);
    // The sample estimator agrees where each response is drawn as often as another.
    let even = vec![0.25; 4];
    let quantiles = ReferenceQuantiles::new(&[0.0, 1.0, 2.0, 3.0]).unwrap();
    for (class, calibrated) in calibrated_rewards(&even).into_iter().enumerate() {
        assert_eq!(quantiles.calibrated_reward(class as f64), calibrated);
    }
}

#[test]
fn win_rates_are_those_of_all_tuples() {
    let (_, reference) = classes();
    let policy = tilted(&reference, &calibrated_rewards(&reference), 0.3);
    for n in [1, 2, 3] {
        for (name, best) in [("bon", true), ("won", false)] {
            let got = enumerated_win_rate(&policy, &reference, &prepared(&format!("{name}:{n}")));
            let expect = win_rate_by_tuples(&policy, &reference, n, best);
            assert!(
                (got - expect).abs() < 1e-13,
                "{name}:{n}: {got}, expected {expect}"
            );
            let even = enumerated_win_rate(&reference, &reference, &prepared(&format!("{name}:{n}")));
            assert!((even - 0.5).abs() < 1e-14);
        }
    }
}

/// B2: the optimum is the tilted reference; its objective is beta log Z, and no neighbour's is greater.
#[test]
fn the_tilted_reference_is_the_optimum() {
    let (_, reference) = classes();
    let beta = 0.2;
    for transform in ["identity", "log", "exp:10", "exp:-10", "bon_fp:4", "won_fp:4"] {
        let prepared = transform.parse::<Transform>().unwrap().prepare(beta).unwrap();
        let rewards: Vec<f64> = calibrated_rewards(&reference)
            .into_iter()
            .map(|calibrated| prepared.transformed_reward(calibrated))
            .collect();
        let logs = |probs: &[f64]| probs.iter().map(|prob| prob.ln()).collect::<Vec<f64>>();
        let objective = |policy: &[f64]| -> f64 {
            let reward: f64 = policy
                .iter()
                .zip(&rewards)
                .map(|(prob, reward)| prob * reward)
                .sum();
            reward - beta * kl_nats(&logs(policy), &logs(&reference))
        };
        let optimum = tilted(&reference, &rewards, beta);
        let total: f64 = reference
            .iter()
            .zip(&rewards)
            .map(|(prob, reward)| prob * (reward / beta).exp())
            .sum();
        assert!(
            (objective(&optimum) - beta * total.ln()).abs() < 1e-12,
            "{transform}"
        );
        for (from, to) in [(0, 1), (1, 0), (2, 4), (4, 2)] {
            let mut moved = optimum.clone();
            let step = 0.01 * moved[from];
            moved[from] -= step;
            moved[to] += step;
            assert!(objective(&moved) < objective(&optimum), "{transform}");
        }
    }
}

/// The first variation against finite differences of the sum over tuples, which knows nothing of it.
#[test]
fn first_variations_are_gradients_of_win_rates() {
    let (_, reference) = classes();
    let policy = tilted(&reference, &calibrated_rewards(&reference), 0.5);
    for (name, best) in [("bon:3", true), ("won:3", false)] {
        let variation = first_variation(&policy, &reference, &prepared(name));
        for from in 0..policy.len() {
            for to in 0..policy.len() {
                let moved = |step: f64| {
                    let mut moved = policy.clone();
                    moved[from] -= step;
                    moved[to] += step;
                    win_rate_by_tuples(&moved, &reference, 3, best)
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                let expect = variation[to] - variation[from];
                assert!(
                    (slope - expect).abs() < 1e-8,
                    "{name}, {from} to {to}: {slope}, expected {expect}"
                );
            }
        }
    }
}

/// B3: the coupled equations hold, with the gradient by finite differences of enumerated tuples.
#[test]
fn the_coupled_fixed_point_satisfies_both_equations() {
    let (_, reference) = classes();
    for (name, best, beta) in [
        ("bon:2", true, 0.3),
        ("bon:3", true, 0.1),
        ("won:2", false, 0.3),
        ("won:3", false, 0.2),
    ] {
        let policy = coupled_fixed_point(&reference, &prepared(name), beta).unwrap();
        let (_, n) = name.split_once(':').unwrap();
        let win_rate = |policy: &[f64]| win_rate_by_tuples(policy, &reference, n.parse().unwrap(), best);
        // log(pi / pi_ref) - R / beta is the same for all classes: moving mass between two of them gains nothing.
        for from in 0..policy.len() {
            let to = (from + 1) % policy.len();
            let moved = |step: f64| {
                let mut moved = policy.clone();
                moved[from] -= step;
                moved[to] += step;
                win_rate(&moved)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let log_ratio = |class: usize| (policy[class] / reference[class]).ln();
            let cost = beta * (log_ratio(to) - log_ratio(from));
            assert!(
                (slope - cost).abs() < 1e-7,
                "{name}, {from} to {to}: {slope} and {cost}"
            );
        }
    }
}

/// With one draw the coupled equations are the calibrated reward itself: the identity transform.
#[test]
fn one_draw_is_the_identity_transform() {
    let (_, reference) = classes();
    let policy = coupled_fixed_point(&reference, &prepared("sample"), 0.3).unwrap();
    let expect = tilted(&reference, &calibrated_rewards(&reference), 0.3);
    for (got, expect) in policy.iter().zip(&expect) {
        assert!((got - expect).abs() < 1e-12);
    }
}

/// Many small classes are the idealised continuous model.
#[test]
fn fine_classes_approach_the_continuous_model() {
    let num_classes = 4000;
    let reference = vec![1.0 / f64::from(num_classes); num_classes as usize];
    for (transform, beta) in [("exp:10", 0.32), ("identity", 0.243), ("exp:-10", 0.0115)] {
        let transform: Transform = transform.parse().unwrap();
        let prepared_transform = transform.prepare(beta).unwrap();
        let rewards: Vec<f64> = calibrated_rewards(&reference)
            .into_iter()
            .map(|calibrated| prepared_transform.transformed_reward(calibrated))
            .collect();
        let policy = tilted(&reference, &rewards, beta);
        let continuous = crate::policy_at_beta(&transform, beta).unwrap();
        for procedure in ["sample", "bon:4", "won:4", "rewind:0.75"] {
            let got = enumerated_win_rate(&policy, &reference, &prepared(procedure));
            let expect = crate::inference_win_rate(&continuous, &prepared(procedure)).win_rate;
            assert!(
                (got - expect).abs() < 1e-5,
                "{transform}, {procedure}: {got}, expected {expect}"
            );
        }
    }
}
