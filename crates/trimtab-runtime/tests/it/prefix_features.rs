//! States of given responses: the bits that an engine sees while it draws them, and means that a slow loop finds too.

use std::sync::{Arc, Mutex};

use trimtab_base::TokenId;
use trimtab_decode::BranchId;
use trimtab_engine::engine::RowObserver;
use trimtab_engine::{EngineConfig, RequestId};
use trimtab_runtime::testing::CONTEXT_LEN;
use trimtab_runtime::{
    FeatureItem, LoadedModel, PrefixStates, ReaderLimits, RunEvent, RunLimits, RuntimeError, prefix_features,
    run_jobs, token_features,
};

use crate::jobs::jobs;
use crate::tiny_model;

/// Hidden states and logits in order of the steps.
type SeenRows = Arc<Mutex<Vec<(Vec<f32>, Vec<f32>)>>>;

struct Keeps(SeenRows);

impl RowObserver for Keeps {
    fn on_row(&mut self, _request: RequestId, _branch: BranchId, hidden: &[f32], logits: &[f32]) {
        self.0.lock().unwrap().push((hidden.to_vec(), logits.to_vec()));
    }
}

/// A response drawn by an engine, and what it saw on the way: all but the state after the last token.
struct Drawn {
    prompt: Vec<TokenId>,
    response: Vec<TokenId>,
    rows: Vec<(Vec<f32>, Vec<f32>)>,
}

fn draw(model: &LoadedModel, prompt: &str, seed: u64) -> Drawn {
    let mut jobs = jobs(model, "sample", &[prompt]);
    jobs[0].seed = trimtab_base::Seed(seed);
    let mut engine = model.engine(8 << 20, EngineConfig::standard()).unwrap();
    let seen = SeenRows::default();
    engine.observe_rows(Box::new(Keeps(Arc::clone(&seen))));
    let mut response = Vec::new();
    let limits = RunLimits::standard();
    run_jobs::<RuntimeError>(
        &mut engine,
        &model.token_bytes(),
        &jobs,
        None,
        limits,
        &mut |event| {
            if let RunEvent::Finished(result) = event {
                response.clone_from(&result.outcome.candidates[0].token_ids);
            }
            Ok(())
        },
    )
    .unwrap();
    let rows = std::mem::take(&mut *seen.lock().unwrap());
    Drawn {
        prompt: jobs[0].token_ids.clone(),
        response,
        rows,
    }
}

fn states(
    model: &LoadedModel,
    features: Option<&trimtab_scorer::TokenFeatures>,
    items: &[FeatureItem<'_>],
    limits: ReaderLimits,
) -> Result<Vec<PrefixStates>, RuntimeError> {
    let mut all = Vec::new();
    prefix_features::<RuntimeError>(model, features, items, limits, &mut |idx, states| {
        assert_eq!(idx, all.len(), "in order");
        all.push(states);
        Ok(())
    })?;
    Ok(all)
}

fn limits(rows_per_pass: usize, kept_positions: usize) -> ReaderLimits {
    ReaderLimits {
        rows_per_pass,
        kept_positions,
    }
}

#[test]
fn states_have_the_bits_that_an_engine_sees() {
    let model = tiny_model::load(2);
    let long = "a prompt that is longer than two blocks of keys and values";
    let drawn: Vec<Drawn> = [(long, 1), (long, 2), ("short", 3), (long, 4)]
        .map(|(prompt, seed)| draw(&model, prompt, seed))
        .into();
    let features = token_features(&model, 9);
    let items: Vec<FeatureItem<'_>> = drawn
        .iter()
        .map(|drawn| FeatureItem {
            prompt: &drawn.prompt,
            response: &drawn.response,
        })
        .collect();
    let whole = states(&model, Some(&features), &items, ReaderLimits::standard()).unwrap();
    // Passes that cut every sequence, and a store that forgets prompts.
    for (rows, kept) in [(7, 8192), (1, 16), (64, 16)] {
        assert_eq!(
            states(&model, Some(&features), &items, limits(rows, kept)).unwrap(),
            whole
        );
    }
    let hidden_len = model.config().hidden_len;
    for (drawn, states) in drawn.iter().zip(&whole) {
        let num_tokens = drawn.response.len();
        assert_eq!(
            drawn.rows.len(),
            num_tokens,
            "the engine does not run the last token"
        );
        assert_eq!(states.hidden.len(), (num_tokens + 1) * hidden_len);
        assert_eq!(states.expected_features.len(), (num_tokens + 1) * features.len);
        let hidden = states.hidden.chunks_exact(hidden_len);
        let expected = states.expected_features.chunks_exact(features.len);
        for ((hidden, expected), (engine_hidden, logits)) in hidden.zip(expected).zip(&drawn.rows) {
            assert_eq!(hidden, engine_hidden);
            let slow = slow_mean(logits, &features);
            for (value, slow) in expected.iter().zip(slow) {
                assert!((f64::from(*value) - slow).abs() < 2e-5, "{value} is not {slow}");
            }
        }
    }
}

/// `sum_z softmax(logits)[z] F[z]`, in f64.
fn slow_mean(logits: &[f32], features: &trimtab_scorer::TokenFeatures) -> Vec<f64> {
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let mut mean = vec![0.0; features.len];
    for (token, &logit) in logits.iter().enumerate() {
        let prob = f64::from(logit).exp() / total;
        for (mean, &feature) in mean.iter_mut().zip(features.row(TokenId(token as u32))) {
            *mean += prob * f64::from(feature);
        }
    }
    mean
}

#[test]
fn token_features_mark_what_ends_an_answer() {
    let model = tiny_model::load(1);
    let features = token_features(&model, 9);
    let stops = model.tokenizer().stop_tokens();
    assert!(!stops.is_empty());
    for token in 0..model.config().vocab_len as u32 {
        let marked = features.row(TokenId(token)).last() == Some(&1.0);
        assert_eq!(marked, stops.contains(&TokenId(token)), "token {token}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let model = tiny_model::load(1);
    let (prompt, response) = (vec![TokenId(5); 100], vec![TokenId(6); 29]);
    let fits = FeatureItem {
        prompt: &prompt,
        response: &response[..28],
    };
    assert_eq!(
        states(&model, None, &[fits], ReaderLimits::standard())
            .unwrap()
            .len(),
        1
    );
    let check = |item: FeatureItem<'_>, expect: &[&str]| {
        let error = states(&model, None, &[fits, item], ReaderLimits::standard())
            .expect_err("must be refused")
            .to_string();
        for part in expect {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    };
    let context = format!("context of {CONTEXT_LEN}");
    let too_long = FeatureItem {
        prompt: &prompt,
        response: &response,
    };
    check(
        too_long,
        &[
            "response 1:",
            "100 tokens",
            "29",
            &context,
            "leave the response out",
        ],
    );
    let no_prompt = FeatureItem {
        prompt: &[],
        response: &response,
    };
    check(no_prompt, &["response 1", "no tokens"]);
    let strange = [TokenId(100_000)];
    let outside = FeatureItem {
        prompt: &prompt,
        response: &strange,
    };
    check(outside, &["100000"]);
}

#[test]
fn features_of_another_vocabulary_are_refused() {
    let model = tiny_model::load(1);
    let mut features = token_features(&model, 9);
    features.vocab_len -= 1;
    features.values.truncate(features.vocab_len * features.len);
    let prompt = [TokenId(5)];
    let item = FeatureItem {
        prompt: &prompt,
        response: &prompt,
    };
    let error = states(&model, Some(&features), &[item], ReaderLimits::standard())
        .expect_err("must be refused")
        .to_string();
    assert!(error.contains("284") && error.contains("285"), "{error}");
}
