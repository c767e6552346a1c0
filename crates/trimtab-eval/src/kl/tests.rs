use proptest::prelude::*;
use trimtab_base::prob::kl_nats;

use super::*;

/// Every way to see `num_draws` draws fall into the classes, with its probability.
fn multinomial(class_probs: &[f64], num_draws: usize) -> Vec<(Vec<usize>, f64)> {
    let Some((&prob, rest)) = class_probs.split_first() else {
        return vec![(Vec::new(), if num_draws == 0 { 1.0 } else { 0.0 })];
    };
    let mut binomial = 1.0;
    let mut all = Vec::new();
    for count in 0..=num_draws {
        for (counts, weight) in multinomial(rest, num_draws - count) {
            let mut with_count = vec![count];
            with_count.extend(counts);
            all.push((with_count, weight * binomial * prob.powi(count as i32)));
        }
        binomial *= (num_draws - count) as f64 / (count + 1) as f64;
    }
    all.retain(|(_, weight)| *weight > 0.0);
    all
}

fn sample_of(counts: &[usize]) -> RewardSample {
    let rewards: Vec<f64> = counts
        .iter()
        .enumerate()
        .flat_map(|(class, &count)| vec![class as f64; count])
        .collect();
    RewardSample::try_new(&rewards).unwrap()
}

/// Expectation of the estimate over all samples of `num_draws` responses, by enumeration.
fn expected_estimate(class_probs: &[f64], num_draws: usize, num_candidates: u32) -> f64 {
    multinomial(class_probs, num_draws)
        .iter()
        .map(|(counts, weight)| {
            weight * best_of_n_kl_estimate_nats(&sample_of(counts), num_candidates).unwrap()
        })
        .sum()
}

#[test]
fn bounds_are_the_published_numbers() {
    // Values of log N - (N-1)/N to three decimals, computed apart from this code.
    for (n, expect) in [
        (1, 0.0),
        (2, 0.193),
        (4, 0.636),
        (16, 1.835),
        (32, 2.497),
        (64, 3.175),
    ] {
        assert!((best_of_n_bound_nats(n) - expect).abs() < 5e-4, "N = {n}");
    }
    assert_eq!(blockwise_bound_nats(4, 3), 3.0 * best_of_n_bound_nats(4));
    assert_eq!(selection_bound_nats(8), 8.0_f64.ln());
}

#[test]
fn two_classes_have_a_closed_form() {
    // The better of two classes of probability 1/2 is chosen with 1 - 2^-N.
    for n in 1..=6 {
        let miss = 0.5_f64.powi(n);
        let expect = kl_nats(&[miss.ln(), (1.0 - miss).ln()], &[0.5_f64.ln(); 2]);
        assert!(
            (best_of_n_kl_nats(&[0.5, 0.5], n as u32) - expect).abs() < 1e-14,
            "N = {n}"
        );
    }
}

#[test]
fn many_small_classes_reach_the_bound() {
    for n in [2, 4, 16] {
        let kl = best_of_n_kl_nats(&vec![1e-5; 100_000], n);
        let bound = best_of_n_bound_nats(n);
        assert!(kl <= bound && bound - kl < 1e-7, "N = {n}: {kl} and {bound}");
    }
}

#[test]
fn a_sample_without_ties_gives_the_bound() {
    let rewards: Vec<f64> = (0..64).map(f64::from).collect();
    let estimate = best_of_n_kl_estimate_nats(&RewardSample::try_new(&rewards).unwrap(), 8).unwrap();
    assert!((estimate - best_of_n_bound_nats(8)).abs() < 1e-3, "{estimate}");
}

#[test]
fn one_response_says_nothing_and_one_candidate_moves_nothing() {
    assert_eq!(best_of_n_kl_estimate_nats(&sample_of(&[1]), 4), None);
    assert_eq!(best_of_n_kl_estimate_nats(&sample_of(&[3, 2]), 1), Some(0.0));
    assert_eq!(best_of_n_kl_estimate_nats(&sample_of(&[5]), 4), Some(0.0));
}

#[test]
fn the_fast_jackknife_is_the_slow_one() {
    for counts in [vec![1, 1], vec![3, 1, 4], vec![1, 5, 9, 2, 6], vec![7]] {
        let sample = sample_of(&counts);
        let total = sample.len() as f64;
        let without = |class: usize| {
            let mut fewer = counts.clone();
            fewer[class] -= 1;
            plug_in(sample_of(&fewer).classes(), total - 1.0, 4)
        };
        let slow: f64 = (0..counts.len())
            .map(|class| counts[class] as f64 * without(class))
            .sum::<f64>()
            / total;
        assert!((mean_without_one(&sample, 4) - slow).abs() < 1e-12, "{counts:?}");
    }
}

#[test]
fn the_estimate_has_little_bias_where_the_plug_in_has_much() {
    // Exact expectations over all samples; what is left comes from cutting to [0, bound] and from terms of 1/M^2.
    let check = |class_probs: &[f64], num_draws: usize, n: u32, max_bias: f64| {
        let exact = best_of_n_kl_nats(class_probs, n);
        let bias = expected_estimate(class_probs, num_draws, n) - exact;
        assert!(
            bias.abs() < max_bias,
            "{class_probs:?}, M = {num_draws}, N = {n}: bias {bias} of {exact}"
        );
    };
    check(&[0.5, 0.5], 4, 4, 0.02);
    check(&[0.5, 0.5], 16, 16, 0.01);
    check(&[0.9, 0.1], 16, 4, 0.01);
    check(&[0.9, 0.1], 64, 16, 0.01);
    check(&[0.2, 0.5, 0.3], 8, 4, 0.01);
    check(&[0.2, 0.5, 0.3], 64, 4, 0.001);
    let plug_in_at_four: f64 = multinomial(&[0.5, 0.5], 4)
        .iter()
        .map(|(counts, weight)| weight * plug_in(sample_of(counts).classes(), 4.0, 4))
        .sum();
    assert!(
        plug_in_at_four - best_of_n_kl_nats(&[0.5, 0.5], 4) < -0.1,
        "the correction has something to correct"
    );
}

#[test]
fn the_estimate_converges() {
    let class_probs = [0.1, 0.4, 0.3, 0.2];
    let exact = best_of_n_kl_nats(&class_probs, 4);
    let error = |num_draws: f64| {
        let counts: Vec<usize> = class_probs
            .iter()
            .map(|prob| (prob * num_draws) as usize)
            .collect();
        (best_of_n_kl_estimate_nats(&sample_of(&counts), 4).unwrap() - exact).abs()
    };
    assert!(
        error(100.0) < 0.02 && error(10_000.0) < 2e-4,
        "{} {}",
        error(100.0),
        error(10_000.0)
    );
}

proptest! {
    #[test]
    fn estimate_lies_between_zero_and_the_bound(
        counts in prop::collection::vec(1_usize..6, 1..12), n in 1_u32..40,
    ) {
        if let Some(estimate) = best_of_n_kl_estimate_nats(&sample_of(&counts), n) {
            prop_assert!((0.0..=best_of_n_bound_nats(n)).contains(&estimate), "{}", estimate);
        }
    }

    #[test]
    fn exact_value_lies_between_zero_and_both_bounds(
        weights in prop::collection::vec(0.001_f64..1.0, 1..12), n in 1_u32..40,
    ) {
        let total: f64 = weights.iter().sum();
        let class_probs: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let kl = best_of_n_kl_nats(&class_probs, n);
        prop_assert!(kl > -1e-12 && kl <= best_of_n_bound_nats(n) + 1e-12);
        prop_assert!(best_of_n_bound_nats(n) <= selection_bound_nats(n));
        // Merging two classes hides differences between responses, and so cannot increase the divergence.
        if let [a, b, rest @ ..] = class_probs.as_slice() {
            let merged: Vec<f64> = std::iter::once(a + b).chain(rest.iter().copied()).collect();
            prop_assert!(best_of_n_kl_nats(&merged, n) <= kl + 1e-12);
        }
    }
}
