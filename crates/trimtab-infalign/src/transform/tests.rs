use proptest::prelude::*;

use super::*;
use crate::ReferenceQuantiles;

fn parsed(text: &str) -> Transform {
    text.parse().unwrap()
}

#[test]
fn texts_are_read_and_written_back() {
    for text in [
        "identity",
        "log",
        "exp:10",
        "exp:-10",
        "exp:0.5",
        "power:2",
        "bon_fp:4",
        "won_fp:4",
        "table:a/b.csv",
    ] {
        let transform = parsed(text);
        assert_eq!(transform.to_string(), text);
        let json = serde_json::to_string(&transform).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Transform>(&json).unwrap(), transform);
    }
}

#[test]
fn texts_that_are_no_transform_say_what_is() {
    let check = |text: &str, expect: &str| {
        let error = text.parse::<Transform>().unwrap_err().to_string();
        assert!(error.contains(expect), "{text:?}: {error}");
    };
    check("expo:3", "expected one of identity, log, exp:T");
    check("exp", "expected one of");
    check("identity:2", "expected one of");
    check("table:", "expected one of");
    check("exp:0", "that is not 0, got \"0\"");
    check("exp:NaN", "got \"NaN\"");
    check("exp:600", "from -500 to 500");
    check("power:-1", "a positive number up to 1000");
    check("bon_fp:0", "a whole number from 1 to 1024, got \"0\"");
    check("won_fp:2.5", "a whole number");
}

#[test]
fn a_number_in_a_configuration_is_no_transform() {
    let error = serde_json::from_str::<Transform>("4").unwrap_err().to_string();
    assert!(error.contains("integer `4`, expected a string"), "{error}");
}

#[test]
fn values_are_those_of_the_table_in_the_documentation() {
    let check = |text: &str, u: f64, expect: f64| {
        let prepared = parsed(text).prepare(1.0).unwrap();
        let value = prepared.transformed_reward(u);
        assert!(
            (value - expect).abs() < 1e-15,
            "{text} at {u}: {value}, expected {expect}"
        );
    };
    check("identity", 0.25, 0.25);
    check("log", 0.25, 0.25_f64.ln());
    check("exp:2", 0.25, (-1.5_f64).exp());
    check("exp:-2", 0.25, -(-0.5_f64).exp());
    check("power:3", 0.5, 0.125);
    check("exp:500", 0.0, (-500.0_f64).exp());
    check("exp:-500", 1.0, -(-500.0_f64).exp());
    // Out of range by rounding only; the ends are what is meant.
    check("identity", 1.0 + 1e-12, 1.0);
}

#[test]
fn log_is_clipped_at_half_a_sample() {
    let prepared = parsed("log").prepare(1.0).unwrap();
    assert_eq!(prepared.transformed_reward(0.0), 0.005_f64.ln());
    assert_eq!(
        prepared.clone().for_samples(4).transformed_reward(0.0),
        0.125_f64.ln()
    );
    assert_eq!(prepared.for_samples(4).transformed_reward(0.2), 0.2_f64.ln());
}

#[test]
fn tables_have_to_be_read_and_must_not_fall() {
    let unread = parsed("table:mine.csv");
    assert_eq!(unread.unread_table(), Some("mine.csv"));
    let error = unread.prepare(1.0).unwrap_err();
    assert_eq!(
        error,
        InfalignError::TableNotRead {
            name: "mine.csv".to_owned()
        }
    );
    let read = unread.clone().with_table("0 0\n0.5 0\n1 1").unwrap();
    assert_eq!(read.unread_table(), None);
    assert_eq!(read.prepare(1.0).unwrap().transformed_reward(0.75), 0.5);
    let error = unread.with_table("0 0\n0.5 2\n1 1").unwrap_err().to_string();
    assert!(error.contains("do not fall, got 1 at u = 1 after 2"), "{error}");
}

#[test]
fn betas_that_are_none_are_refused() {
    for beta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = Transform::Identity.prepare(beta).unwrap_err();
        assert!(matches!(error, InfalignError::OutOfRange { what: "beta", .. }));
    }
}

fn any_transform() -> impl Strategy<Value = Transform> {
    prop_oneof![
        Just(Transform::Identity),
        Just(Transform::Log),
        (0.1_f64..50.0).prop_map(|t| Transform::Exp { t }),
        (0.1_f64..50.0).prop_map(|t| Transform::Exp { t: -t }),
        (0.1_f64..50.0).prop_map(|p| Transform::Power { p }),
        (1_u32..6).prop_map(|n| Transform::BonFixedPoint { n }),
        (1_u32..6).prop_map(|n| Transform::WonFixedPoint { n }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn transforms_never_fall(transform in any_transform(), a in 0.0_f64..=1.0, b in 0.0_f64..=1.0) {
        let prepared = transform.prepare(1.5).unwrap();
        let (low, high) = (a.min(b), a.max(b));
        prop_assert!(prepared.transformed_reward(low) <= prepared.transformed_reward(high) + 1e-12);
        prop_assert!(prepared.transformed_reward(0.0).is_finite());
    }

    /// Calibration removes whatever increasing map a reward went through, so all that is trained on is the same.
    #[test]
    fn the_pipeline_ignores_increasing_maps_of_the_reward(
        transform in any_transform(),
        rewards in prop::collection::vec(-3_i32..3, 1..30),
        reward in -4_i32..4,
        scale in 0.01_f64..100.0,
        shift in -50.0_f64..50.0,
    ) {
        let maps: [&dyn Fn(f64) -> f64; 3] = [&|r| r * scale + shift, &|r| r.exp(), &|r| r.powi(3) + r];
        let prepared = transform.prepare(1.5).unwrap();
        let through = |map: &dyn Fn(f64) -> f64| {
            let mapped: Vec<f64> = rewards.iter().map(|&r| map(f64::from(r))).collect();
            let quantiles = ReferenceQuantiles::new(&mapped).unwrap();
            prepared.transformed_reward(quantiles.calibrated_reward(map(f64::from(reward))))
        };
        let plain = through(&|r| r);
        for map in maps {
            prop_assert_eq!(through(map), plain);
        }
    }
}
