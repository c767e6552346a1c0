use std::sync::Arc;

use proptest::prelude::*;
use trimtab_base::TokenId;

use super::*;
use crate::row_op::{RowAnswer, RowOp};

const PROBS: [f64; 5] = [0.1, 0.4, 0.2, 0.05, 0.25];

fn logits_of(probs: &[f64]) -> Vec<f32> {
    probs.iter().map(|p| p.ln() as f32).collect()
}

fn policy_probs(sampling: &Sampling, logits: &[f32]) -> Vec<f64> {
    sampling
        .policy_log_probs(logits)
        .iter()
        .map(|log_prob| log_prob.exp())
        .collect()
}

/// The reference policy cut by one filter.
fn top_k(top_k: usize) -> Sampling {
    Sampling {
        top_k: Some(top_k),
        ..Sampling::REFERENCE
    }
}

fn top_p(top_p: f64) -> Sampling {
    Sampling {
        top_p: Some(top_p),
        ..Sampling::REFERENCE
    }
}

fn min_p(min_p: f64) -> Sampling {
    Sampling {
        min_p: Some(min_p),
        ..Sampling::REFERENCE
    }
}

/// Asserts the policy over five tokens of probabilities [`PROBS`], up to normalisation.
fn check_policy(sampling: Sampling, expect: [f64; 5]) {
    let total: f64 = expect.iter().sum();
    for (got, expect) in policy_probs(&sampling, &logits_of(&PROBS)).iter().zip(expect) {
        assert!(
            (got - expect / total).abs() < 1e-6,
            "{sampling:?}: {got}, expected {}",
            expect / total
        );
    }
}

#[test]
fn each_filter_keeps_what_its_definition_says() {
    check_policy(Sampling::REFERENCE, PROBS);
    check_policy(Sampling::at_temperature(0.5), PROBS.map(|p| p * p));
    check_policy(Sampling::at_temperature(2.0), PROBS.map(f64::sqrt));
    check_policy(Sampling::GREEDY, [0.0, 1.0, 0.0, 0.0, 0.0]);
    check_policy(top_k(2), [0.0, 0.4, 0.0, 0.0, 0.25]);
    check_policy(top_k(9), PROBS);
    check_policy(top_p(0.6), [0.0, 0.4, 0.0, 0.0, 0.25]);
    check_policy(top_p(0.7), [0.0, 0.4, 0.2, 0.0, 0.25]);
    check_policy(top_p(0.01), [0.0, 0.4, 0.0, 0.0, 0.0]);
    check_policy(top_p(1.0), PROBS);
    check_policy(min_p(0.4), [0.0, 0.4, 0.2, 0.0, 0.25]);
    check_policy(min_p(0.0), PROBS);
}

#[test]
fn filters_apply_in_the_documented_order() {
    // The temperature flattens before top-p counts: 0.4 and 0.25 are 0.65 of the mass untempered, 0.53 tempered.
    let flattened = [0.0, 0.4_f64.sqrt(), 0.2_f64.sqrt(), 0.0, 0.5];
    check_policy(
        Sampling {
            temperature: 2.0,
            ..top_p(0.6)
        },
        flattened,
    );
    // Top-p counts what top-k left: 0.4 of 0.65 is above 0.6.
    check_policy(
        Sampling {
            top_k: Some(2),
            ..top_p(0.6)
        },
        [0.0, 1.0, 0.0, 0.0, 0.0],
    );
    // Min-p compares tempered probabilities: 0.25 / 0.4 is below 0.7, its root above.
    check_policy(
        Sampling {
            temperature: 2.0,
            ..min_p(0.7)
        },
        flattened,
    );
    // Greedy wins over filters.
    check_policy(
        Sampling {
            temperature: 0.0,
            ..top_k(3)
        },
        [0.0, 1.0, 0.0, 0.0, 0.0],
    );
}

#[test]
fn ties_stay_with_the_lower_token_id() {
    let logits = [0.0, 1.0, 1.0, 1.0];
    let kept = |sampling: Sampling| -> Vec<usize> {
        let probs = policy_probs(&sampling, &logits);
        (0..probs.len()).filter(|&idx| probs[idx] > 0.0).collect()
    };
    assert_eq!(kept(Sampling::GREEDY), [1]);
    assert_eq!(kept(top_k(2)), [1, 2]);
    assert_eq!(kept(top_p(0.5)), [1, 2]);
    assert_eq!(kept(min_p(0.9)), [1, 2, 3]);
}

#[test]
fn extreme_temperatures_stay_finite() {
    let logits = [3.0, 2.9, f32::NEG_INFINITY];
    assert_eq!(
        policy_probs(&Sampling::at_temperature(1e-300), &logits),
        [1.0, 0.0, 0.0]
    );
    assert_eq!(
        policy_probs(&Sampling::at_temperature(1e300), &logits),
        [0.5, 0.5, 0.0]
    );
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let check = |sampling: Sampling, expect: &str| {
        let error = sampling.validate().expect_err("must be refused").to_string();
        assert!(error.starts_with(expect), "{error}");
    };
    check(
        Sampling::at_temperature(-0.5),
        "temperature: expected a finite number that is at least 0",
    );
    check(Sampling::at_temperature(f64::NAN), "temperature");
    check(Sampling::at_temperature(f64::INFINITY), "temperature");
    check(top_k(0), "top_k");
    check(top_p(0.0), "top_p");
    check(top_p(1.01), "top_p");
    check(top_p(f64::NAN), "top_p");
    check(min_p(1.0), "min_p");
    check(min_p(-0.1), "min_p");
    let extremes = Sampling {
        temperature: 0.0,
        top_k: Some(1),
        top_p: Some(1.0),
        min_p: Some(0.0),
    };
    assert_eq!(extremes.validate(), Ok(()));
}

#[test]
fn plain_means_that_nothing_is_cut() {
    let plain = Sampling::at_temperature(0.3);
    assert!(plain.is_plain());
    assert!(
        Sampling {
            top_p: Some(1.0),
            min_p: Some(0.0),
            ..plain
        }
        .is_plain()
    );
    assert!(!top_k(5).is_plain());
    assert!(!top_p(0.99).is_plain());
    assert!(!min_p(0.01).is_plain());
}

#[test]
fn config_files_cannot_misspell_a_setting() {
    let parse = |json: &str| serde_json::from_str::<Sampling>(json);
    assert_eq!(parse("{}").ok(), Some(Sampling::REFERENCE));
    assert_eq!(
        parse(r#"{"temperature": 0.5}"#).ok(),
        Some(Sampling::at_temperature(0.5))
    );
    assert!(parse(r#"{"temprature": 0.5}"#).is_err());
}

#[test]
fn a_row_without_a_distribution_is_refused() {
    let op = RowOp::Sample {
        sampling: Arc::new(Sampling::REFERENCE),
        coin: 0.5,
    };
    let (nan, minus, plus) = (f32::NAN, f32::NEG_INFINITY, f32::INFINITY);
    for row in [
        vec![],
        vec![nan; 3],
        vec![minus; 3],
        vec![0.0, nan],
        vec![0.0, plus],
    ] {
        for op in [&op, &RowOp::TopLogProbs { count: 1 }] {
            assert!(
                matches!(op.apply(&row), Err(DecodeError::UnusableLogits { .. })),
                "{op:?} of {row:?}"
            );
        }
    }
    assert!(op.apply(&[minus, 0.0]).is_ok());
}

#[test]
fn coins_on_a_grid_draw_each_token_as_often_as_its_probability() {
    let sampling = Sampling {
        top_k: Some(3),
        ..Sampling::at_temperature(0.8)
    };
    let logits = logits_of(&PROBS);
    let num_coins = 10_000;
    let mut counts = [0.0; 5];
    for coin_idx in 0..num_coins {
        let coin = (f64::from(coin_idx) + 0.5) / f64::from(num_coins);
        match (RowOp::Sample {
            sampling: Arc::new(sampling),
            coin,
        })
        .apply(&logits)
        {
            Ok(RowAnswer::Sampled(sampled)) => {
                counts[sampled.token.index()] += 1.0;
                let idx = sampled.token.index();
                assert!((sampled.log_prob - sampling.policy_log_probs(&logits)[idx]).abs() < 1e-12);
                assert!((sampled.reference_log_prob - PROBS[idx].ln()).abs() < 1e-6);
            }
            other => panic!("expected a token, got {other:?}"),
        }
    }
    for (count, prob) in counts.iter().zip(policy_probs(&sampling, &logits)) {
        // Each end of a token's interval can gain or lose one grid point.
        assert!(
            (count - prob * f64::from(num_coins)).abs() <= 1.0,
            "{count}, expected {prob}"
        );
    }
}

#[test]
fn top_log_probs_are_sorted_with_ties_by_id() {
    let top = |logits: &[f32], count: usize| match (RowOp::TopLogProbs { count }).apply(logits) {
        Ok(RowAnswer::Top(top)) => top,
        other => panic!("expected a list, got {other:?}"),
    };
    let ids =
        |logits: &[f32], count: usize| top(logits, count).iter().map(|(id, _)| id.0).collect::<Vec<_>>();
    assert_eq!(ids(&[0.0, 2.0, 1.0, 2.0], 3), [1, 3, 2]);
    assert_eq!(ids(&[0.0, 2.0], 9), [1, 0]);
    assert_eq!(top(&[0.0, 0.0], 1), [(TokenId(0), -(2.0_f64.ln()))]);
}

prop_compose! {
    fn any_sampling()(
        temperature in 0.05_f64..5.0,
        top_k in prop::option::of(1_usize..8),
        top_p in prop::option::of(0.01_f64..=1.0),
        min_p in prop::option::of(0.0_f64..0.99),
    ) -> Sampling {
        Sampling { temperature, top_k, top_p, min_p }
    }
}

/// The definition of top-p, by search: the least number of tokens whose mass reaches `top_p`.
fn nucleus_len(probs: &[f64], top_p: f64) -> usize {
    let mut sorted = probs.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    (1..=sorted.len())
        .find(|&len| sorted[..len].iter().sum::<f64>() >= top_p)
        .unwrap_or(sorted.len())
}

proptest! {
    #[test]
    fn policies_are_distributions_that_keep_the_best_token_and_the_order(
        logits in prop::collection::vec(-9.0_f32..9.0, 1..12), sampling in any_sampling(),
    ) {
        let probs = policy_probs(&sampling, &logits);
        prop_assert!((probs.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let num_kept = probs.iter().filter(|&&p| p > 0.0).count();
        prop_assert!(num_kept >= 1 && sampling.top_k.is_none_or(|top_k| num_kept <= top_k));
        for (i, j) in (0..logits.len()).flat_map(|i| (0..logits.len()).map(move |j| (i, j))) {
            if logits[i] > logits[j] {
                prop_assert!(probs[i] >= probs[j], "the more probable token lost");
            }
        }
    }

    #[test]
    fn top_p_keeps_the_fewest_tokens_that_reach_the_mass(
        logits in prop::collection::vec(-4.0_f32..4.0, 1..12), mass in 0.01_f64..0.99,
    ) {
        let reference = policy_probs(&Sampling::REFERENCE, &logits);
        let kept = policy_probs(&top_p(mass), &logits);
        prop_assert_eq!(kept.iter().filter(|&&p| p > 0.0).count(), nucleus_len(&reference, mass));
    }
}
