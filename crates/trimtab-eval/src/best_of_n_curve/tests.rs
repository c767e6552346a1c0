use trimtab_base::Seed;

use super::*;

const MAX: u32 = 10;

fn curve_of(pools: &[RewardSample], max_candidates: u32) -> Vec<CurvePoint> {
    best_of_n_curve(pools, max_candidates, &Bootstrap::of_seed(Seed(3)))
}

fn pool(rewards: &[f64]) -> RewardSample {
    RewardSample::try_new(rewards).unwrap()
}

#[test]
fn expected_best_is_the_mean_over_subsets() {
    let rewards = [3.0, 1.0, 1.0, -2.0, 3.0, 0.5];
    for n in 1..=6_u32 {
        let best_of_each: Vec<f64> = (0..1_u32 << 6)
            .filter(|mask| mask.count_ones() == n)
            .map(|mask| {
                let chosen = (0..6)
                    .filter(|idx| mask & (1 << idx) != 0)
                    .map(|idx| rewards[idx]);
                chosen.fold(f64::NEG_INFINITY, f64::max)
            })
            .collect();
        let expect = best_of_each.iter().sum::<f64>() / best_of_each.len() as f64;
        assert!(
            (expected_best_reward(&pool(&rewards), n).unwrap() - expect).abs() < 1e-14,
            "N = {n}"
        );
    }
    assert_eq!(expected_best_reward(&pool(&rewards), 7), None);
}

#[test]
fn the_curve_ends_with_the_smallest_pool() {
    let pools = [pool(&[0.0, 1.0, 2.0, 3.0]), pool(&[0.0, 1.0, 2.0])];
    let curve = curve_of(&pools, MAX);
    let counts: Vec<u32> = curve.iter().map(|point| point.num_candidates).collect();
    assert_eq!(counts, [1, 2, 3]);
    assert_eq!(curve[0].win_rate, Some(0.5));
    // Pairs have the maxima 1, 2, 3, 2, 3, 3 in one pool and 1, 2, 2 in the other.
    let expect = f64::midpoint(14.0 / 6.0, 5.0 / 3.0);
    assert!((curve[1].reward_mean - expect).abs() < 1e-14);
    assert!(
        curve[2].win_rate.is_none(),
        "an opponent is left in one pool only"
    );
    assert!(curve_of(&[], MAX).is_empty());
    for point in &curve {
        assert!(point.reward_ci.unwrap().contains(point.reward_mean), "{point:?}");
        assert_eq!(
            point.win_rate_ci.is_some(),
            point.num_candidates == 2,
            "both pools give 1/2 for N = 1"
        );
    }
}

#[test]
fn long_curves_have_few_points_and_both_ends() {
    let rewards: Vec<f64> = (0..1000).map(f64::from).collect();
    let counts: Vec<u32> = curve_of(&[pool(&rewards)], 500)
        .iter()
        .map(|point| point.num_candidates)
        .collect();
    assert_eq!(counts[..64], (1..=64).collect::<Vec<u32>>());
    assert_eq!(counts.last(), Some(&500));
    assert!(
        counts.len() < 90 && counts.is_sorted_by(|a, b| a < b),
        "{counts:?}"
    );
}
