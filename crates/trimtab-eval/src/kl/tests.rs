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

/// Expectation of the jackknifed value over all samples of `num_draws` responses, by enumeration.
fn expected_jackknife(class_probs: &[f64], num_draws: usize, num_candidates: u32) -> f64 {
    multinomial(class_probs, num_draws)
        .iter()
        .map(|(counts, weight)| {
            weight * best_of_n_kl_jackknife_nats(&sample_of(counts), num_candidates).unwrap()
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
    let estimate = best_of_n_kl_estimate_nats(&[RewardSample::try_new(&rewards).unwrap()], 8).unwrap();
    assert!((estimate - best_of_n_bound_nats(8)).abs() < 1e-3, "{estimate}");
}

#[test]
fn one_response_says_nothing_and_one_candidate_moves_nothing() {
    let check = |pools: &[RewardSample], num_candidates: u32, expect: Option<f64>| {
        assert_eq!(best_of_n_kl_estimate_nats(pools, num_candidates), expect);
    };
    check(&[sample_of(&[1])], 4, None);
    check(&[sample_of(&[2]), sample_of(&[1])], 4, None);
    check(&[], 4, None);
    check(&[sample_of(&[1])], 1, Some(0.0));
    check(&[sample_of(&[3, 2])], 1, Some(0.0));
    check(&[sample_of(&[5])], 4, Some(0.0));
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

/// Expectation of the plug-in value over all samples of `num_draws` responses: each class's term depends on the
/// numbers below and in it alone, which are binomial in turn.
fn expected_plug_in(class_probs: &[f64], num_draws: u64, num_candidates: u32) -> f64 {
    let binomial = |num_trials: u64, prob: f64| -> Vec<f64> {
        let mut ways = 1.0;
        let of_count = |count: u64| {
            let weight = ways * prob.powi(count as i32) * (1.0 - prob).powi((num_trials - count) as i32);
            ways *= (num_trials - count) as f64 / (count + 1) as f64;
            weight
        };
        (0..=num_trials).map(of_count).collect()
    };
    let mut expected = 0.0;
    let mut below = 0.0_f64;
    for &prob in class_probs {
        let prob_if_not_below = (prob / (1.0 - below)).min(1.0);
        for (num_below, weight) in binomial(num_draws, below).iter().enumerate() {
            let num_rest = num_draws - num_below as u64;
            for (count, part) in binomial(num_rest, prob_if_not_below).iter().enumerate() {
                let num_up_to = (num_below + count) as u64;
                expected +=
                    weight * part * share_term(num_below as u64, num_up_to, num_draws as f64, num_candidates);
            }
        }
        below += prob;
    }
    expected
}

/// Bias of the jackknifed value: leaving one out of `M` leaves `M - 1` independent draws.
fn jackknife_bias(class_probs: &[f64], num_draws: u64, num_candidates: u32) -> f64 {
    let m = num_draws as f64;
    let plug_in = |num_draws| expected_plug_in(class_probs, num_draws, num_candidates);
    m * plug_in(num_draws)
        - (m - 1.0) * plug_in(num_draws - 1)
        - best_of_n_kl_nats(class_probs, num_candidates)
}

/// From a rare best class to 400 equal ones.
fn nine_laws() -> Vec<Vec<f64>> {
    let halving: Vec<f64> = (1..12)
        .map(|power| 0.5_f64.powi(power))
        .chain([0.5_f64.powi(11)])
        .collect();
    let with_a_top = [vec![0.01; 60], vec![0.4]].concat();
    let with_a_bottom = [vec![0.5], vec![0.01; 50]].concat();
    let few = [[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]].map(|probs| probs.to_vec());
    let equal = [8, 40, 400].map(|num_classes| vec![1.0 / f64::from(num_classes); num_classes as usize]);
    [
        few.to_vec(),
        equal.to_vec(),
        vec![halving, with_a_top, with_a_bottom],
    ]
    .concat()
}

#[test]
fn the_bias_is_the_enumerated_one() {
    for (class_probs, num_draws, n) in [(vec![0.9, 0.1], 16, 4), (vec![0.2, 0.5, 0.3], 8, 4)] {
        let enumerated = expected_jackknife(&class_probs, num_draws, n) - best_of_n_kl_nats(&class_probs, n);
        assert!((jackknife_bias(&class_probs, num_draws as u64, n) - enumerated).abs() < 1e-12);
    }
}

#[test]
fn the_estimate_has_little_bias_where_the_plug_in_has_much() {
    let worst = |bias: &dyn Fn(&[f64]) -> f64| {
        let biases = nine_laws()
            .into_iter()
            .map(|class_probs| bias(&class_probs).abs());
        biases.fold(0.0, f64::max)
    };
    // The figures that the function's documentation gives.
    let check = |num_draws: u64, n: u32, expect: f64, expect_plug_in: f64| {
        let jackknife = worst(&|class_probs| jackknife_bias(class_probs, num_draws, n));
        let plug_in = worst(&|class_probs| {
            expected_plug_in(class_probs, num_draws, n) - best_of_n_kl_nats(class_probs, n)
        });
        assert!(
            (jackknife - expect).abs() < 6e-4 && (plug_in - expect_plug_in).abs() < 6e-4,
            "M = {num_draws}, N = {n}: {jackknife} and {plug_in}"
        );
    };
    check(20, 4, 0.002, 0.024);
    check(20, 16, 0.026, 0.268);
    check(64, 16, 0.0025, 0.085);
}

#[test]
fn prompts_are_averaged_before_the_mean_is_cut() {
    let (low, high) = (sample_of(&[5]), sample_of(&[1, 1]));
    let of_one = |sample: &RewardSample| best_of_n_kl_jackknife_nats(sample, 2).unwrap();
    assert!(
        of_one(&high) > best_of_n_bound_nats(2),
        "one prompt may pass the bound"
    );
    let mean = f64::midpoint(of_one(&low), of_one(&high));
    assert!(mean < best_of_n_bound_nats(2));
    assert_eq!(best_of_n_kl_estimate_nats(&[low, high], 2), Some(mean));
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
        (best_of_n_kl_estimate_nats(&[sample_of(&counts)], 4).unwrap() - exact).abs()
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
        if let Some(estimate) = best_of_n_kl_estimate_nats(&[sample_of(&counts)], n) {
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
