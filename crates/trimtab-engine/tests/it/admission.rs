//! What is refused at the edge, and budgets that hold.

use trimtab_engine::{EngineConfig, EngineError, Prompt, Request, Span};

use crate::table_backend::{decoder, engine, request, run_to_end, tokens};

#[test]
fn impossible_requests_are_refused_with_both_numbers() {
    let (mut engine, _) = engine(30, 4, EngineConfig::standard());
    let mut check = |request: Request, expect: &[&str]| {
        let message = engine.submit(request).expect_err("must be refused").to_string();
        for part in expect {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    let with = |prompt: Prompt| Request {
        prompt,
        decoder: decoder("sample", &[1], 1),
    };
    check(with(Prompt::default()), &["empty prompt"]);
    check(with(Prompt::tokens(Vec::new())), &["empty prompt"]);
    check(
        with(Prompt::tokens(tokens(&[1, 9]))),
        &["token id 9", "vocabulary of 4"],
    );
    check(
        with(Prompt::tokens(tokens(&[1; 36]))),
        &["36 positions", "6 new tokens", "context of 40"],
    );
    let ragged = Prompt {
        spans: vec![Span::Embeddings(Vec::new())],
    };
    check(with(ragged), &["empty prompt"]);
    // Each of 64 branches may need two blocks for its tokens and one for its copy of the prompt's last.
    check(
        request("bon:64", &[1, 2], 1),
        &["193 key/value blocks", "64 branches", "has 30"],
    );
    assert!(engine.is_idle(), "nothing refused is left behind");
}

#[test]
fn the_last_new_token_takes_no_position() {
    let prompt = [1; 35];
    let (mut engine, _) = engine(30, prompt.len(), EngineConfig::standard());
    for seed in 0..30 {
        engine.submit(request("sample", &prompt, seed)).expect("fits");
    }
    let ended = run_to_end(&mut engine);
    let longest = ended
        .iter()
        .map(|(_, result)| result.as_ref().expect("no request fails").0.tokens_generated)
        .max();
    assert_eq!(longest, Some(6), "a request uses all that it may");
}

#[test]
fn zero_limits_are_refused() {
    let config = EngineConfig {
        max_batch_rows: 0,
        ..EngineConfig::standard()
    };
    let (backend, _) = crate::table_backend::TableBackend::new(4, 1);
    let refused = trimtab_engine::Engine::new(Box::new(backend), config)
        .err()
        .expect("must be refused");
    assert!(matches!(
        refused,
        EngineError::ZeroLimit {
            field: "max_batch_rows"
        }
    ));
}

#[test]
fn requests_beyond_the_budget_wait_for_their_turn() {
    // Room for one best-of-4 at a time: 4 branches of 3 blocks and 2 for the prompt.
    let (mut engine, _) = engine(14, 4, EngineConfig::standard());
    for seed in 0..6 {
        engine
            .submit(request("bon:4", &[1, 2, 3, 1], seed))
            .expect("each alone fits");
    }
    let ended = run_to_end(&mut engine);
    assert_eq!(ended.len(), 6);
    assert!(ended.iter().all(|(_, result)| result.is_ok()));
}

#[test]
fn cached_prompts_make_room_for_running_requests() {
    let (mut engine, _) = engine(14, 6, EngineConfig::standard());
    for first in 1..4_u32 {
        for second in 1..4_u32 {
            let prompt = [first, second, 1, second, first, 2];
            engine
                .submit(request("bon:3", &prompt, 1))
                .expect("each alone fits");
            assert!(run_to_end(&mut engine)[0].1.is_ok(), "prompt {prompt:?}");
            assert!(
                engine.stats().blocks_held <= 7,
                "at most half the store is cached"
            );
        }
    }
    assert_eq!(engine.stats().blocks_held, 7);
}
