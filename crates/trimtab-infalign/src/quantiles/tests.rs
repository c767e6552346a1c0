use proptest::prelude::*;

use super::*;

#[test]
fn ties_count_half() {
    let quantiles = ReferenceQuantiles::new(&[1.0, 0.0, 3.0, 1.0]).unwrap();
    let check =
        |reward: f64, expect: f64| assert_eq!(quantiles.calibrated_reward(reward), expect, "{reward}");
    check(-1.0, 0.0);
    check(-0.0, 0.125);
    check(1.0, 0.5);
    check(2.0, 0.75);
    check(3.0, 0.875);
    check(9.0, 1.0);
    check(f64::NAN, 0.0);
    assert_eq!((quantiles.num_samples(), quantiles.num_distinct()), (4, 3));
}

#[test]
fn a_prompt_whose_responses_are_all_alike_says_so() {
    let quantiles = ReferenceQuantiles::new(&[2.0; 5]).unwrap();
    assert!(quantiles.is_degenerate());
    assert_eq!(quantiles.calibrated_reward(2.0), 0.5);
    assert_eq!(quantiles.interpolated(2.0), 0.5);
    assert_eq!(quantiles.calibrated_reward(2.1), 1.0);
    assert_eq!(quantiles.interpolated(1.9), 0.0);
    assert!(!ReferenceQuantiles::new(&[2.0, 3.0]).unwrap().is_degenerate());
}

#[test]
fn rewards_that_are_none_are_refused() {
    assert!(matches!(
        ReferenceQuantiles::new(&[]),
        Err(InfalignError::Empty { .. })
    ));
    let error = ReferenceQuantiles::new(&[0.0, f64::INFINITY]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "reference reward number 1 is inf, expected a finite number"
    );
}

#[test]
fn interpolation_passes_through_the_samples_and_fades_beyond_them() {
    let quantiles = ReferenceQuantiles::new(&[0.0, 1.0, 1.0, 3.0]).unwrap();
    let check = |reward: f64, expect: f64| {
        let got = quantiles.interpolated(reward);
        assert!((got - expect).abs() < 1e-12, "{reward}: {got}, expected {expect}");
    };
    check(0.0, 0.125);
    check(0.5, 0.3125);
    check(1.0, 0.5);
    check(2.0, 0.6875);
    check(3.0, 0.875);
    // The mean gap is 1.5: half of it beyond the last sample, half of what is left is gone.
    check(3.75, 0.9375);
    check(-0.75, 0.0625);
    check(99.0, 1.0);
    check(-99.0, 0.0);
}

/// B4 by enumeration of all ways to draw K of a law with ties: the estimate's mean is the truth, and without ties its
/// variance is u (1-u) / K.
#[test]
fn the_estimator_is_unbiased_with_the_stated_error() {
    let (rewards, probs) = ([0.0, 1.0, 2.0], [0.2_f64, 0.5, 0.3]);
    let num_samples = 3_u32;
    for (reward, truth, tied) in [(1.0, 0.45, true), (0.5, 0.2, false), (1.5, 0.7, false)] {
        let (mut mean, mut square) = (0.0, 0.0);
        for draw in 0..3_usize.pow(num_samples) {
            let picks: Vec<usize> = (0..num_samples)
                .map(|place| draw / 3_usize.pow(place) % 3)
                .collect();
            let prob: f64 = picks.iter().map(|&pick| probs[pick]).product();
            let drawn: Vec<f64> = picks.iter().map(|&pick| rewards[pick]).collect();
            let estimate = ReferenceQuantiles::new(&drawn).unwrap().calibrated_reward(reward);
            mean += prob * estimate;
            square += prob * estimate * estimate;
        }
        assert!((mean - truth).abs() < 1e-12, "{reward}: {mean}");
        let variance = square - mean * mean;
        let stated = estimator_standard_error(truth, num_samples as usize).powi(2);
        if tied {
            assert!(variance < stated, "ties only lower it");
        } else {
            assert!(
                (variance - stated).abs() < 1e-12,
                "{reward}: {variance}, stated {stated}"
            );
        }
    }
}

#[test]
fn average_errors_are_the_derived_ones() {
    // The printed root mean square errors of B4.
    for (num_samples, expect) in [(4, 0.204), (10, 0.129), (32, 0.072), (100, 0.041), (1000, 0.013)] {
        assert!(
            (estimator_rmse(num_samples) - expect).abs() < 5e-4,
            "{num_samples}"
        );
    }
    // It is the mean of u (1-u) / K over uniform u.
    let mean: f64 = (0..1000)
        .map(|idx| estimator_standard_error((f64::from(idx) + 0.5) / 1000.0, 32).powi(2) / 1000.0)
        .sum();
    assert!((mean.sqrt() - estimator_rmse(32)).abs() < 1e-6);
}

proptest! {
    #[test]
    fn the_samples_have_mean_one_half_and_leaving_one_out_is_counting_the_others(
        rewards in prop::collection::vec(-4_i32..4, 2..20),
    ) {
        let rewards: Vec<f64> = rewards.into_iter().map(f64::from).collect();
        let quantiles = ReferenceQuantiles::new(&rewards).unwrap();
        let mean: f64 =
            rewards.iter().map(|&reward| quantiles.calibrated_reward(reward)).sum::<f64>() / rewards.len() as f64;
        prop_assert!((mean - 0.5).abs() < 1e-12);
        for idx in 0..rewards.len() {
            let mut others = rewards.clone();
            let reward = others.remove(idx);
            let expect = ReferenceQuantiles::new(&others).unwrap().calibrated_reward(reward);
            let got = quantiles.calibrated_left_out(reward).unwrap();
            prop_assert!((got - expect).abs() < 1e-12);
        }
    }

    #[test]
    fn interpolated_rewards_rise_and_stay_in_range(
        rewards in prop::collection::vec(-4_i32..4, 1..20), a in -6.0_f64..6.0, b in -6.0_f64..6.0,
    ) {
        let rewards: Vec<f64> = rewards.into_iter().map(f64::from).collect();
        let quantiles = ReferenceQuantiles::new(&rewards).unwrap();
        let (low, high) = (quantiles.interpolated(a.min(b)), quantiles.interpolated(a.max(b)));
        prop_assert!(low <= high + 1e-12 && (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
    }
}
