use proptest::prelude::*;

use super::*;

const INF: f32 = f32::INFINITY;

/// The same definitions in f64: log-probabilities at an inverse temperature.
fn log_probs(logits: &[f32], inverse_temperature: f32) -> Vec<f64> {
    let scaled: Vec<f64> = logits
        .iter()
        .map(|&x| f64::from(x) * f64::from(inverse_temperature))
        .collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_norm = max + scaled.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    scaled.iter().map(|x| x - log_norm).collect()
}

/// Logits like a model's: many small, some large, a few impossible.
fn logits_strategy(max_len: usize) -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![8 => -12.0_f32..4.0, 2 => 0.0_f32..14.0, 1 => Just(-INF), 1 => Just(2.5_f32)];
    prop::collection::vec(logit, 1..max_len)
}

fn has_finite(logits: &[f32]) -> bool {
    logits.iter().any(|logit| logit.is_finite())
}

proptest! {
    #[test]
    fn a_draw_is_that_of_exact_arithmetic(
        logits in logits_strategy(1500),
        inverse_temperature in prop_oneof![Just(1.0_f32), 0.05_f32..6.0],
        coin in 0.0_f64..1.0,
    ) {
        prop_assume!(has_finite(&logits));
        let (policy, reference) = (log_probs(&logits, inverse_temperature), log_probs(&logits, 1.0));
        let got = sample_row(&logits, inverse_temperature, coin).expect("a finite row");
        let idx = got.token_idx as usize;
        let before: f64 = policy[..idx].iter().map(|p| p.exp()).sum();
        prop_assert!(before - 1e-6 <= coin && coin <= before + policy[idx].exp() + 1e-6, "{idx} {before} {coin}");
        prop_assert!(policy[idx] > f64::NEG_INFINITY);
        prop_assert!((got.log_prob - policy[idx]).abs() < 2e-6, "{} {}", got.log_prob, policy[idx]);
        prop_assert!((got.reference_log_prob - reference[idx]).abs() < 2e-6);
        let terms = policy.iter().zip(&reference).filter(|(p, _)| **p > f64::NEG_INFINITY);
        let kl_nats: f64 = terms.map(|(p, q)| p.exp() * (p - q)).sum();
        prop_assert!((got.kl_nats - kl_nats).abs() < 3e-6, "{} {kl_nats}", got.kl_nats);
        prop_assert!(inverse_temperature != 1.0 || got.kl_nats == 0.0);
    }

    #[test]
    fn reductions_and_rankings_are_exact(logits in logits_strategy(1500), k in 0_usize..40) {
        prop_assume!(has_finite(&logits));
        let mut ranked: Vec<u32> = (0..logits.len() as u32).collect();
        ranked.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        prop_assert_eq!(argmax_row(&logits), Some(ranked[0]));
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        prop_assert!((log_sum_exp_row(&logits) - sum.ln()).abs() < 1e-6);
        let all = top_k_row(&logits, usize::MAX);
        prop_assert_eq!(&all, &ranked);
        ranked.truncate(k);
        prop_assert_eq!(top_k_row(&logits, k), ranked);
    }

    #[test]
    fn instruction_sets_agree_to_the_last_bit(logits in logits_strategy(1500), inverse_temperature in 0.1_f32..4.0) {
        prop_assume!(has_finite(&logits));
        let run = |isa: Isa| {
            let logits = &*logits;
            let (max, is_usable) = for_isa!(isa, max_and_usable(logits: &[f32]) -> (f32, bool));
            let sum = for_isa!(isa, sum_of_exp(logits: &[f32], max: f32) -> f64);
            (max, is_usable, sum, sample::sums(isa, logits, max, inverse_temperature))
        };
        for isa in Isa::available() {
            prop_assert_eq!(run(isa), run(Isa::Portable), "{:?}", isa);
        }
    }
}

#[test]
fn rounding_does_not_make_a_divergence_negative() {
    // Hardly tempered: the divergence is far below the rounding of its sums, which fall on both sides of 0.
    for salt in 1..200_u32 {
        let logits: Vec<f32> = (0..700_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_mul(salt) >> 8) as f32 / 1e6 - 12.0)
            .collect();
        for inverse_temperature in [0.99999, 1.00001] {
            let kl_nats = sample_row(&logits, inverse_temperature, 0.5).unwrap().kl_nats;
            assert!(
                (0.0..1e-5).contains(&kl_nats),
                "{salt} {inverse_temperature} {kl_nats}"
            );
        }
    }
}

#[test]
fn draws_follow_the_probabilities() {
    // 1/8, 1/2, impossible, 3/8.
    let logits = [0.125_f32.ln(), 0.5_f32.ln(), -INF, 0.375_f32.ln()];
    let check = |coin: f64, expect: u32| {
        assert_eq!(
            sample_row(&logits, 1.0, coin).unwrap().token_idx,
            expect,
            "{coin}"
        );
    };
    check(0.0, 0);
    check(0.1249, 0);
    check(0.1251, 1);
    check(0.6249, 1);
    check(0.6251, 3);
    check(0.999_999_999_999, 3);
    // A coin beyond the last sum gives the last possible token.
    assert_eq!(sample_row(&[0.0, 0.0, -INF], 1.0, 1.0).unwrap().token_idx, 1);
    let far: Vec<f32> = (0..1000).map(|i| if i == 700 { 0.0 } else { -200.0 }).collect();
    for coin in [0.0, 0.5, 1.0] {
        assert_eq!(sample_row(&far, 0.9, coin).unwrap().token_idx, 700);
    }
}

#[test]
fn unusable_rows_have_no_answer() {
    for len in [1, 15, 16, 17, 300] {
        for bad in [f32::NAN, INF] {
            for idx in [0, len / 2, len - 1] {
                let mut row = vec![1.0; len];
                row[idx] = bad;
                assert_eq!(argmax_row(&row), None);
                assert_eq!(sample_row(&row, 0.5, 0.5), None);
                assert!(!log_sum_exp_row(&row).is_finite());
            }
        }
        let impossible = vec![-INF; len];
        assert_eq!(argmax_row(&impossible), None);
        assert_eq!(sample_row(&impossible, 1.0, 0.0), None);
        assert_eq!(log_sum_exp_row(&impossible), f64::NEG_INFINITY);
    }
    assert_eq!(argmax_row(&[]), None);
    assert_eq!(log_sum_exp_row(&[]), f64::NEG_INFINITY);
    assert!(log_sum_exp_row(&[INF, f32::NAN]).is_nan());
    for temperature in [0.0, -1.0, INF, f32::NAN] {
        assert_eq!(sample_row(&[0.0, 1.0], temperature, 0.5), None);
    }
}

#[test]
fn large_rows_keep_their_precision() {
    let logits: Vec<f32> = (0..151_936_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 12.0)
        .collect();
    let reference = log_probs(&logits, 1.0);
    assert!((log_sum_exp_row(&logits) - (f64::from(logits[0]) - reference[0])).abs() < 1e-6);
    let got = sample_row(&logits, 1.0, 0.5).unwrap();
    let before: f64 = reference[..got.token_idx as usize].iter().map(|p| p.exp()).sum();
    assert!((before - 0.5).abs() < 1e-4, "{before}");
    assert!((got.log_prob - reference[got.token_idx as usize]).abs() < 1e-6);
}

#[test]
fn nan_is_never_among_the_best() {
    assert_eq!(top_k_row(&[f32::NAN, 1.0, f32::NAN, -INF, 1.0], 9), [1, 4, 3]);
    assert_eq!(top_k_row(&[3.0, 1.0], 0), [0_u32; 0]);
}
