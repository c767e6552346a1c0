use proptest::prelude::*;

use super::super::sample_row;
use super::*;

const INF: f32 = f32::INFINITY;

/// Normalised `t x + tilt` in f64, or `x` alone.
fn log_probs(logits: &[f32], tilt: &[f32], inverse_temperature: f32) -> Vec<f64> {
    let exponent =
        |(&x, &tilt): (&f32, &f32)| f64::from(x) * f64::from(inverse_temperature) + f64::from(tilt);
    let scaled: Vec<f64> = logits.iter().zip(tilt).map(exponent).collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_norm = max + scaled.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    scaled.iter().map(|x| x - log_norm).collect()
}

/// Logits like a model's, a few impossible, with tilts.
fn rows() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    let logit = prop_oneof![8 => -12.0_f32..4.0, 2 => 0.0_f32..14.0, 1 => Just(-INF)];
    let rows = prop::collection::vec((logit, -8.0_f32..8.0), 1..1500);
    let rows = rows.prop_map(|pairs| pairs.into_iter().unzip());
    rows.prop_filter("something is possible", |(logits, _): &(Vec<f32>, Vec<f32>)| {
        logits.iter().any(|logit| logit.is_finite())
    })
}

proptest! {
    #[test]
    fn a_guided_draw_is_that_of_exact_arithmetic(
        (logits, tilt) in rows(),
        inverse_temperature in prop_oneof![Just(1.0_f32), 0.05_f32..4.0],
        coin in 0.0_f64..1.0,
    ) {
        let policy = log_probs(&logits, &tilt, inverse_temperature);
        let reference = log_probs(&logits, &vec![0.0; tilt.len()], 1.0);
        let got = sample_guided_row(&logits, &tilt, inverse_temperature, coin).expect("a finite row");
        let idx = got.token_idx as usize;
        let before: f64 = policy[..idx].iter().map(|p| p.exp()).sum();
        prop_assert!(before - 2e-6 <= coin && coin <= before + policy[idx].exp() + 2e-6, "{idx} {before} {coin}");
        prop_assert!(policy[idx] > f64::NEG_INFINITY);
        prop_assert!((got.log_prob - policy[idx]).abs() < 4e-6, "{} {}", got.log_prob, policy[idx]);
        prop_assert!((got.reference_log_prob - reference[idx]).abs() < 4e-6);
        let terms = policy.iter().zip(&reference).filter(|(p, _)| **p > f64::NEG_INFINITY);
        let kl_nats: f64 = terms.map(|(p, q)| p.exp() * (p - q)).sum();
        prop_assert!((got.kl_nats - kl_nats).abs() < 1e-5, "{} {kl_nats}", got.kl_nats);
    }

    #[test]
    fn without_a_tilt_it_is_a_plain_draw((logits, _) in rows(), coin in 0.0_f64..1.0) {
        let tilt = vec![0.0; logits.len()];
        let (guided, plain) = (sample_guided_row(&logits, &tilt, 0.8, coin), sample_row(&logits, 0.8, coin));
        let (guided, plain) = (guided.expect("finite"), plain.expect("finite"));
        prop_assert_eq!(guided.token_idx, plain.token_idx);
        prop_assert!((guided.log_prob - plain.log_prob).abs() < 1e-6);
        prop_assert!((guided.kl_nats - plain.kl_nats).abs() < 1e-5);
    }

    #[test]
    fn instruction_sets_agree_to_the_last_bit((logits, tilt) in rows(), inverse_temperature in 0.1_f32..4.0) {
        let run = |isa: Isa| {
            let shape = shape(isa, &logits, &tilt, inverse_temperature).expect("finite");
            (shape, guided_sums(isa, &logits, &tilt, shape))
        };
        for isa in Isa::available() {
            prop_assert_eq!(run(isa), run(Isa::Portable), "{:?}", isa);
        }
    }
}

#[test]
fn a_constant_tilt_changes_nothing_and_a_large_one_moves_everything() {
    let logits: Vec<f32> = (0..600).map(|i| ((i * 37) % 101) as f32 / 10.0).collect();
    let plain = sample_row(&logits, 1.0, 0.3).unwrap();
    let shifted = sample_guided_row(&logits, &vec![-9.5; 600], 1.0, 0.3).unwrap();
    assert_eq!((shifted.token_idx, shifted.kl_nats), (plain.token_idx, 0.0));
    // The reference gives token 5 e^-90 or less, beyond what f32 terms hold; the tilt makes it certain.
    let mut logits = vec![0.0; 600];
    let mut tilt = vec![0.0; 600];
    (logits[5], tilt[5]) = (-90.0, 200.0);
    let drawn = sample_guided_row(&logits, &tilt, 1.0, 0.999).unwrap();
    let surprise = 90.0 + 599_f64.ln();
    assert_eq!(drawn.token_idx, 5);
    assert!(drawn.log_prob.abs() < 1e-9 && (drawn.reference_log_prob + surprise).abs() < 1e-5);
    assert!((drawn.kl_nats - surprise).abs() < 1e-4, "{}", drawn.kl_nats);
    // A tilt never makes the impossible possible.
    logits[5] = -INF;
    assert_ne!(
        sample_guided_row(&logits, &tilt, 1.0, 0.999).unwrap().token_idx,
        5
    );
}

#[test]
fn unusable_rows_and_tilts_have_no_answer() {
    for len in [1, 15, 16, 17, 300] {
        for bad in [f32::NAN, INF, -INF] {
            for idx in [0, len / 2, len - 1] {
                let (good, mut row) = (vec![1.0; len], vec![1.0; len]);
                row[idx] = bad;
                assert_eq!(sample_guided_row(&good, &row, 1.0, 0.5), None, "tilt {bad}");
                let is_usable = bad == -INF && len > 1;
                let drawn = sample_guided_row(&row, &good, 1.0, 0.5);
                assert_eq!(drawn.is_some(), is_usable, "logit {bad} of {len}");
            }
        }
    }
    for temperature in [0.0, -1.0, INF, f32::NAN] {
        assert_eq!(
            sample_guided_row(&[0.0, 1.0], &[0.0, 0.0], temperature, 0.5),
            None
        );
    }
}
