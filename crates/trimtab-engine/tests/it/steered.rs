//! Controlled decoding on the engine against the slow driver, and against its law.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use trimtab_base::TokenId;
use trimtab_base::testing::chi_square;
use trimtab_decode::{Floor, Outcome, Steering};
use trimtab_engine::EngineConfig;

use crate::equivalence::assert_same;
use crate::steered_fixture::{Exact, PROMPT, model, rewards, steered_request, steering};
use crate::table_backend::run_to_end;

/// Methods with what steers them. Truncation and floors take the slow path through the rows, the others the fast one.
fn methods() -> Vec<(&'static str, Arc<Steering>)> {
    let both = steering(&[1.0, -0.5], None);
    let floored = Arc::new(Steering {
        floor: Some(Floor {
            term: 1,
            at_least: -3.5,
        }),
        ..(*both).clone()
    });
    vec![
        ("cd-token:weight=2", steering(&[1.0], None)),
        ("cd-token:weight=0", Arc::clone(&both)),
        ("cd-token:weight=-1.5,t=0.7", Arc::clone(&both)),
        ("cd-token:weight=2,top_k=2", Arc::clone(&both)),
        ("cd-token:weight=1", floored),
        ("cd-block:k=4,m=2", steering(&[1.0], None)),
        ("cd-block:k=3,m=1", Arc::clone(&both)),
        ("cd-block:k=2,m=2,beams=2", Arc::clone(&both)),
        ("cd-block:k=3,m=whole", Arc::clone(&both)),
        ("cd-block:k=3,m=2,choose=proportional", Arc::clone(&both)),
        ("cd-block:k=3,m=2,audit=2", both),
        ("bon:4", Arc::default()),
    ]
}

fn run_alone(exact: &Exact, (spec, steering): &(&str, Arc<Steering>), prompt: &[u32], seed: u64) -> Outcome {
    let mut engine = exact.engine(300, 2, EngineConfig::standard());
    engine
        .submit(steered_request(spec, prompt, seed, steering))
        .expect("fits");
    let (outcome, _) = run_to_end(&mut engine).remove(0).1.expect("no request fails");
    outcome
}

#[test]
fn each_method_alone_gives_what_its_formula_gives() {
    let exact = Exact::new();
    for method in methods() {
        for seed in 0..12 {
            let (spec, steering) = &method;
            let expected = exact.expected(spec, &PROMPT, seed, steering);
            let got = run_alone(&exact, &method, &PROMPT, seed);
            assert_same(&got, &expected, &format!("{spec}, seed {seed}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn many_requests_in_any_batch_give_the_bits_that_each_gives_alone(
        picks in prop::collection::vec((0..12_usize, 1_u32..4, 0_u64..50), 1..6),
        max_batch_rows in 1_usize..30,
        num_threads in 1_usize..4,
        prefix_cache in any::<bool>(),
    ) {
        let (exact, methods) = (Exact::new(), methods());
        let config = EngineConfig { max_batch_rows, prefill_chunk: 4, prefix_cache };
        let mut engine = exact.engine(200, num_threads, config);
        let prompt_of = |last: u32| [1, 2, 3, 1, last];
        let mut submitted = Vec::new();
        for &(method, last, seed) in &picks {
            let (spec, steering) = &methods[method];
            submitted.push(engine.submit(steered_request(spec, &prompt_of(last), seed, steering)).expect("fits"));
        }
        let ended = run_to_end(&mut engine);
        prop_assert_eq!(ended.len(), picks.len());
        for (id, result) in &ended {
            let place = submitted.iter().position(|submitted| submitted == id).expect("known id");
            let (method, last, seed) = picks[place];
            let (outcome, _) = result.as_ref().expect("no request fails");
            let alone = run_alone(&exact, &methods[method], &prompt_of(last), seed);
            prop_assert_eq!(outcome, &alone, "{}", methods[method].0);
        }
    }
}

/// How often the first method of [`methods`] gives each response.
fn counts(exact: &Exact, spec: &str, num_runs: u64) -> BTreeMap<Vec<TokenId>, u64> {
    let steering = steering(&[1.0], None);
    let mut engine = exact.engine(4000, 2, EngineConfig::standard());
    for seed in 0..num_runs {
        let request = steered_request(spec, &PROMPT, seed, &steering);
        engine.submit(request).expect("fits");
    }
    let mut counts = BTreeMap::new();
    for (_, result) in run_to_end(&mut engine) {
        let (outcome, _) = result.expect("no request fails");
        *counts.entry(outcome.candidates[0].token_ids.clone()).or_default() += 1;
    }
    counts
}

#[test]
fn tokenwise_control_with_exact_values_draws_from_the_optimum() {
    // CD Eq. 3: p(z) e^{weight V*([x, y^t, z])} at every step.
    let (model, weight, num_runs) = (model(), 1.5, 4000);
    let reward = |tokens: &[TokenId]| rewards(tokens)[0];
    let law = |tokens: &[TokenId]| -> f64 {
        let step = |len: usize| {
            let tilted: Vec<f64> = model
                .log_probs(&tokens[..len])
                .iter()
                .zip(model.action_values(&tokens[..len], &reward))
                .map(|(log_prob, value)| (log_prob + weight * value).exp())
                .collect();
            tilted[tokens[len].index()] / tilted.iter().sum::<f64>()
        };
        (0..tokens.len()).map(step).product()
    };
    let sequences: Vec<Vec<TokenId>> = model.enumerate().into_iter().map(|(tokens, _)| tokens).collect();
    let probs: Vec<f64> = sequences.iter().map(|tokens| law(tokens)).collect();
    assert!((probs.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    let counts = counts(&Exact::new(), "cd-token:weight=1.5", num_runs);
    let counts: Vec<u64> = sequences
        .iter()
        .map(|tokens| counts.get(tokens).copied().unwrap_or(0))
        .collect();
    let (statistic, degrees) = chi_square(&counts, &probs);
    // Mean `degrees`, variance twice that: 5 standard deviations, a chance of less than 1e-5.
    let limit = degrees as f64 + 5.0 * (2.0 * degrees as f64).sqrt();
    assert!(statistic < limit, "{statistic} with {degrees} degrees of freedom");
    let untilted: Vec<f64> = model
        .enumerate()
        .into_iter()
        .map(|(_, log_prob)| log_prob.exp())
        .collect();
    assert!(
        chi_square(&counts, &untilted).0 > 2.0 * limit,
        "the test sees a missing tilt"
    );
}
