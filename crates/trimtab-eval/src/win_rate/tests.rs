use proptest::prelude::*;

use super::*;

fn sample(rewards: &[f64]) -> RewardSample {
    RewardSample::try_new(rewards).unwrap()
}

fn win(a: f64, b: f64) -> f64 {
    if a > b {
        1.0
    } else if a == b {
        0.5
    } else {
        0.0
    }
}

/// Every subset of `size` of the indices below `len`.
fn subsets(len: usize, size: usize) -> Vec<Vec<usize>> {
    (0..1_usize << len)
        .filter(|mask| mask.count_ones() as usize == size)
        .map(|mask| (0..len).filter(|idx| mask & (1 << idx) != 0).collect())
        .collect()
}

fn best(rewards: &[f64], subset: &[usize]) -> f64 {
    subset
        .iter()
        .map(|&idx| rewards[idx])
        .fold(f64::NEG_INFINITY, f64::max)
}

const TIED: [f64; 7] = [3.0, 1.0, 1.0, 2.0, 3.0, 0.0, 1.0];

#[test]
fn win_rate_is_the_mean_over_pairs() {
    let check = |a: &[f64], b: &[f64], expect: f64| assert_eq!(win_rate(&sample(a), &sample(b)), expect);
    check(&[1.0], &[0.0], 1.0);
    check(&[1.0], &[1.0], 0.5);
    check(&[0.0, 2.0], &[1.0, 2.0], 0.375);
    check(&TIED, &TIED, 0.5);
}

#[test]
fn estimate_from_one_pool_is_the_mean_over_opponents_and_subsets() {
    for n in 1..=6 {
        let mut wins = Vec::new();
        for (opponent, &reward) in TIED.iter().enumerate() {
            let mut others = TIED.to_vec();
            others.remove(opponent);
            wins.extend(
                subsets(6, n)
                    .iter()
                    .map(|subset| win(best(&others, subset), reward)),
            );
        }
        let expect = wins.iter().sum::<f64>() / wins.len() as f64;
        let got = best_of_n_win_rate_estimate(&sample(&TIED), n as u32).unwrap();
        assert!((got - expect).abs() < 1e-14, "N = {n}: {got} and {expect}");
    }
    assert_eq!(best_of_n_win_rate_estimate(&sample(&TIED), 7), None);
}

#[test]
fn estimate_against_held_out_responses_is_the_mean_over_subsets() {
    let held_out = [1.0, 2.0, 2.5];
    for n in 1..=7 {
        let chosen: Vec<f64> = subsets(7, n).iter().map(|subset| best(&TIED, subset)).collect();
        let expect = win_rate(&sample(&chosen), &sample(&held_out));
        let got = best_of_n_win_rate_against(&sample(&TIED), &sample(&held_out), n as u32).unwrap();
        assert!((got - expect).abs() < 1e-14, "N = {n}: {got} and {expect}");
    }
    assert_eq!(
        best_of_n_win_rate_against(&sample(&TIED), &sample(&held_out), 8),
        None
    );
}

#[test]
fn without_ties_every_form_is_n_over_n_plus_one() {
    let distinct: Vec<f64> = (0..20).map(f64::from).collect();
    for n in [1, 3, 19] {
        let expect = best_of_n_win_rate_without_ties(n);
        assert!((best_of_n_win_rate_estimate(&sample(&distinct), n).unwrap() - expect).abs() < 1e-13);
        assert!((best_of_n_win_rate(&vec![1e-4; 10_000], n) - expect).abs() < 1e-6);
    }
}

#[test]
fn the_law_of_two_classes_is_closed_form() {
    // Win, tie and loss of best-of-3 where the better class has probability 1/4.
    let finds_better = 1.0 - 0.75_f64.powi(3);
    let expect = finds_better * (0.75 + 0.25 / 2.0) + (1.0 - finds_better) * 0.75 / 2.0;
    assert!((best_of_n_win_rate(&[0.75, 0.25], 3) - expect).abs() < 1e-15);
}

fn rewards() -> impl Strategy<Value = Vec<f64>> {
    // Few distinct values, so that ties are common.
    prop::collection::vec((-3_i32..4).prop_map(f64::from), 1..20)
}

proptest! {
    #[test]
    fn sides_of_a_win_rate_sum_to_one(a in rewards(), b in rewards()) {
        let (a, b) = (sample(&a), sample(&b));
        prop_assert!((0.0..=1.0).contains(&win_rate(&a, &b)));
        prop_assert!((win_rate(&a, &b) + win_rate(&b, &a) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn win_rate_depends_on_the_order_of_rewards_alone(a in rewards(), b in rewards()) {
        let stretch = |rewards: &[f64]| sample(&rewards.iter().map(|r| r.exp() * 7.0 - 2.0).collect::<Vec<_>>());
        prop_assert_eq!(win_rate(&sample(&a), &sample(&b)), win_rate(&stretch(&a), &stretch(&b)));
    }

    #[test]
    fn more_candidates_never_lose_more(pool in rewards()) {
        let pool = sample(&pool);
        let rates: Vec<f64> = (1..20).map_while(|n| best_of_n_win_rate_estimate(&pool, n)).collect();
        prop_assert!(rates.first().is_none_or(|rate| (rate - 0.5).abs() < 1e-12));
        prop_assert!(rates.windows(2).all(|pair| pair[0] <= pair[1] + 1e-12));
        for (idx, rate) in rates.into_iter().enumerate() {
            let without_ties = best_of_n_win_rate_without_ties(idx as u32 + 1);
            prop_assert!(rate >= 0.0 && rate <= without_ties + 1e-12, "{} and {}", rate, without_ties);
        }
    }
}
