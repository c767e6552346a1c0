//! Agreement against counts by hand, against a sampled perfect predictor, and under swaps.

use trimtab_base::Seed;

use super::*;

fn bootstrap() -> Bootstrap {
    Bootstrap {
        num_resamples: 400,
        ..Bootstrap::of_seed(Seed(3))
    }
}

/// Numbers in [0, 1) from a fixed sequence.
fn draws(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[test]
fn pairs_are_counted_by_side_and_by_length() {
    // Right, wrong, tie, right; the chosen one is longer, longer, shorter, equal.
    let margins = [1.0, -2.0, 0.0, 3.0];
    let lengths = [[5.0, 2.0], [9.0, 1.0], [1.0, 4.0], [2.0, 2.0]];
    let got = pair_agreement(&margins, &lengths, &[1, 2, 3, 4], true, bootstrap());
    assert_eq!((got.accuracy.accuracy, got.accuracy.num_ties), (0.5, 1));
    assert_eq!(got.accuracy.accuracy_ci, Some(clopper_pearson(2, 4, 0.95)));
    let length = got.length;
    assert_eq!(length.longer_is_better.accuracy, 0.5);
    assert_eq!(length.shorter_is_better.accuracy, 0.25);
    assert_eq!(length.longer_is_better.num_ties, 1);
    let longer = length.where_chosen_is_longer.unwrap();
    assert_eq!((longer.accuracy, longer.num_items), (0.5, 2));
    let shorter = length.where_chosen_is_shorter.unwrap();
    assert_eq!(
        (shorter.accuracy, shorter.num_items, shorter.num_ties),
        (0.0, 1, 1)
    );
    // No pair is left out of the curve.
    let bins = got.calibration.unwrap().bins;
    assert_eq!(bins.iter().map(|bin| bin.num_items).sum::<u64>(), 4);
    assert!(bins.iter().all(|bin| bin.range[0] >= 0.5));
}

#[test]
fn a_reward_that_is_length_is_found_out() {
    let mut draw = draws(1);
    let lengths: Vec<[f64; 2]> = (0..200).map(|_| [draw() * 100.0, draw() * 100.0]).collect();
    let margins: Vec<f64> = lengths.iter().map(|[a, b]| 0.1 * (a - b)).collect();
    let keys: Vec<u64> = (0..200).collect();
    let got = pair_agreement(&margins, &lengths, &keys, false, bootstrap());
    assert!((got.length.correlation.unwrap() - 1.0).abs() < 1e-12);
    assert!(got.length.correlation_ci.unwrap().lo > 0.999);
    assert_eq!(got.accuracy, got.length.longer_is_better);
    assert_eq!(got.length.where_chosen_is_longer.unwrap().accuracy, 1.0);
    assert_eq!(got.length.where_chosen_is_shorter.unwrap().accuracy, 0.0);
    assert!(got.calibration.is_none());
    let flat = pair_agreement(&[1.0; 3], &[[1.0, 1.0]; 3], &[1, 2, 3], false, bootstrap());
    assert_eq!(
        (flat.length.correlation, flat.length.where_chosen_is_longer),
        (None, None)
    );
}

#[test]
fn a_predictor_that_means_what_it_says_is_calibrated_and_a_boaster_is_not() {
    let mut draw = draws(2);
    let logits: Vec<f64> = (0..4000).map(|_| 6.0 * draw() - 3.0).collect();
    let came: Vec<bool> = logits.iter().map(|&logit| draw() < logistic(logit)).collect();
    let lengths = vec![1.0; 4000];
    let keys: Vec<u64> = (0..4000).collect();
    let honest = label_agreement(&logits, &came, &lengths, &keys, bootstrap()).calibration;
    assert!(honest.ece < 0.03, "{}", honest.ece);
    let covers = |bin: &&ReliabilityBin| bin.observed_ci.unwrap().contains(bin.predicted);
    assert!(honest.bins.iter().filter(covers).count() * 10 >= honest.bins.len() * 8);
    let loud: Vec<f64> = logits.iter().map(|logit| 4.0 * logit).collect();
    let boaster = label_agreement(&loud, &came, &lengths, &keys, bootstrap()).calibration;
    assert!(
        boaster.ece > 0.1 && boaster.ece_ci.unwrap().lo > 0.08,
        "{}",
        boaster.ece
    );
    assert!(boaster.log_loss_nats > honest.log_loss_ci.unwrap().hi);
    // One bin by hand: all predictions alike.
    let same = label_agreement(
        &[0.0; 4],
        &[true, true, true, false],
        &[1.0; 4],
        &[1, 2, 3, 4],
        bootstrap(),
    );
    assert_eq!((same.calibration.ece, same.calibration.ece_ci), (0.25, None));
    let ci_of = |len: usize| {
        let keys = &keys[..len];
        label_agreement(&logits[..len], &came[..len], &lengths[..len], keys, bootstrap())
            .calibration
            .ece_ci
    };
    assert!(ci_of(29).is_none() && ci_of(30).is_some());
    assert!((same.calibration.log_loss_nats - std::f64::consts::LN_2).abs() < 1e-12);
    assert_eq!(
        (same.auc, same.length_correlation, same.accuracy.num_ties),
        (Some(0.5), None, 4)
    );
}

#[test]
fn the_share_of_ordered_pairs_is_that_of_all_pairs() {
    let mut draw = draws(5);
    let values: Vec<f64> = (0..60).map(|_| (draw() * 12.0).floor()).collect();
    let labels: Vec<bool> = (0..60).map(|_| draw() < 0.4).collect();
    let (mut right, mut all) = (0.0, 0.0);
    for (a, _) in values.iter().zip(&labels).filter(|(_, label)| **label) {
        for (b, _) in values.iter().zip(&labels).filter(|(_, label)| !**label) {
            all += 1.0;
            right += if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            };
        }
    }
    let got = auc_of(&sorted_ranks(&values), &labels, &mut (0..60)).unwrap();
    assert!((got - right / all).abs() < 1e-12);
    assert_eq!(auc_of(&[0, 1], &[true, true], &mut (0..2)), None);
}

#[test]
fn alike_pairs_widen_the_interval() {
    // 40 groups of 25 pairs that agree with each other.
    let margins: Vec<f64> = (0..1000)
        .map(|idx| if (idx / 25) % 2 == 0 { 1.0 } else { -1.0 })
        .collect();
    let lengths = vec![[1.0, 2.0]; 1000];
    let width = |keys: &[u64]| {
        let got = pair_agreement(&margins, &lengths, keys, false, bootstrap());
        let interval = got.accuracy.accuracy_ci.unwrap();
        interval.hi - interval.lo
    };
    let alone: Vec<u64> = (0..1000).collect();
    let grouped: Vec<u64> = (0..1000).map(|idx| idx / 25).collect();
    assert!(width(&grouped) > 3.0 * width(&alone));
    let one = pair_agreement(&margins, &lengths, &[7; 1000], false, bootstrap());
    assert_eq!(one.accuracy.accuracy_ci, None);
}
