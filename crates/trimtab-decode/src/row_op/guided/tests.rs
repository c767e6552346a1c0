use std::sync::Arc;

use proptest::prelude::*;
use trimtab_base::prob::log_softmax;

use super::*;
use crate::row_op::{GuideTerm, RowAnswer, RowOp};
use crate::sampling::Sampling;

fn guide(weights: &[f64], floor: Option<GuideFloor>) -> Guide {
    let term = |(scorer, &weight): (usize, &f64)| GuideTerm { scorer, weight };
    Guide {
        terms: weights.iter().enumerate().map(term).collect(),
        floor,
    }
}

fn draw(
    logits: &[f32],
    action_values: &[Vec<f32>],
    guide: Guide,
    sampling: Sampling,
    coin: f64,
) -> Result<GuidedToken, DecodeError> {
    let row = Row {
        logits,
        state_values: &[],
        action_values,
    };
    let op = RowOp::SampleGuided {
        sampling: Arc::new(sampling),
        guide: Arc::new(guide),
        coin,
    };
    match op.apply_row(&row)? {
        RowAnswer::Guided(token) => Ok(token),
        other => panic!("expected a guided token, got {other:?}"),
    }
}

/// `p(z) e^{sum_i w_i V_i(z)}` as it is written, normalised. `[vocab]`
fn eq_6(logits: &[f32], action_values: &[Vec<f32>], weights: &[f64]) -> Vec<f64> {
    let unnormalised = |idx: usize| {
        let tilt: f64 = weights
            .iter()
            .zip(action_values)
            .map(|(w, v)| w * f64::from(v[idx]))
            .sum();
        log_softmax(logits)[idx].exp() * tilt.exp()
    };
    let masses: Vec<f64> = (0..logits.len()).map(unnormalised).collect();
    let total: f64 = masses.iter().sum();
    masses.iter().map(|mass| mass / total).collect()
}

#[test]
fn a_guided_draw_inverts_the_law_of_equation_6_and_knows_its_divergence() {
    let logits = [0.3, -1.0, 2.0, 0.0];
    let values = [vec![1.0, -2.0, 0.5, 0.0], vec![0.1, 3.0, -1.0, 0.2]];
    for weights in [[0.0, 0.0], [1.5, 0.0], [2.0, -0.7], [-3.0, 1.0]] {
        let law = eq_6(&logits, &values, &weights);
        let reference = log_softmax(&logits);
        let divergence: f64 = law.iter().zip(&reference).map(|(p, q)| p * (p.ln() - q)).sum();
        let mut below = 0.0;
        for (token_idx, &prob) in law.iter().enumerate() {
            for coin in [below + prob * 0.01, below + prob * 0.99] {
                let token = draw(&logits, &values, guide(&weights, None), Sampling::REFERENCE, coin).unwrap();
                assert_eq!(token.sampled.token.index(), token_idx, "{weights:?} {coin}");
                assert!((token.sampled.log_prob - prob.ln()).abs() < 1e-12);
                assert_eq!(token.sampled.reference_log_prob, reference[token_idx]);
                assert!((token.sampled.kl_nats - divergence).abs() < 1e-12);
                let expected: Vec<f64> = values.iter().map(|v| f64::from(v[token_idx])).collect();
                assert_eq!((token.values, token.weights), (expected, weights.to_vec()));
            }
            below += prob;
        }
    }
}

#[test]
fn what_truncation_cut_stays_impossible_and_a_weight_of_zero_takes_its_term_out() {
    let logits = [2.0, 1.0, 0.0];
    let values = [vec![0.0, 0.0, 1e4], vec![f32::NAN; 3]];
    let sampling = Sampling {
        top_k: Some(2),
        ..Sampling::REFERENCE
    };
    for coin in [0.0, 0.5, 0.999_999] {
        let token = draw(&logits, &values, guide(&[1.0, 0.0], None), sampling, coin).unwrap();
        assert!(token.sampled.token.0 < 2);
        // The divergence is against the model as it is: top-k alone costs that much.
        let kept: f64 = log_softmax(&logits)[..2].iter().map(|p| p.exp()).sum();
        assert!((token.sampled.kl_nats + kept.ln()).abs() < 1e-12);
    }
}

#[test]
fn a_floor_adds_the_least_weight_that_holds_it() {
    let logits = [0.0, 0.0];
    let values = [vec![1.0, 0.0], vec![0.0, 1.0]];
    let floor = |at_least: f64| GuideFloor {
        term: 1,
        at_least,
        max_added_weight: 100.0,
    };
    let added = |weight: f64, at_least: f64| {
        let guide = guide(&[weight, 0.5], Some(floor(at_least)));
        draw(&logits, &values, guide, Sampling::REFERENCE, 0.0)
            .unwrap()
            .weights[1]
            - 0.5
    };
    // Two tokens: the mean of term 1 is the logistic function of the difference of the tilts.
    for at_least in [0.3, 0.6, 0.9] {
        let closed_form = (f64::ln(at_least / (1.0 - at_least)) - 0.5 + 2.0).max(0.0);
        assert!((added(2.0, at_least) - closed_form).abs() < 1e-9, "{at_least}");
    }
    assert_eq!(added(0.0, 0.2), 0.0);
    // No weight makes a mean of more than the greatest value.
    assert_eq!(added(0.0, 1.5), 100.0);
}

#[test]
fn values_that_leave_nothing_are_refused_with_weight_and_value() {
    let logits = [0.0, f32::NEG_INFINITY, 1.0];
    let check = |values: &[f32], weight: f64, expect: &str| {
        let error = draw(
            &logits,
            &[values.to_vec()],
            guide(&[weight], None),
            Sampling::REFERENCE,
            0.5,
        )
        .expect_err("must be refused")
        .to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
    };
    check(&[f32::NAN, 0.0, 0.0], 2.0, "got 2 * NaN");
    check(&[0.0, 0.0, f32::INFINITY], 2.0, "got 2 * inf");
    check(&[0.0, 0.0, f32::NEG_INFINITY], -2.0, "got -2 * -inf");
    check(
        &[-7.0, 0.0, -8.0],
        1e308,
        "got 1e308 * -8".replace("1e308", &1e308.to_string()).as_str(),
    );
    check(
        &[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY],
        1.0,
        "take a weight nearer to 0",
    );
    check(&[0.0, 0.0], 1.0, "scorer 0: expected its action values");
    // One possible token is enough, and a value of a token that cannot be drawn does not matter.
    let values = [vec![f32::NEG_INFINITY, f32::NAN, -1.0]];
    let token = draw(&logits, &values, guide(&[1.0], None), Sampling::REFERENCE, 0.5).unwrap();
    assert_eq!((token.sampled.token, token.sampled.log_prob), (TokenId(2), 0.0));
    let error =
        draw(&logits, &[], guide(&[1.0], None), Sampling::REFERENCE, 0.5).expect_err("none are there");
    assert_eq!(
        error,
        DecodeError::MissingValues {
            kind: "action",
            scorer: 0,
            num_scorers: 0
        }
    );
}

proptest! {
    #[test]
    fn a_guided_draw_is_a_draw_from_the_tilted_logits(
        logits in prop::collection::vec(-9.0_f32..9.0, 7),
        values in prop::collection::vec(-3.0_f32..3.0, 7),
        weight in -4.0_f64..4.0,
        coin in 0.0_f64..1.0,
    ) {
        let token = draw(&logits, std::slice::from_ref(&values), guide(&[weight], None), Sampling::REFERENCE, coin)
            .expect("usable");
        prop_assert!(token.sampled.kl_nats >= 0.0);
        let law = eq_6(&logits, std::slice::from_ref(&values), &[weight]);
        prop_assert!((token.sampled.log_prob.exp() - law[token.sampled.token.index()]).abs() < 1e-9);
    }

    #[test]
    fn a_floor_holds_or_its_weight_is_the_greatest(
        logits in prop::collection::vec(-5.0_f32..5.0, 6),
        values in prop::collection::vec(-3.0_f32..3.0, 6),
        at_least in -4.0_f64..4.0,
    ) {
        let floor = GuideFloor { term: 0, at_least, max_added_weight: 1e3 };
        let weights = draw(&logits, std::slice::from_ref(&values), guide(&[0.0], Some(floor)), Sampling::REFERENCE, 0.5)
            .expect("usable")
            .weights;
        let mean = |weight: f64| -> f64 {
            let law = eq_6(&logits, std::slice::from_ref(&values), &[weight]);
            law.iter().zip(&values).map(|(p, &v)| p * f64::from(v)).sum()
        };
        if weights[0] < 1e3 && weights[0] > 0.0 {
            prop_assert!((mean(weights[0]) - at_least).abs() < 1e-6);
        }
        if weights[0] == 0.0 {
            prop_assert!(mean(0.0) >= at_least - 1e-9);
        }
    }
}
