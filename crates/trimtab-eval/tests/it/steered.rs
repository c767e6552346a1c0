//! Steered methods against laws enumerated response by response: what a report says of their drift is true.

use std::collections::BTreeMap;

use trimtab_base::TokenId;
use trimtab_base::testing::TableLm;
use trimtab_eval::{Frontier, FrontierPoint, Interval, KlKind};

use crate::fixture::{frontier_input, reward};

/// Probability of each complete response.
type Law = BTreeMap<Vec<TokenId>, f64>;

fn reference() -> Law {
    let responses = TableLm::tiny().enumerate();
    responses
        .into_iter()
        .map(|(tokens, log_prob)| (tokens, log_prob.exp()))
        .collect()
}

fn is_complete(tokens: &[TokenId]) -> bool {
    tokens.last() == Some(&TableLm::EOS)
}

/// Every block of at most `block_len` tokens after `prefix` with its probability under the reference.
fn blocks(prefix: &[TokenId], block_len: usize) -> Vec<(Vec<TokenId>, f64)> {
    let mut open = vec![(prefix.to_vec(), 1.0)];
    for _ in 0..block_len {
        open = open
            .into_iter()
            .flat_map(|(tokens, prob)| {
                if is_complete(&tokens) {
                    return vec![(tokens, prob)];
                }
                let next = TableLm::tiny().log_probs(&tokens);
                let with = |(token, log_prob): (usize, &f64)| {
                    (
                        [tokens.as_slice(), &[TokenId(token as u32)]].concat(),
                        prob * log_prob.exp(),
                    )
                };
                next.iter().enumerate().map(with).collect()
            })
            .filter(|(_, prob)| *prob > 0.0)
            .collect();
    }
    open
}

/// The best of `k` blocks after blocks: a class of equal values is kept with `F^k - F_below^k`, in it the reference's law.
fn blockwise_law(prefix: &[TokenId], k: i32, block_len: usize) -> Law {
    if is_complete(prefix) {
        return Law::from([(prefix.to_vec(), 1.0)]);
    }
    let blocks = blocks(prefix, block_len);
    let mut law = Law::new();
    for (block, prob) in &blocks {
        let share = |is_in: &dyn Fn(f64) -> bool| -> f64 {
            blocks
                .iter()
                .filter(|(other, _)| is_in(reward(other)))
                .map(|(_, prob)| prob)
                .sum()
        };
        let value = reward(block);
        let (below, up_to) = (share(&|other| other < value), share(&|other| other <= value));
        let kept = (up_to.powi(k) - below.powi(k)) * prob / (up_to - below);
        for (response, rest) in blockwise_law(block, k, block_len) {
            *law.entry(response).or_default() += kept * rest;
        }
    }
    law
}

/// Each step's probabilities times `e^(weight value)`, normalised.
fn tokenwise_law(weight: f64) -> Law {
    let step = |tokens: &[TokenId], token: TokenId| {
        let next = TableLm::tiny().log_probs(tokens);
        let tilted = |idx: usize| {
            let with = [tokens, &[TokenId(idx as u32)]].concat();
            next[idx].exp() * (weight * reward(&with)).exp()
        };
        tilted(token.index()) / (0..next.len()).map(tilted).sum::<f64>()
    };
    let prob = |tokens: &[TokenId]| {
        (0..tokens.len())
            .map(|idx| step(&tokens[..idx], tokens[idx]))
            .product()
    };
    reference()
        .into_keys()
        .map(|tokens| (tokens.clone(), prob(&tokens)))
        .collect()
}

fn kl(law: &Law) -> f64 {
    let reference = reference();
    law.iter()
        .map(|(tokens, prob)| prob * (prob / reference[tokens]).ln())
        .sum()
}

fn mean_reward(law: &Law) -> f64 {
    law.iter().map(|(tokens, prob)| prob * reward(tokens)).sum()
}

fn points(specs: &[&str]) -> Vec<FrontierPoint> {
    Frontier::compute(&frontier_input(specs, 800)).unwrap().points
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
fn laws_are_distributions_and_a_block_as_long_as_the_response_is_best_of_k() {
    for law in [
        blockwise_law(&[], 3, 2),
        blockwise_law(&[], 3, 4),
        tokenwise_law(1.5),
    ] {
        assert!((law.values().sum::<f64>() - 1.0).abs() < 1e-12);
    }
    assert!(
        (kl(&blockwise_law(&[], 1, 2))).abs() < 1e-12,
        "one block is no choice"
    );
    let class_probs: Vec<f64> = (0..4)
        .map(|class| {
            let reference = reference();
            let of_class = reference
                .iter()
                .filter(|(tokens, _)| reward(tokens) == f64::from(class));
            of_class.map(|(_, prob)| prob).sum()
        })
        .collect();
    let exact = trimtab_eval::best_of_n_kl_nats(&class_probs, 3);
    assert!((kl(&blockwise_law(&[], 3, 4)) - exact).abs() < 1e-12);
}

#[test]
fn blocks_lie_between_their_estimate_and_their_bound() {
    let points = points(&["cd-block:k=3,m=2,audit=12", "cd-block:k=3,m=1,audit=12"]);
    for (point, block_len) in points.iter().zip([2, 1]) {
        let law = blockwise_law(&[], 3, block_len);
        let exact = kl(&law);
        assert_holds(&point.method, point.reward_ci, mean_reward(&law));
        assert_eq!(point.kl_kind, KlKind::Bound);
        assert!(
            point.kl_nats > exact,
            "{}: bound {} and {exact}",
            point.method,
            point.kl_nats
        );
        assert_holds(&point.method, point.kl_estimate_ci, exact);
        let estimate = point.kl_estimate_nats.unwrap();
        assert!(
            (estimate - exact).abs() < 0.3 * (point.kl_nats - exact),
            "{}: {estimate}, exactly {exact}",
            point.method
        );
        assert_eq!(
            point.values.len(),
            0,
            "names of values come with the run's scorers"
        );
        assert!(point.choices_per_answer.unwrap() > 1.0 && point.first_commit_tokens.unwrap() >= 3.0);
    }
    // Responses end early, so that fewer choices are made than four tokens have blocks.
    assert!(points[0].choices_per_answer.unwrap() < 2.0);
}

#[test]
fn tilted_tokens_have_exact_drift() {
    let point = points(&["cd-token:weight=1.5"]).remove(0);
    let law = tokenwise_law(1.5);
    assert_eq!((point.kl_kind, point.kl_estimate_nats), (KlKind::Exact, None));
    assert_holds("cd-token reward", point.reward_ci, mean_reward(&law));
    assert_holds("cd-token KL", point.kl_ci, kl(&law));
}
