use std::sync::Arc;

use proptest::prelude::*;
use trimtab_decode::GuideTerm;
use trimtab_kernels::gemm::Precision;
use trimtab_scorer::{HeadSizes, ScorerWeights};

use super::*;

const HIDDEN: usize = 12;
const VOCAB: usize = 300;

fn scorers(pool: &Pool) -> ScorerSet {
    let sizes = |features_len| HeadSizes {
        hidden_len: HIDDEN,
        vocab_len: VOCAB,
        trunk_len: 8,
        features_len,
    };
    let mut scorers = vec![
        ScorerWeights::random(1, sizes(6)),
        ScorerWeights::random(2, sizes(9)),
    ];
    scorers[1].offset = 40.0;
    scorers.push(ScorerWeights::random(3, sizes(0)));
    ScorerSet::new(pool, Precision::F32, scorers).unwrap()
}

fn op(temperature: f64, weights: &[(usize, f64)], coin: f64) -> RowOp {
    let term = |&(scorer, weight): &(usize, f64)| GuideTerm { scorer, weight };
    RowOp::SampleGuided {
        sampling: Arc::new(Sampling::at_temperature(temperature)),
        guide: Arc::new(Guide {
            terms: weights.iter().map(term).collect(),
            floor: None,
        }),
        coin,
    }
}

/// Rows whose logits and hidden states are fixed pseudo-random numbers.
fn output(rows: usize, salt: u32) -> ForwardOutput {
    let value = |idx: usize| ((idx as u32 + salt).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32;
    ForwardOutput {
        hidden: (0..rows * HIDDEN).map(|idx| 4.0 * value(idx) - 2.0).collect(),
        logits: (0..rows * VOCAB).map(|idx| 12.0 * value(idx + 7) - 6.0).collect(),
    }
}

fn scoring<'a>(
    pool: &'a Pool,
    output: &'a ForwardOutput,
    scorers: &'a ScorerSet,
    tilts: &'a mut Vec<f32>,
) -> Scoring<'a> {
    Scoring {
        pool,
        output,
        hidden_len: HIDDEN,
        vocab_len: VOCAB,
        scorers: Some(scorers),
        tilts,
        time: Duration::ZERO,
    }
}

fn guided(answer: Result<RowAnswer, DecodeError>) -> GuidedToken {
    match answer {
        Ok(RowAnswer::Guided(token)) => token,
        other => panic!("a guided draw is answered by a token, got {other:?}"),
    }
}

/// The same draw with a coin beside its own.
fn shifted(op: &RowOp, shift: f64) -> RowOp {
    let RowOp::SampleGuided {
        sampling,
        guide,
        coin,
    } = op
    else {
        panic!("only guided draws are shifted");
    };
    RowOp::SampleGuided {
        sampling: Arc::clone(sampling),
        guide: Arc::clone(guide),
        coin: (coin + shift).clamp(0.0, 1.0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_fast_draw_is_the_reference_draw(
        draws in prop::collection::vec(
            (prop_oneof![Just(1.0), 0.3_f64..2.0], -3.0_f64..3.0, -1.0_f64..1.0, 0.0_f64..1.0, 0_u8..3),
            1..80,
        ),
        salt in 0_u32..1000,
    ) {
        let (pool, output) = (Pool::new(2), output(draws.len(), salt));
        let (scorers, mut tilts) = (scorers(&pool), vec![f32::NAN; 10]);
        let ops: Vec<RowOp> = draws
            .iter()
            .map(|&(temperature, first, second, coin, kind)| match kind {
                0 => op(temperature, &[(0, first)], coin),
                1 => op(temperature, &[(1, second), (0, first)], coin),
                // One scorer in two terms, one of weight 0.
                _ => op(temperature, &[(0, first), (1, 0.0), (0, second)], coin),
            })
            .collect();
        let tasks: Vec<Task<'_>> = ops.iter().enumerate().map(|(row_idx, op)| Task { op, row_idx }).collect();
        let mut scoring = scoring(&pool, &output, &scorers, &mut tilts);
        let answers = scoring.apply(&tasks);
        for (task, answer) in tasks.iter().zip(answers) {
            let got = guided(answer);
            let expected = guided(scoring.apply_alone(task.op, task.row_idx));
            if got.sampled.token != expected.sampled.token {
                // The coin is where rounding decides between two tokens.
                let beside = |shift: f64| guided(scoring.apply_alone(&shifted(task.op, shift), task.row_idx));
                let (low, high) = (beside(-1e-5).sampled.token, beside(1e-5).sampled.token);
                prop_assert!((low..=high).contains(&got.sampled.token));
                continue;
            }
            let near = |a: f64, b: f64, within: f64| (a - b).abs() < within;
            prop_assert!(near(got.sampled.log_prob, expected.sampled.log_prob, 1e-4));
            prop_assert!(near(got.sampled.reference_log_prob, expected.sampled.reference_log_prob, 1e-5));
            prop_assert!(near(got.sampled.kl_nats, expected.sampled.kl_nats, 1e-4));
            prop_assert_eq!(&got.weights, &expected.weights);
            for (got, expected) in got.values.iter().zip(&expected.values) {
                prop_assert!(near(*got, *expected, 1e-4), "{} {}", got, expected);
            }
        }
    }
}

#[test]
fn kinds_of_operations_are_answered_in_their_places() {
    let pool = Pool::new(2);
    let (output, scorers, mut tilts) = (output(3, 5), scorers(&pool), Vec::new());
    let sample = RowOp::Sample {
        sampling: Arc::new(Sampling::REFERENCE),
        coin: 0.5,
    };
    // No action head, so that the reference answers.
    let refused = op(1.0, &[(2, 1.0)], 0.5);
    let guided = op(1.0, &[(0, 1.0)], 0.5);
    let tasks = [
        (&sample, 0),
        (&RowOp::StateValues, 1),
        (&refused, 0),
        (&guided, 2),
        (&RowOp::StateValues, 0),
    ];
    let tasks = tasks.map(|(op, row_idx)| Task { op, row_idx });
    let answers = scoring(&pool, &output, &scorers, &mut tilts).apply(&tasks);
    let state_values = |answer: &Result<RowAnswer, DecodeError>| match answer {
        Ok(RowAnswer::Values(values)) => values.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(answers[0], Ok(RowAnswer::Sampled(_))));
    assert!(matches!(
        answers[2],
        Err(DecodeError::MissingValues { scorer: 2, .. })
    ));
    assert!(matches!(answers[3], Ok(RowAnswer::Guided(_))));
    for (answer, row_idx) in [(&answers[1], 1), (&answers[4], 0)] {
        let mut expected = vec![0.0; 3];
        scorers.state_values(&pool, &output.hidden[row_idx * HIDDEN..][..HIDDEN], &mut expected);
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        assert_eq!(state_values(answer), expected);
    }
}
