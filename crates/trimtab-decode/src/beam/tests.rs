use trimtab_base::TokenId;
use trimtab_base::testing::TableLm;

use super::*;
use crate::laws::{inputs, run_on};
use crate::need::FinishReason;
use crate::spec::DecodeSpec;
use crate::stop::StopRules;
use crate::testing::drive;

/// Sixty small models, with up to 341 sequences. Longer ones matter: where the end is soon forced, log-probabilities
/// hardly fall after the first steps and some wrong pruning goes unseen.
fn models() -> impl Iterator<Item = TableLm> {
    (0..60).map(|salt| TableLm {
        vocab: 3 + salt as usize % 3,
        max_len: [6, 5, 4][salt as usize % 3] - salt as usize % 2,
        salt,
    })
}

fn ids(outcome: &Outcome) -> Vec<Vec<TokenId>> {
    outcome
        .candidates
        .iter()
        .map(|candidate| candidate.token_ids.clone())
        .collect()
}

fn search(model: &TableLm, width: usize, length_power: f64) -> Outcome {
    run_on(
        model,
        &format!("beam:width={width},length_power={length_power}"),
        0,
    )
    .expect("runs")
}

#[test]
fn a_wide_beam_is_exhaustive() {
    for (model, length_power) in
        models().flat_map(|model| [0.0, 0.7, 1.0].map(|power| (model.clone(), power)))
    {
        let mut sequences = model.enumerate();
        let score =
            |(tokens, log_prob): &(Vec<TokenId>, f64)| log_prob / (tokens.len() as f64).powf(length_power);
        sequences.sort_by(|a, b| score(b).total_cmp(&score(a)));
        let outcome = search(&model, sequences.len(), length_power);
        assert_eq!(outcome.chosen, 0);
        let expected: Vec<Vec<TokenId>> = sequences.iter().map(|(tokens, _)| tokens.clone()).collect();
        assert_eq!(ids(&outcome), expected, "{model:?}, power {length_power}");
        for (candidate, (_, log_prob)) in outcome.candidates.iter().zip(&sequences) {
            assert!((candidate.reference_log_prob - log_prob).abs() < 1e-5);
            assert_eq!(
                (candidate.log_prob, candidate.kl_nats),
                (0.0, -candidate.reference_log_prob)
            );
        }
    }
}

#[test]
fn a_beam_of_one_is_greedy() {
    for model in models() {
        let greedy = run_on(&model, "greedy", 0).expect("runs");
        let beam = search(&model, 1, 0.0);
        assert_eq!(ids(&beam), ids(&greedy), "{model:?}");
        assert_eq!(beam.tokens_generated, greedy.tokens_generated);
        let (beam, greedy) = (&beam.candidates[0], &greedy.candidates[0]);
        assert!((beam.kl_nats - greedy.kl_nats).abs() < 1e-12);
    }
}

/// Beam search as its definition reads: all extensions of all beams, no early end.
fn naive_search(model: &TableLm, width: usize, length_power: f64) -> Vec<Vec<TokenId>> {
    let mut beams: Vec<(Vec<TokenId>, f64)> = vec![(Vec::new(), 0.0)];
    let mut pool: Vec<(Vec<TokenId>, f64)> = Vec::new();
    while !beams.is_empty() {
        let mut extensions: Vec<(Vec<TokenId>, f64)> = Vec::new();
        for (prefix, log_prob) in &beams {
            for (token, step) in model
                .log_probs(prefix)
                .iter()
                .enumerate()
                .filter(|(_, step)| step.is_finite())
            {
                let extended = prefix.iter().copied().chain([TokenId(token as u32)]).collect();
                extensions.push((extended, log_prob + step));
            }
        }
        extensions.sort_by(|a, b| b.1.total_cmp(&a.1));
        let has_ended = |tokens: &[TokenId]| tokens.last() == Some(&TableLm::EOS);
        pool.extend(
            extensions
                .iter()
                .take(width)
                .filter(|(tokens, _)| has_ended(tokens))
                .cloned(),
        );
        beams = extensions
            .into_iter()
            .filter(|(tokens, _)| !has_ended(tokens))
            .take(width)
            .collect();
    }
    let score =
        |(tokens, log_prob): &(Vec<TokenId>, f64)| log_prob / (tokens.len() as f64).powf(length_power);
    pool.sort_by(|a, b| score(b).total_cmp(&score(a)));
    pool.into_iter().take(width).map(|(tokens, _)| tokens).collect()
}

#[test]
fn narrow_beams_find_what_the_definition_finds() {
    let mut num_differing_from_greedy = 0;
    for model in models() {
        for (width, length_power) in [(1, 0.5), (2, 0.0), (2, 1.0), (3, 0.0), (3, 0.6), (5, 0.3)] {
            let found = ids(&search(&model, width, length_power));
            assert_eq!(
                found,
                naive_search(&model, width, length_power),
                "{model:?}, {width}, {length_power}"
            );
        }
        num_differing_from_greedy +=
            usize::from(ids(&search(&model, 3, 0.0))[0] != ids(&search(&model, 1, 0.0))[0]);
    }
    // Were the beam never better than greedy, the comparison would guard nothing.
    assert!(num_differing_from_greedy >= 5, "{num_differing_from_greedy}");
}

#[test]
fn the_best_are_kept_in_little_room_and_earlier_ones_win_ties() {
    let mut best = Best::new(7);
    let mut offered: Vec<(f64, usize)> = Vec::new();
    for row_rank in 0..1000 {
        // Few values, so that many tie.
        let log_prob = -f64::from((row_rank as u32).wrapping_mul(2_654_435_761) >> 26);
        offered.push((log_prob, row_rank));
        best.offer(Extension {
            parent_idx: 0,
            row_rank,
            token: TokenId(0),
            step_log_prob: log_prob,
            log_prob,
        });
        assert!(best.kept.len() < 14, "{row_rank}");
    }
    offered.sort_by(|a, b| b.0.total_cmp(&a.0));
    let kept: Vec<(f64, usize)> = best
        .into_sorted()
        .iter()
        .map(|extension| (extension.log_prob, extension.row_rank))
        .collect();
    assert_eq!(kept, offered[..7]);
}

#[test]
fn an_early_end_saves_rows() {
    // The end is all but certain at once, so nothing else can still win.
    let mut num_rows = 0;
    let mut logits = |_: &[TokenId]| {
        num_rows += 1;
        vec![9.0, 0.0, 0.0]
    };
    let mut decoder = "beam:1"
        .parse::<DecodeSpec>()
        .and_then(|spec| spec.build(inputs(0)))
        .expect("valid");
    let outcome = drive(decoder.as_mut(), &mut logits, &mut |_| 0.0).expect("runs");
    assert_eq!((ids(&outcome), num_rows), (vec![vec![TableLm::EOS]], 1));
}

#[test]
fn length_and_stop_strings_end_beams_too() {
    let model = TableLm {
        vocab: 3,
        max_len: 9,
        salt: 5,
    };
    let run = |stop: StopRules| {
        let decoder = "beam:3"
            .parse::<DecodeSpec>()
            .and_then(|spec| spec.build(DecoderInputs { stop, ..inputs(0) }));
        drive(
            decoder.expect("valid").as_mut(),
            &mut |prefix| model.logits(prefix),
            &mut |_| 0.0,
        )
        .expect("runs")
    };
    let short = run(StopRules {
        stop_tokens: Vec::new(),
        stop_strings: Vec::new(),
        max_new_tokens: 2,
    });
    assert_eq!(short.candidates.len(), 3);
    assert!(
        short
            .candidates
            .iter()
            .all(|c| c.finish == FinishReason::Length && c.token_ids.len() == 2)
    );

    let stopped = run(StopRules {
        stop_strings: vec!["ab".to_owned(), "b".to_owned()],
        ..inputs(0).stop
    });
    assert!(
        stopped
            .candidates
            .iter()
            .any(|candidate| candidate.finish == FinishReason::StopString)
    );
    assert!(
        stopped
            .candidates
            .iter()
            .all(|candidate| !candidate.text.contains('b'))
    );
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let mut decoder = Beam::try_new(
        BeamConfig {
            width: 2,
            length_power: 0.0,
        },
        Scoring::WhenChoosing,
        inputs(0),
    )
    .expect("valid");
    let mut error = |answer| decoder.feed(answer).expect_err("must be refused").to_string();
    assert!(error(Answer::Rewards(vec![1.0])).contains("expected an answer with rows"));
    assert!(error(Answer::Rows(Vec::new())).contains("expected 1 rows, got 0"));
    let sampled = SampledToken {
        token: TokenId(0),
        log_prob: 0.0,
        reference_log_prob: 0.0,
        kl_nats: 0.0,
    };
    assert!(error(Answer::Rows(vec![RowAnswer::Sampled(sampled)])).contains("top log-probabilities"));
}
