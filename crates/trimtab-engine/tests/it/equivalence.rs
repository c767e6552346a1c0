//! The engine against the slow driver of `trimtab-decode`: same decoder, same coins, same outcome.

use proptest::prelude::*;
use trimtab_base::TokenId;
use trimtab_base::testing::TableLm;
use trimtab_decode::testing::drive;
use trimtab_decode::{Candidate, Outcome};
use trimtab_engine::{EngineConfig, Prompt, Request, Span};

use crate::table_backend::{decoder, engine, request, reward, run_to_end, tokens};

const SPECS: [&str; 7] = [
    "sample",
    "greedy",
    "bon:4",
    "won:3,t=0.7",
    "majority:n=5,answer=text",
    "beam:3",
    "bon:16",
];

/// What the formulas say: every row computed from the branch's tokens alone.
fn expected(spec: &str, prompt: &[u32], seed: u64) -> Outcome {
    let shift: u64 = prompt.iter().map(|&id| u64::from(id)).sum();
    let model = TableLm {
        vocab: 4,
        max_len: 6,
        salt: 3 + shift,
    };
    let mut decoder = decoder(spec, prompt, seed);
    let mut score = |candidate: &Candidate| reward(&candidate.text);
    drive(decoder.as_mut(), &mut |tokens| model.logits(tokens), &mut score)
        .expect("the slow driver runs to its end")
}

/// Equal up to the rounding of the vectorised row operations; tokens and choices exactly.
pub(crate) fn assert_same(got: &Outcome, expected: &Outcome, what: &str) {
    assert_eq!(
        (got.chosen, got.tokens_generated),
        (expected.chosen, expected.tokens_generated),
        "{what}"
    );
    assert_eq!(got.candidates.len(), expected.candidates.len(), "{what}");
    assert_eq!(
        (got.tokens_to_first_commit, got.values.len()),
        (expected.tokens_to_first_commit, expected.values.len()),
        "{what}"
    );
    for (got, expected) in got.values.iter().zip(&expected.values) {
        assert!(
            (got - expected).abs() < 1e-5,
            "{what}: value {got} and {expected}"
        );
    }
    for (got, expected) in got.candidates.iter().zip(&expected.candidates) {
        assert_eq!(got.token_ids, expected.token_ids, "{what}");
        assert_eq!(
            (&got.text, got.finish, got.reward),
            (&expected.text, expected.finish, expected.reward),
            "{what}"
        );
        let near = |a: f64, b: f64| (a - b).abs() < 1e-5;
        assert!(
            near(got.log_prob, expected.log_prob),
            "{what}: {} and {}",
            got.log_prob,
            expected.log_prob
        );
        assert!(
            near(got.reference_log_prob, expected.reference_log_prob),
            "{what}"
        );
        assert!(
            near(got.kl_nats, expected.kl_nats),
            "{what}: {} and {}",
            got.kl_nats,
            expected.kl_nats
        );
    }
}

#[test]
fn each_method_alone_gives_what_its_formula_gives() {
    for spec in SPECS {
        for seed in 0..20 {
            let prompt = [1, 2, 3, 1, 2];
            let (mut engine, _) = engine(200, prompt.len(), EngineConfig::standard());
            engine.submit(request(spec, &prompt, seed)).expect("fits");
            let ended = run_to_end(&mut engine);
            let (outcome, _) = ended[0].1.as_ref().expect("no request fails");
            assert_same(
                outcome,
                &expected(spec, &prompt, seed),
                &format!("{spec}, seed {seed}"),
            );
            let cached = prompt.len() / crate::table_backend::BLOCK_LEN;
            assert_eq!(
                engine.stats().blocks_held,
                cached,
                "{spec}: only whole blocks of the prompt are kept"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn many_requests_in_any_batch_give_what_each_gives_alone(
        picks in prop::collection::vec((0..SPECS.len(), prop::collection::vec(1_u32..4, 4), 0_u64..50), 1..8),
        max_batch_rows in 1_usize..30,
        prefill_chunk in 1_usize..8,
        prefix_cache in any::<bool>(),
        num_blocks in 60_usize..200,
    ) {
        let config = EngineConfig { max_batch_rows, prefill_chunk, prefix_cache };
        let (mut engine, counts) = engine(num_blocks, 4, config);
        let mut submitted = Vec::new();
        for (spec, prompt, seed) in &picks {
            submitted.push(engine.submit(request(SPECS[*spec], prompt, *seed)).expect("fits"));
        }
        let ended = run_to_end(&mut engine);
        prop_assert_eq!(ended.len(), picks.len());
        for (id, result) in &ended {
            let place = submitted.iter().position(|submitted| submitted == id).expect("known id");
            let (spec, prompt, seed) = &picks[place];
            let (outcome, usage) = result.as_ref().expect("no request fails");
            assert_same(outcome, &expected(SPECS[*spec], prompt, *seed), SPECS[*spec]);
            prop_assert_eq!(usage.prompt_positions, 4);
        }
        prop_assert!(counts.lock().expect("not poisoned").largest_batch <= max_batch_rows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Prompts that begin alike in a store hardly larger than one request: blocks are shared, cached and evicted all
    /// the time, and every admitted request still finds the blocks that are set aside for it.
    #[test]
    fn a_small_store_changes_nothing(
        picks in prop::collection::vec((0..6_usize, prop::collection::vec(1_u32..3, 9), 0_u64..50), 1..16),
        max_batch_rows in 1_usize..12,
        num_blocks in 18_usize..28,
    ) {
        let config = EngineConfig { max_batch_rows, ..EngineConfig::standard() };
        let (mut engine, _) = engine(num_blocks, 9, config);
        let mut submitted = Vec::new();
        for (spec, prompt, seed) in &picks {
            submitted.push(engine.submit(request(SPECS[*spec], prompt, *seed)).expect("fits"));
        }
        let ended = run_to_end(&mut engine);
        prop_assert_eq!(ended.len(), picks.len());
        for (id, result) in &ended {
            let place = submitted.iter().position(|submitted| submitted == id).expect("known id");
            let (spec, prompt, seed) = &picks[place];
            let (outcome, _) = result.as_ref().expect("no request fails");
            assert_same(outcome, &expected(SPECS[*spec], prompt, *seed), SPECS[*spec]);
        }
        prop_assert!(engine.stats().blocks_held <= num_blocks / 2);
    }
}

#[test]
fn a_prompt_is_run_once_for_all_candidates() {
    let prompt = [1, 2, 3, 1, 2, 3, 1, 2];
    let (mut engine, counts) = engine(200, prompt.len(), EngineConfig::standard());
    engine.submit(request("bon:16", &prompt, 1)).expect("fits");
    let ended = run_to_end(&mut engine);
    let (outcome, usage) = ended[0].1.as_ref().expect("no request fails");
    // Each candidate's last token is not run: nobody asks what would follow it.
    let expected = prompt.len() as u64 + outcome.tokens_generated - 16;
    let counts = *counts.lock().expect("not poisoned");
    assert_eq!((usage.rows_run, counts.rows as u64), (expected, expected));
    // 8 positions end inside the third block: each candidate that grows, but the last to leave it, copies it.
    let growing = outcome
        .candidates
        .iter()
        .filter(|candidate| candidate.token_ids.len() > 1)
        .count();
    assert!(
        counts.blocks_copied <= growing && counts.blocks_copied + 1 >= growing,
        "{counts:?}, {growing} grow"
    );
}

#[test]
fn a_later_prompt_reuses_the_blocks_of_an_earlier_one() {
    // The blocks differ, so that one found in place of the other would show.
    let (mut engine, counts) = engine(200, 8, EngineConfig::standard());
    let run = |engine: &mut trimtab_engine::Engine, prompt: &[u32]| {
        engine.submit(request("greedy", prompt, 1)).expect("fits");
        let mut ended = run_to_end(engine);
        ended.remove(0).1.expect("no request fails")
    };
    let (first, usage) = run(&mut engine, &[1, 2, 3, 3, 1, 2, 1, 2]);
    assert_eq!(usage.cached_positions, 0);
    let rows_before = counts.lock().expect("not poisoned").rows;
    let (again, usage) = run(&mut engine, &[1, 2, 3, 3, 1, 2, 1, 2]);
    assert_eq!((again, usage.cached_positions), (first, 6));
    let rows_run = counts.lock().expect("not poisoned").rows - rows_before;
    assert_eq!(rows_run as u64, usage.rows_run);
    let (_, usage) = run(&mut engine, &[1, 2, 3, 2, 1, 2, 1, 2]);
    assert_eq!(usage.cached_positions, 3, "prompts part in the second block");
}

#[test]
fn embedding_spans_stand_where_they_are_put() {
    let run = |prompt: Prompt| {
        let (mut engine, _) = engine(200, 5, EngineConfig::standard());
        engine
            .submit(Request {
                prompt,
                decoder: decoder("bon:4", &[7], 3),
            })
            .expect("fits");
        run_to_end(&mut engine).remove(0).1.expect("no request fails").0
    };
    let by_token = run(Prompt::tokens(tokens(&[1, 2, 3, 2, 1])));
    let mixed = run(Prompt {
        spans: vec![
            Span::Tokens(tokens(&[1])),
            Span::Embeddings(vec![2.0, 3.0]),
            Span::Tokens(vec![TokenId(2), TokenId(1)]),
        ],
    });
    assert_eq!(by_token, mixed);
}
