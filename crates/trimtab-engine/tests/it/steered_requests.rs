//! What controlled decoding costs and says while it runs: rows, blocks, committed tokens, asked values, refusals.

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_decode::Outcome;
use trimtab_engine::{Engine, EngineConfig, EngineError, Event, RequestId};
use trimtab_kernels::gemm::Precision;
use trimtab_kernels::pool::Pool;
use trimtab_scorer::{HeadSizes, ScorerSet, ScorerWeights};

use crate::equivalence::assert_same;
use crate::steered_fixture::{Exact, PROMPT, steered_request, steering};
use crate::table_backend::{BLOCK_LEN, NUM_PLACES, request, run_to_end};

fn no_cache() -> EngineConfig {
    EngineConfig {
        prefix_cache: false,
        ..EngineConfig::standard()
    }
}

#[test]
fn a_block_of_m_tokens_from_k_candidates_costs_k_times_m_rows() {
    let exact = Exact::new();
    for (spec, seed) in (0..20).flat_map(|seed| [("cd-block:k=4,m=2", seed), ("cd-block:k=3,m=1", seed)]) {
        let mut engine = exact.engine(200, 2, no_cache());
        let steering = steering(&[1.0, -0.5], None);
        engine
            .submit(steered_request(spec, &PROMPT, seed, &steering))
            .expect("fits");
        let (outcome, usage) = run_to_end(&mut engine).remove(0).1.expect("no request fails");
        // One row a drawn token: the row after a block's last token gives its value, the winner's also the next draws.
        let expected = PROMPT.len() as u64 + outcome.tokens_generated;
        assert_eq!(usage.rows_run, expected, "{spec}, seed {seed}");
        // Best-of-K of the same number of tokens saves the last row of each candidate and no other.
        let mut engine = exact.engine(200, 2, no_cache());
        engine.submit(request("bon:4", &PROMPT, seed)).expect("fits");
        let (outcome, usage) = run_to_end(&mut engine).remove(0).1.expect("no request fails");
        assert_eq!(usage.rows_run, PROMPT.len() as u64 + outcome.tokens_generated - 4);
    }
}

/// Runs a request alone and looks at every step: what it committed, and the blocks held after it.
fn steps(engine: &mut Engine, mut on_step: impl FnMut(Vec<TokenId>, usize)) -> Outcome {
    loop {
        let mut committed = Vec::new();
        let mut finished = None;
        for event in engine.step().expect("runs") {
            match event {
                Event::Committed { token_ids, .. } => committed.extend(token_ids),
                Event::Finished { outcome, .. } => finished = Some(outcome),
                other => panic!("{other:?}"),
            }
        }
        on_step(committed, engine.stats().blocks_held);
        if let Some(outcome) = finished {
            return outcome;
        }
    }
}

#[test]
fn losers_free_their_blocks_in_the_step_that_chooses_and_the_winner_is_told_at_once() {
    let exact = Exact::new();
    let mut num_early = 0;
    for seed in 0..20 {
        let mut engine = exact.engine(200, 1, no_cache());
        let steering = steering(&[1.0], None);
        engine
            .submit(steered_request("cd-block:k=5,m=2", &PROMPT, seed, &steering))
            .expect("fits");
        let mut told = Vec::new();
        let mut is_past = false;
        let outcome = steps(&mut engine, |committed, blocks_held| {
            if !committed.is_empty() {
                told.extend(committed);
                is_past = told.last() == Some(&TokenId(0));
                num_early += usize::from(!is_past);
                // The next candidates have drawn a token, which has not been run: all share the winner's blocks.
                let winners = (PROMPT.len() + told.len()).div_ceil(BLOCK_LEN);
                assert_eq!(blocks_held, if is_past { 0 } else { winners }, "seed {seed}");
            }
        });
        assert!(is_past, "the last commitment is the end");
        assert_eq!(told, outcome.candidates[outcome.chosen].token_ids);
    }
    assert!(num_early > 10, "most responses are told in parts");
}

#[test]
fn tokenwise_control_tells_each_token_in_the_step_that_draws_it() {
    let mut engine = Exact::new().engine(60, 1, no_cache());
    let steering = steering(&[1.0], None);
    engine
        .submit(steered_request("cd-token:weight=2", &PROMPT, 3, &steering))
        .expect("fits");
    let mut told = Vec::new();
    let outcome = steps(&mut engine, |committed, _| {
        assert_eq!(committed.len(), 1);
        told.extend(committed);
    });
    assert_eq!(told, outcome.candidates[0].token_ids);
    assert!(engine.stats().scorer_time > std::time::Duration::ZERO);
}

/// Runs to the end; values that are asked for are answered by `answer`.
fn run_asked(
    engine: &mut Engine,
    mut answer: impl FnMut(&mut Engine, RequestId, Vec<trimtab_decode::Prefix>),
) -> Vec<Result<Outcome, EngineError>> {
    let mut ended = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().expect("runs") {
            match event {
                Event::ValuesWanted { request, prefixes } => answer(engine, request, prefixes),
                Event::Finished { outcome, .. } => ended.push(Ok(outcome)),
                Event::Failed { error, .. } => ended.push(Err(error)),
                Event::RewardsWanted { .. } => panic!("the choice is by values"),
                Event::Committed { .. } => {}
            }
        }
    }
    ended
}

#[test]
fn values_of_the_callers_scorers_steer_like_those_of_the_engines() {
    let exact = Exact::new();
    for (weights, spec) in [
        (&[1.0][..], "cd-block:k=3,m=2"),
        (&[1.0, 0.25], "cd-block:k=2,m=1"),
    ] {
        for seed in 0..10 {
            let steering = steering(weights, Some(0));
            let mut engine = exact.engine(100, 2, no_cache());
            engine
                .submit(steered_request(spec, &PROMPT, seed, &steering))
                .expect("fits");
            let mut num_asked = 0;
            let ended = run_asked(&mut engine, |engine, id, prefixes| {
                num_asked += 1;
                let rewards = engine
                    .answer_rewards(id, vec![0.0])
                    .expect_err("values are wanted")
                    .to_string();
                assert!(rewards.contains("not waiting for rewards"), "{rewards}");
                let values = prefixes.iter().map(|prefix| exact.asked(prefix)).collect();
                engine.answer_values(id, values).expect("numbers");
                let again = engine
                    .answer_values(id, Vec::new())
                    .expect_err("answered")
                    .to_string();
                assert!(again.contains("not waiting for values"), "{again}");
            });
            assert!(num_asked > 0);
            let expected = exact.expected(spec, &PROMPT, seed, &steering);
            assert_same(ended[0].as_ref().expect("no request fails"), &expected, spec);
        }
    }
}

#[test]
fn values_that_are_no_numbers_or_too_few_fail_their_request_alone() {
    let exact = Exact::new();
    let check = |values: &dyn Fn(usize) -> Vec<Vec<f64>>, expect: &str| {
        let mut engine = exact.engine(100, 2, no_cache());
        let asked = steering(&[1.0], Some(0));
        engine
            .submit(steered_request("cd-block:k=3,m=2", &PROMPT, 1, &asked))
            .expect("fits");
        engine
            .submit(steered_request("sample", &PROMPT, 1, &Arc::default()))
            .expect("fits");
        let mut message = String::new();
        let ended = run_asked(&mut engine, |engine, id, prefixes| {
            let error = engine
                .answer_values(id, values(prefixes.len()))
                .expect_err("refused");
            message = error.to_string();
        });
        assert!(message.contains(expect), "{message}");
        assert!(matches!(ended[..], [Ok(_)]), "the other request goes on");
        assert_eq!(engine.stats().blocks_held, 0);
    };
    check(&|num| vec![vec![f64::NAN]; num], "NaN");
    check(&|num| vec![vec![1.0]; num - 1], "expected 3");
    check(&|num| vec![vec![1.0, 2.0]; num], "expected 1");
}

/// The error of a request on an engine that knows `set`.
fn failure(set: Option<ScorerSet>, spec: &str) -> String {
    let (backend, _) = crate::table_backend::TableBackend::one_hot(100, PROMPT.len(), 2);
    let mut engine = Engine::new(Box::new(backend), no_cache()).expect("limits are positive");
    if let Some(set) = set {
        engine.set_scorers(set.into()).expect("widths are the model's");
    }
    engine
        .submit(steered_request(spec, &PROMPT, 1, &steering(&[1.0], None)))
        .expect("fits");
    let mut ended = run_asked(&mut engine, |_, _, _| panic!("nothing is asked"));
    ended.remove(0).expect_err("refused").to_string()
}

fn random_scorer(hidden_len: usize, vocab_len: usize, features_len: usize, scale: f32) -> ScorerSet {
    let sizes = HeadSizes {
        hidden_len,
        vocab_len,
        trunk_len: 0,
        features_len,
    };
    let mut weights = ScorerWeights::random(1, sizes);
    weights.scale = scale;
    ScorerSet::new(&Pool::new(1), Precision::F32, vec![weights]).expect("one scorer fits itself")
}

#[test]
fn scorers_that_are_missing_or_say_too_little_are_named_with_the_remedy() {
    for spec in ["cd-token:weight=1", "cd-block:k=2,m=2"] {
        let message = failure(None, spec);
        assert!(
            message.contains("scorer 0") && message.contains("load the scorer"),
            "{spec}: {message}"
        );
    }
    let stateful = random_scorer(NUM_PLACES, 4, 0, 1.0);
    let message = failure(Some(stateful), "cd-token:weight=1");
    assert!(message.contains("action head"), "{message}");
    let message = failure(
        Some(random_scorer(NUM_PLACES, 4, 3, 1e6)),
        "cd-token:weight=1e308",
    );
    assert!(message.contains("weight nearer to 0"), "{message}");
}

#[test]
fn scorers_of_another_model_are_refused() {
    let mut engine = Exact::new().engine(60, 1, no_cache());
    let check = |engine: &mut Engine, set: ScorerSet, expect: &str| {
        let message = engine.set_scorers(set.into()).expect_err("refused").to_string();
        assert!(
            message.contains(expect) && message.contains("train scorers for this model"),
            "{message}"
        );
    };
    check(&mut engine, random_scorer(7, 4, 3, 1.0), "hidden states of 7");
    check(
        &mut engine,
        random_scorer(NUM_PLACES, 9, 3, 1.0),
        "vocabulary of 9",
    );
}
