//! Packed scorers against the slow reference, and bit for bit against themselves in other batches.

use proptest::prelude::*;
use trimtab_base::TokenId;
use trimtab_kernels::gemm::Precision;
use trimtab_kernels::pool::Pool;
use trimtab_scorer::{HeadSizes, ScorerSet, ScorerWeights};

use crate::fixture::{hidden, sized, weights};

const HIDDEN: usize = 24;
const VOCAB: usize = 90;

/// Two scorers with equal token features, one with others, one without action head, one linear.
fn scorers() -> Vec<ScorerWeights> {
    let first = weights(1);
    let mut second = weights(2);
    second.token_features.clone_from(&first.token_features);
    let sizes = |trunk_len, features_len| HeadSizes {
        hidden_len: HIDDEN,
        vocab_len: VOCAB,
        trunk_len,
        features_len,
    };
    vec![
        first,
        second,
        weights(3),
        sized(4, sizes(8, 0)),
        sized(5, sizes(0, 3)),
    ]
}

fn packed(pool: &Pool) -> ScorerSet {
    ScorerSet::new(pool, Precision::F32, scorers()).expect("scorers of one model")
}

fn near(got: f64, expected: f64) -> bool {
    (got - expected).abs() < 1e-4 * (1.0 + expected.abs())
}

#[test]
fn values_are_those_of_the_slow_reference() {
    let pool = Pool::new(2);
    let (set, scorers, rows) = (packed(&pool), scorers(), 7);
    let hidden = hidden(rows, HIDDEN, 1);
    let mut states = vec![0.0; rows * 5];
    set.state_values(&pool, &hidden, &mut states);
    for (row, states) in hidden.chunks_exact(HIDDEN).zip(states.chunks_exact(5)) {
        for (weights, &got) in scorers.iter().zip(states) {
            assert!(near(f64::from(got), weights.state_value(row)), "{got}");
        }
    }
    for scorer in [0, 1, 2, 4] {
        let mut values = vec![0.0; rows * VOCAB];
        set.action_values(&pool, scorer, &hidden, &mut values);
        for (row, values) in hidden.chunks_exact(HIDDEN).zip(values.chunks_exact(VOCAB)) {
            for (got, expected) in values.iter().zip(scorers[scorer].action_values(row)) {
                assert!(
                    near(f64::from(*got), expected),
                    "scorer {scorer}: {got} {expected}"
                );
            }
        }
    }
}

#[test]
fn mixtures_differ_from_the_weighted_sum_by_a_constant_and_cost_a_product_a_feature_space() {
    let pool = Pool::new(2);
    let (set, scorers, rows) = (packed(&pool), scorers(), 3);
    assert_eq!((set.num_scorers(), set.num_feature_spaces()), (5, 3));
    let hidden = hidden(rows, HIDDEN, 2);
    let weights = [
        [Some(2.0), Some(-0.5), None, None, None],
        [None, None, Some(1.5), None, Some(-3.0)],
        [Some(0.0), None, None, None, None],
    ];
    let mut tilts = vec![f32::NAN; rows * VOCAB];
    let actions = set.tilts(&pool, &hidden, weights.as_flattened(), &mut tilts);
    for (row_idx, (row, tilt)) in hidden
        .chunks_exact(HIDDEN)
        .zip(tilts.chunks_exact(VOCAB))
        .enumerate()
    {
        let value = |scorer: usize, token: u32| scorers[scorer].action_value(row, TokenId(token));
        let active = || (0..5).filter(|&scorer| weights[row_idx][scorer].is_some());
        let mixed = |token: u32| {
            active()
                .map(|scorer| weights[row_idx][scorer].unwrap_or(0.0) * value(scorer, token))
                .sum::<f64>()
        };
        for token in 0..VOCAB as u32 {
            let got = f64::from(tilt[token as usize]) - f64::from(tilt[0]);
            assert!(near(got, mixed(token) - mixed(0)), "row {row_idx}, token {token}");
            for scorer in active() {
                let got = set.action_value(&actions, row_idx, scorer, TokenId(token));
                assert!(near(got, value(scorer, token)), "{got} {}", value(scorer, token));
            }
        }
    }
    assert!(
        tilts[2 * VOCAB..].iter().all(|&tilt| tilt == 0.0),
        "no weights, no tilt"
    );
}

#[test]
fn the_expectation_over_the_vocabulary_is_the_value_at_the_expected_features() {
    let weights = weights(6);
    let row = hidden(1, HIDDEN, 3);
    let features = weights.token_features.as_ref().unwrap();
    let probs: Vec<f64> = (0..VOCAB).map(|token| ((token * 31) % 17 + 1) as f64).collect();
    let total: f64 = probs.iter().sum();
    let mut expected_features = vec![0.0_f32; features.len];
    for (row, prob) in features.rows().zip(&probs) {
        for (sum, value) in expected_features.iter_mut().zip(row) {
            *sum += (f64::from(*value) * prob / total) as f32;
        }
    }
    let values = weights.action_values(&row);
    let exact: f64 = values
        .iter()
        .zip(&probs)
        .map(|(value, prob)| value * prob / total)
        .sum();
    let got = weights.expected_action_value(&row, &expected_features);
    assert!((got - exact).abs() < 1e-5, "{got} {exact}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_row_is_the_same_to_the_last_bit_in_any_batch(
        salts in prop::collection::vec(0_u64..50, 1..40),
        num_threads in 1_usize..4,
        precision in prop_oneof![Just(Precision::F32), Just(Precision::Bf16), Just(Precision::Int8Wide)],
    ) {
        let (pool, alone_pool) = (Pool::new(num_threads), Pool::new(1));
        let set = ScorerSet::new(&pool, precision, scorers()).unwrap();
        let weights_of = |salt: u64| [0, 1, 2, 3, 4].map(|k: u64| match (salt + k) % 4 {
            _ if k == 3 => None,
            0 => None,
            other => Some(other as f64 - 2.0),
        });
        let rows = salts.len();
        let batch: Vec<f32> = salts.iter().flat_map(|&salt| hidden(1, HIDDEN, salt)).collect();
        let weights: Vec<Option<f64>> = salts.iter().flat_map(|&salt| weights_of(salt)).collect();
        let (mut states, mut tilts) = (vec![0.0; rows * 5], vec![0.0; rows * VOCAB]);
        set.state_values(&pool, &batch, &mut states);
        let actions = set.tilts(&pool, &batch, &weights, &mut tilts);
        for (row_idx, &salt) in salts.iter().enumerate() {
            let row = hidden(1, HIDDEN, salt);
            let (mut state, mut tilt) = (vec![0.0; 5], vec![0.0; VOCAB]);
            set.state_values(&alone_pool, &row, &mut state);
            let alone = set.tilts(&alone_pool, &row, &weights_of(salt), &mut tilt);
            prop_assert_eq!(&state, &states[row_idx * 5..][..5]);
            prop_assert_eq!(&tilt, &tilts[row_idx * VOCAB..][..VOCAB]);
            for scorer in (0..5).filter(|&scorer| weights_of(salt)[scorer].is_some()) {
                let values = (set.action_value(&alone, 0, scorer, TokenId(7)), set.action_value(&actions, row_idx, scorer, TokenId(7)));
                prop_assert_eq!(values.0, values.1);
            }
        }
    }
}

#[test]
fn scorers_that_do_not_fit_together_are_refused() {
    let pool = Pool::new(1);
    let check = |scorers: Vec<ScorerWeights>, expect: &str| {
        let message = ScorerSet::new(&pool, Precision::F32, scorers)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expect), "{message}");
    };
    let sizes = |hidden_len, vocab_len| HeadSizes {
        hidden_len,
        vocab_len,
        trunk_len: 0,
        features_len: 3,
    };
    check(vec![], "at least one scorer");
    check(
        vec![sized(1, sizes(4, 9)), sized(1, sizes(5, 9))],
        "scorer 1 of 2: reads hidden states of 5",
    );
    check(
        vec![sized(1, sizes(4, 9)), sized(1, sizes(4, 8))],
        "scorer 1 of 2: is for a vocabulary of 8",
    );
    let mut bad = sized(1, sizes(4, 9));
    bad.state.out.weight[2] = f32::NAN;
    check(vec![bad], "state.out.weight is NaN at element 2");
}
