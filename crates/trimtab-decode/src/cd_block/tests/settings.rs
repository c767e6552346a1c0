//! Where blocks end, what budgets and floors do, and what is refused.

use std::cell::RefCell;

use super::*;
use crate::laws::{inputs, run, run_with, steering};
use crate::need::{FinishReason, Prefix};
use crate::spec::DecodeSpec;
use crate::steering::{Floor, Steering};
use crate::stop::StopRules;

#[test]
fn a_budget_is_kept_and_spent_on_choices_as_long_as_it_lasts() {
    let stop = StopRules {
        max_new_tokens: 4,
        ..inputs(0).stop
    };
    let mut num_choices = Vec::new();
    for budget in [1, 4, 6, 8, 11, 1000] {
        let mut most = 0;
        for prompt in 0..200 {
            for beams in [1, 2] {
                let spec = format!("cd-block:k=3,m=1,beams={beams},budget={budget}");
                let inputs = DecoderInputs {
                    stop: stop.clone(),
                    ..inputs(prompt)
                };
                let outcome = run_with(&TableLm::tiny(), &spec, inputs).expect("it runs");
                // One response to the limit is drawn in any case.
                assert!(
                    outcome.tokens_generated <= budget.max(4),
                    "{spec}: {}",
                    outcome.tokens_generated
                );
                most = most.max(outcome.block_kl.expect("always there").num_choices);
            }
        }
        num_choices.push(most);
    }
    // The first choice with its continuation takes 3 + 3 tokens, each further one 2 more.
    assert_eq!(num_choices, [0, 0, 1, 2, 3, 4]);
    for prompt in 0..50 {
        let outcome = run("cd-block:k=3,m=1,budget=1", prompt);
        let plain = run("sample", prompt).candidates.remove(0);
        assert_eq!((outcome.candidates, outcome.values), (vec![plain], Vec::new()));
    }
}

#[test]
fn blocks_end_at_stop_strings_limits_and_line_ends() {
    // `b` is the stop string; what ends early competes with its value as any other.
    let stop = StopRules {
        stop_strings: vec!["b".to_owned()],
        max_new_tokens: 3,
        ..inputs(0).stop
    };
    let mut seen = Vec::new();
    for prompt in 0..200 {
        let inputs = DecoderInputs {
            stop: stop.clone(),
            trace: true,
            ..inputs(prompt)
        };
        let outcome = run_with(&TableLm::tiny(), "cd-block:k=3,m=2", inputs).expect("it runs");
        let candidate = &outcome.candidates[outcome.chosen];
        assert_eq!(
            candidate.finish == FinishReason::StopString,
            candidate.token_ids.ends_with(&[TokenId(2)])
        );
        assert!(candidate.token_ids.len() <= 3 && !candidate.text.contains('b'));
        seen.push(candidate.finish);
        for step in &outcome.trace {
            let TraceStep::Block { candidates, .. } = step else {
                panic!("blocks only")
            };
            let best = candidates
                .iter()
                .map(|block| block.mixed_value)
                .fold(f64::NEG_INFINITY, f64::max);
            let kept: Vec<&TracedBlock> = candidates.iter().filter(|block| block.is_kept).collect();
            assert_eq!((kept.len(), kept[0].mixed_value), (1, best));
        }
    }
    for reason in [
        FinishReason::StopString,
        FinishReason::StopToken,
        FinishReason::Length,
    ] {
        assert!(seen.contains(&reason), "{reason:?}");
    }
}

/// Token 1 is a line end, token 2 the end of a sentence.
struct Marks;

impl trimtab_base::TokenBytes for Marks {
    fn bytes_of(&self, token: TokenId) -> &[u8] {
        [&b""[..], b"\n", b"."]
            .get(token.index())
            .copied()
            .unwrap_or_default()
    }
}

#[test]
fn blocks_end_where_lines_or_sentences_end_if_asked() {
    let block_lens = |spec: &str| {
        let mut lens = Vec::new();
        for prompt in 0..60 {
            let inputs = DecoderInputs {
                trace: true,
                token_bytes: Arc::new(Marks),
                ..inputs(prompt)
            };
            for step in run_with(&TableLm::tiny(), spec, inputs).expect("it runs").trace {
                let TraceStep::Block { candidates, .. } = step else {
                    panic!("blocks only")
                };
                lens.extend(candidates.into_iter().map(|block| block.token_ids));
            }
        }
        lens
    };
    let ended_by = |blocks: &[Tokens], token: u32| {
        let inner = |block: &Tokens| block[..block.len() - 1].contains(&TokenId(token));
        !blocks.iter().any(inner) && blocks.iter().any(|block| block.ends_with(&[TokenId(token)]))
    };
    let (tokens, lines, sentences) = (
        block_lens("cd-block:k=2,m=whole"),
        block_lens("cd-block:k=2,m=whole,end=newline"),
        block_lens("cd-block:k=2,m=whole,end=sentence"),
    );
    assert!(!ended_by(&tokens, 1) && !ended_by(&tokens, 2));
    assert!(ended_by(&lines, 1) && !ended_by(&lines, 2));
    assert!(ended_by(&sentences, 1) && ended_by(&sentences, 2));
}

#[test]
fn a_floor_is_held_by_every_kept_block_where_one_can_hold_it() {
    let floor = Floor {
        term: 0,
        at_least: 1.0,
    };
    let steering = Arc::new(Steering {
        floor: Some(floor),
        // Length is sought and `a`s are not, but for the floor.
        ..steering(&[0.0, 1.0], |scorer| ValueSource::Row { scorer })
    });
    let (mut num_moved, mut num_short) = (0, 0);
    for prompt in 0..200 {
        let inputs = DecoderInputs {
            steering: Arc::clone(&steering),
            trace: true,
            ..inputs(prompt)
        };
        let outcome = run_with(&TableLm::tiny(), "cd-block:k=4,m=1", inputs).expect("it runs");
        for step in &outcome.trace {
            let TraceStep::Block { candidates, .. } = step else {
                panic!("blocks only")
            };
            let kept = candidates
                .iter()
                .find(|block| block.is_kept)
                .expect("one is kept");
            let most = candidates
                .iter()
                .map(|block| block.values[0])
                .fold(f64::NEG_INFINITY, f64::max);
            let longest = candidates
                .iter()
                .map(|block| block.values[1])
                .fold(f64::NEG_INFINITY, f64::max);
            if most < 1.0 {
                assert_eq!(kept.values[0], most);
                num_short += 1;
            } else {
                assert!(kept.values[0] >= 1.0);
                num_moved += usize::from(kept.values[1] < longest);
            }
            // It has the greatest value with what the floor added.
            assert!(
                candidates
                    .iter()
                    .all(|block| block.mixed_value <= kept.mixed_value + 1e-9)
            );
        }
        let block_kl = outcome.block_kl.expect("there");
        assert!((block_kl.bound_nats - block_kl.num_choices as f64 * 4.0_f64.ln()).abs() < 1e-12);
    }
    assert!(num_moved > 20 && num_short > 20, "{num_moved} {num_short}");
}

#[test]
fn settings_that_exclude_each_other_are_refused() {
    let with_floor = || DecoderInputs {
        steering: Arc::new(Steering {
            floor: Some(Floor {
                term: 0,
                at_least: 1.0,
            }),
            ..steering(&[1.0], |scorer| ValueSource::Row { scorer })
        }),
        ..inputs(0)
    };
    let check = |spec: &str, expect: &str| {
        let spec: DecodeSpec = spec.parse().expect("valid");
        let error = spec
            .build(with_floor())
            .map(|_| ())
            .expect_err("must be refused")
            .to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
    };
    check(
        "cd-block:k=2,m=2,choose=proportional",
        "floor: expected none with choose=proportional",
    );
    check(
        "cd-block:k=2,m=2,audit=2",
        "cd-block audit: expected 0 with a floor",
    );
}

#[test]
fn values_that_cannot_be_compared_end_the_run() {
    struct Bad(f32, f64);
    impl Scorers for Bad {
        fn state_values(&mut self, _tokens: &[TokenId]) -> Vec<f32> {
            vec![self.0]
        }
        fn action_values(&mut self, _tokens: &[TokenId]) -> Vec<Vec<f32>> {
            Vec::new()
        }
        fn asked_values(&mut self, _prefix: &Prefix) -> Vec<f64> {
            vec![self.1]
        }
    }
    let check = |source: ValueSource, bad: (f32, f64), expect: &str| {
        let inputs = DecoderInputs {
            steering: Arc::new(steering(&[1.0], |_| source)),
            ..inputs(0)
        };
        let error = run_steered(
            &TableLm::tiny(),
            "cd-block:k=2,m=1",
            inputs,
            &mut Bad(bad.0, bad.1),
        );
        let error = error.expect_err("must be refused").to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
    };
    let row = |scorer| ValueSource::Row { scorer };
    check(
        row(0),
        (f32::NAN, 0.0),
        "scorer scorer 0: expected a finite number as value of 1 tokens, got NaN",
    );
    check(row(0), (f32::NEG_INFINITY, 0.0), "got -inf");
    check(
        row(1),
        (0.0, 0.0),
        "scorer 1: expected its state values with the row, got those of 1 scorers",
    );
    check(ValueSource::Asked, (0.0, f64::INFINITY), "got inf");
}

#[test]
fn answers_that_do_not_fit_are_refused_and_change_nothing() {
    let stop = StopRules {
        max_new_tokens: 1,
        ..inputs(0).stop
    };
    let asked = DecoderInputs {
        steering: Arc::new(steering(&[1.0], |_| ValueSource::Asked)),
        stop,
        ..inputs(0)
    };
    let spec: DecodeSpec = "cd-block:k=2,m=1".parse().expect("valid");
    let decoder = RefCell::new(spec.build(asked).expect("valid"));
    let refused = |answer: Answer, expect: &str| {
        let before = format!("{:?}", decoder.borrow().next_need());
        let error = decoder
            .borrow_mut()
            .feed(answer)
            .expect_err("must be refused")
            .to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
        assert_eq!(format!("{:?}", decoder.borrow().next_need()), before);
    };
    refused(Answer::Rows(Vec::new()), "expected 2 rows, got 0");
    refused(
        Answer::Values(Vec::new()),
        "expected an answer with rows, got one with values",
    );
    let values = || RowAnswer::Values(vec![0.0]);
    refused(
        Answer::Rows(vec![values(), values()]),
        "with sampled tokens, got one with state values",
    );
    let Need::Rows(rows) = decoder.borrow().next_need() else {
        panic!("draws first")
    };
    let answers = rows
        .iter()
        .map(|row| row.op.apply(&[0.0, 1.0]).expect("usable"))
        .collect();
    decoder.borrow_mut().feed(Answer::Rows(answers)).expect("it fits");
    refused(
        Answer::Rows(Vec::new()),
        "expected an answer with values, got one with rows",
    );
    refused(
        Answer::Values(vec![vec![1.0]]),
        "expected 2 prefixes' values, got 1",
    );
    refused(
        Answer::Values(vec![vec![1.0], vec![]]),
        "expected 1 values of a prefix, got 0",
    );
    refused(Answer::Values(vec![vec![1.0], vec![f64::NAN]]), "got NaN");
    decoder
        .borrow_mut()
        .feed(Answer::Values(vec![vec![1.0], vec![2.0]]))
        .expect("it fits");
    assert_eq!(
        decoder.borrow().outcome().map(|outcome| outcome.values.clone()),
        Some(vec![2.0])
    );
    assert!(decoder.borrow_mut().feed(Answer::Rows(Vec::new())).is_err());
}
