//! Models with other weights, and how far they are from the first: laws that sums over the whole vocabulary obey.

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_engine::EngineConfig;
use trimtab_model::ModelError;
use trimtab_model::load::WeightSource;
use trimtab_model::names::Role;
use trimtab_runtime::{
    FeatureItem, LoadedModel, ReaderLimits, ResponseKl, RunEvent, RunLimits, RuntimeError, response_kl,
    run_jobs,
};

use crate::jobs::jobs;
use crate::tiny_model;

/// Weights of which the final norm is moved, unevenly, so that logits change and shapes do not.
struct Moved {
    inner: Arc<dyn WeightSource>,
    by: f32,
}

impl WeightSource for Moved {
    fn shape(&self, role: Role) -> Result<Vec<usize>, ModelError> {
        self.inner.shape(role)
    }

    fn read_row(&self, role: Role, row: usize, out: &mut [f32]) {
        self.inner.read_row(role, row, out);
        if role == Role::FinalNorm {
            for (idx, value) in out.iter_mut().enumerate() {
                *value += self.by * (idx % 3) as f32;
            }
        }
    }

    fn release(&self, role: Role) {
        self.inner.release(role);
    }
}

fn moved(model: &LoadedModel, by: f32) -> LoadedModel {
    let inner = model.weights();
    model.with_weights(Arc::new(Moved { inner, by })).unwrap()
}

/// A response with its per-token log-probabilities, as the engine draws it.
fn draw(model: &LoadedModel, prompt: &str) -> (Vec<TokenId>, Vec<TokenId>, Vec<f32>, f64) {
    let jobs = jobs(model, "sample", &[prompt]);
    let mut engine = model.engine(8 << 20, EngineConfig::standard()).unwrap();
    let mut drawn = None;
    run_jobs::<RuntimeError>(
        &mut engine,
        &model.token_bytes(),
        &jobs,
        None,
        RunLimits::standard(),
        &mut |event| {
            if let RunEvent::Finished(result) = event {
                drawn = result.outcome.candidates.into_iter().next();
            }
            Ok(())
        },
    )
    .unwrap();
    let drawn = drawn.unwrap();
    (
        jobs[0].token_ids.clone(),
        drawn.token_ids,
        drawn.token_log_probs,
        drawn.log_prob,
    )
}

fn kl(
    policy: &LoadedModel,
    reference: &LoadedModel,
    items: &[FeatureItem<'_>],
    rows: usize,
) -> Vec<ResponseKl> {
    let limits = ReaderLimits {
        rows_per_pass: rows,
        kept_positions: 64,
    };
    response_kl(policy, reference, items, limits).unwrap()
}

#[test]
fn the_same_weights_are_the_same_model() {
    let model = tiny_model::load(1);
    let again = model.with_weights(model.weights()).unwrap();
    let (prompt, response, log_probs, log_prob) = draw(&model, "hello");
    assert_eq!(draw(&again, "hello").1, response);
    let item = FeatureItem {
        prompt: &prompt,
        response: &response,
    };
    let [one] = kl(&again, &model, &[item], 256)[..] else {
        panic!("one response")
    };
    assert_eq!((one.kl_nats, one.log_ratio_nats()), (0.0, 0.0));
    // What the engine said of its draws is what reading them again says.
    assert!(
        (one.log_prob - log_prob).abs() < 1e-9,
        "{} {log_prob}",
        one.log_prob
    );
    let sum: f64 = log_probs.iter().map(|&value| f64::from(value)).sum();
    assert_eq!(log_probs.len(), response.len());
    assert!((sum - log_prob).abs() < 1e-4, "{sum} {log_prob}");
}

#[test]
fn the_divergence_is_the_mean_log_ratio_over_all_next_tokens() {
    let reference = tiny_model::load(1);
    let policy = moved(&reference, 0.4);
    let (prompt, ..) = draw(&reference, "abc");
    let all: Vec<[TokenId; 1]> = (0..reference.config().vocab_len as u32)
        .map(|id| [TokenId(id)])
        .collect();
    let items: Vec<FeatureItem<'_>> = all
        .iter()
        .map(|token| FeatureItem {
            prompt: &prompt,
            response: token,
        })
        .collect();
    let found = kl(&policy, &reference, &items, 32);
    let prob = |one: &ResponseKl| one.log_prob.exp();
    let mass: f64 = found.iter().map(prob).sum();
    // Normalisers are sums of f32 exponentials.
    assert!((mass - 1.0).abs() < 1e-6, "{mass}");
    let mean: f64 = found.iter().map(|one| prob(one) * one.log_ratio_nats()).sum();
    assert!(mean > 0.01, "the weights have moved: {mean}");
    for one in &found {
        assert!((one.kl_nats - mean).abs() < 1e-6, "{} {mean}", one.kl_nats);
    }
}

#[test]
fn batches_change_nothing_and_sides_are_not_mixed_up() {
    let reference = tiny_model::load(2);
    let policy = moved(&reference, -0.3);
    let drawn: Vec<_> = ["hello", "zebra", "abc"]
        .map(|prompt| draw(&policy, prompt))
        .to_vec();
    let items: Vec<FeatureItem<'_>> = drawn
        .iter()
        .map(|(prompt, response, ..)| FeatureItem { prompt, response })
        .collect();
    let found = kl(&policy, &reference, &items, 256);
    assert_eq!(found, kl(&policy, &reference, &items, 5));
    for (one, (_, _, _, log_prob)) in found.iter().zip(&drawn) {
        assert!((one.log_prob - log_prob).abs() < 1e-9);
        assert!(one.kl_nats > 0.0);
    }
    let turned = kl(&reference, &policy, &items, 256);
    for (one, turned) in found.iter().zip(&turned) {
        assert!((one.log_ratio_nats() + turned.log_ratio_nats()).abs() < 1e-12);
        assert!((one.log_prob - turned.reference_log_prob).abs() < 1e-12);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = tiny_model::load(1);
    let long = vec![TokenId(5); 200];
    let item = FeatureItem {
        prompt: &long[..1],
        response: &long,
    };
    let refused = response_kl(&model, &model, &[item], ReaderLimits::standard());
    assert!(matches!(refused, Err(RuntimeError::ResponseTooLong { .. })));
    assert_eq!(
        response_kl(&model, &model, &[], ReaderLimits::standard()).unwrap(),
        []
    );
}
