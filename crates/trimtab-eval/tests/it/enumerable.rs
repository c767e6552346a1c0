//! Formulas and estimates against laws enumerated response by response.

use trimtab_base::TokenId;
use trimtab_base::prob::{kl_nats, log_softmax_in_place};
use trimtab_base::testing::TableLm;
use trimtab_eval::{
    Frontier, FrontierPoint, Interval, KlKind, best_of_n_bound_nats, best_of_n_kl_nats, best_of_n_win_rate,
};

use crate::fixture::{frontier_input, reward};

/// Every response with its probability when each step's logits are divided by `temperature`.
fn responses(temperature: f64) -> Vec<(Vec<TokenId>, f64)> {
    let model = TableLm::tiny();
    let log_prob = |tokens: &[TokenId]| -> f64 {
        let step = |idx: usize| {
            let mut logits: Vec<f64> = model
                .log_probs(&tokens[..idx])
                .iter()
                .map(|log_prob| log_prob / temperature)
                .collect();
            log_softmax_in_place(&mut logits);
            logits[tokens[idx].index()]
        };
        (0..tokens.len()).map(step).sum()
    };
    model
        .enumerate()
        .into_iter()
        .map(|(tokens, _)| (tokens.clone(), log_prob(&tokens).exp()))
        .collect()
}

/// Law of the best of three draws, by enumeration of all triples; the first of equals is chosen. In order of
/// enumeration.
fn best_of_three(policy: &[(Vec<TokenId>, f64)]) -> Vec<f64> {
    let rewards: Vec<f64> = policy.iter().map(|(tokens, _)| reward(tokens)).collect();
    let mut law = vec![0.0; policy.len()];
    for first in 0..policy.len() {
        for second in 0..policy.len() {
            for third in 0..policy.len() {
                let better = if rewards[second] > rewards[first] {
                    second
                } else {
                    first
                };
                let best = if rewards[third] > rewards[better] {
                    third
                } else {
                    better
                };
                law[best] += policy[first].1 * policy[second].1 * policy[third].1;
            }
        }
    }
    law
}

fn kl(policy: &[f64], reference: &[f64]) -> f64 {
    let logs = |probs: &[f64]| probs.iter().map(|prob| prob.ln()).collect::<Vec<_>>();
    kl_nats(&logs(policy), &logs(reference))
}

fn probs(responses: &[(Vec<TokenId>, f64)]) -> Vec<f64> {
    responses.iter().map(|(_, prob)| *prob).collect()
}

/// Probabilities of the rewards 0, 1, 2, 3.
fn class_probs(responses: &[(Vec<TokenId>, f64)]) -> Vec<f64> {
    let of_class = |class: i32| {
        responses
            .iter()
            .filter(|(tokens, _)| reward(tokens) == f64::from(class))
            .map(|(_, prob)| prob)
            .sum()
    };
    (0..4).map(of_class).collect()
}

/// Win rate of a law against the reference, over all pairs of responses.
fn win_rate(law: &[f64], reference: &[(Vec<TokenId>, f64)]) -> f64 {
    let pairs = law
        .iter()
        .zip(reference)
        .flat_map(|(p, (y, _))| reference.iter().map(move |(z, q)| (p * q, y, z)));
    pairs
        .map(|(prob, y, z)| match reward(y).total_cmp(&reward(z)) {
            std::cmp::Ordering::Greater => prob,
            std::cmp::Ordering::Equal => 0.5 * prob,
            std::cmp::Ordering::Less => 0.0,
        })
        .sum()
}

#[test]
fn closed_forms_are_the_enumerated_law() {
    let reference = responses(1.0);
    let law = best_of_three(&reference);
    let exact = kl(&law, &probs(&reference));
    assert!((best_of_n_kl_nats(&class_probs(&reference), 3) - exact).abs() < 1e-12);
    assert!(exact < best_of_n_bound_nats(3), "ties are below the bound");
    assert!((best_of_n_win_rate(&class_probs(&reference), 3) - win_rate(&law, &reference)).abs() < 1e-12);
}

fn points(specs: &[&str], num_prompts: u64) -> Frontier {
    Frontier::compute(&frontier_input(specs, num_prompts)).unwrap()
}

/// Twice the 95% interval holds the exact value: for a correct estimate it fails once in ten thousand seeds.
fn assert_holds(name: &str, interval: Option<Interval>, exact: f64) {
    let Interval { lo, hi } = interval.unwrap();
    let half_width = (hi - lo) / 2.0;
    assert!(half_width < 0.12, "{name}: [{lo}, {hi}] says little");
    assert!(
        lo - half_width < exact && exact < hi + half_width,
        "{name}: {exact} is far from [{lo}, {hi}]"
    );
}

#[test]
fn intervals_hold_the_enumerated_values() {
    let frontier = points(&["sample", "sample:t=0.6", "bon:3", "bon:n=3,t=0.6"], 500);
    let (reference, cold) = (responses(1.0), responses(0.6));
    let laws = [
        probs(&reference),
        probs(&cold),
        best_of_three(&reference),
        best_of_three(&cold),
    ];
    for (point, law) in frontier.points.iter().zip(&laws) {
        let mean: f64 = law
            .iter()
            .zip(&reference)
            .map(|(prob, (tokens, _))| prob * reward(tokens))
            .sum();
        assert_holds(&point.method, point.reward_ci, mean);
        assert_holds(&point.method, point.win_rate_ci, win_rate(law, &reference));
    }
    let exact_kl = |idx: usize| kl(&laws[idx], &probs(&reference));
    let [sample, tempered, best, best_tempered] = &frontier.points[..] else {
        panic!("four methods")
    };
    assert_eq!((sample.kl_nats, sample.kl_kind), (0.0, KlKind::Exact));
    assert_eq!(tempered.kl_kind, KlKind::Exact);
    assert_holds("sample:t=0.6", tempered.kl_ci, exact_kl(1));
    assert_bound_holds(best, exact_kl(2));
    // Neither of its terms is bounded: an estimate, from its own three candidates a prompt.
    assert_eq!(
        (best_tempered.kl_kind, best_tempered.kl_estimate_nats),
        (KlKind::Estimate, None)
    );
    assert_holds("bon:n=3,t=0.6", best_tempered.kl_ci, exact_kl(3));
}

/// The bound is above the exact value, and the estimate is near.
fn assert_bound_holds(point: &FrontierPoint, exact: f64) {
    assert_eq!(point.kl_kind, KlKind::Bound);
    assert!(
        point.kl_nats > exact,
        "{}: bound {} and {exact}",
        point.method,
        point.kl_nats
    );
    let estimate = point.kl_estimate_nats.unwrap();
    assert!(
        (estimate - exact).abs() < 0.03,
        "{}: estimate {estimate} and {exact}",
        point.method
    );
    assert!(
        (estimate - exact).abs() < 0.7 * (point.kl_nats - exact),
        "{}: no better than the bound",
        point.method
    );
}

#[test]
fn the_curve_is_the_law_for_every_n() {
    let frontier = points(&["bon:16"], 300);
    let class_probs = class_probs(&responses(1.0));
    assert_eq!(frontier.best_of_n_curve.len(), 16);
    for point in &frontier.best_of_n_curve {
        let n = point.num_candidates as i32;
        let (mut up_to, mut mean) = (0.0_f64, 0.0);
        for (class, prob) in class_probs.iter().enumerate() {
            mean += class as f64 * ((up_to + prob).powi(n) - up_to.powi(n));
            up_to += prob;
        }
        let close = |what: &str, got: f64, exact: f64, tolerance: f64| {
            assert!(
                (got - exact).abs() < tolerance,
                "{what} of best-of-{n}: {got}, exactly {exact}"
            );
        };
        // 300 prompts of 20 responses: a standard error is about 0.03 for rewards, less for the others.
        close("reward", point.reward_mean, mean, 0.08);
        close(
            "win rate",
            point.win_rate.unwrap(),
            best_of_n_win_rate(&class_probs, n as u32),
            0.02,
        );
        let exact_kl = best_of_n_kl_nats(&class_probs, n as u32);
        close("KL", point.kl_estimate_nats.unwrap(), exact_kl, 0.05);
        assert!(point.kl_bound_nats >= exact_kl);
    }
}
