//! Prefix scorers with weights of their own: they learn, resume, and give their values in the engine.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_model::ModelConfig;
use trimtab_model::load::WeightSource;
use trimtab_model::presets::test_tiny;
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_scorer::TokenFeatures;
use trimtab_train::decoder::{LoraConfig, TokenResponse, TrainedValueModel, ValueBase, train_value_model};
use trimtab_train::{
    OptimConfig, RunDir, ScorerDepth, ScorerObjective, ScorerTrainConfig, TargetNetwork, TrainError,
    TrainEvent,
};

use crate::decoder::engine_output;

const FEATURE_LEN: usize = 4;

struct Task {
    config: ModelConfig,
    weights: Arc<dyn WeightSource>,
    features: TokenFeatures,
    responses: Vec<TokenResponse>,
}

/// Draws from a fixed sequence.
fn draw(state: &mut u64, num: u64) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) % num) as u32
}

impl Task {
    /// The reward is the share of even tokens in the response; the reference draws tokens uniformly, so that the
    /// expected features are the features' mean.
    fn new() -> Self {
        let config = test_tiny();
        let weights: Arc<dyn WeightSource> = Arc::new(SyntheticWeights::new(config.clone(), 7));
        let features = TokenFeatures::of_embedding(
            &mut |token, row| weights.read_row(trimtab_model::names::Role::Embedding, token, row),
            config.vocab_len,
            config.hidden_len,
            FEATURE_LEN,
            &[TokenId(2)],
        );
        let mean: Vec<f32> = (0..FEATURE_LEN)
            .map(|i| {
                let column = (0..config.vocab_len as u32).map(|z| features.row(TokenId(z))[i]);
                column.sum::<f32>() / config.vocab_len as f32
            })
            .collect();
        let state = &mut 9;
        let response = |key: u64| {
            let (prompt_len, len) = (1 + draw(state, 4), 1 + draw(state, 9));
            let ids = |len: u32, state: &mut u64| -> Vec<u32> { (0..len).map(|_| draw(state, 40)).collect() };
            let (prompt_token_ids, response_token_ids) = (ids(prompt_len, state), ids(len, state));
            let even = response_token_ids
                .iter()
                .filter(|&&id| id.is_multiple_of(2))
                .count();
            TokenResponse {
                expected_features: mean.repeat(response_token_ids.len() + 1),
                reward: 10.0 * even as f64 / response_token_ids.len() as f64,
                prompt_token_ids,
                response_token_ids,
                key,
            }
        };
        Self {
            responses: (0..160).map(response).collect(),
            features,
            weights,
            config,
        }
    }

    fn train(
        &self,
        config: &ScorerTrainConfig,
        dir: &Path,
        on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<TrainedValueModel, TrainError> {
        let base = ValueBase {
            config: &self.config,
            weights: self.weights.as_ref(),
            sha256: "of the test",
        };
        let run_dir = RunDir::new(dir, "test");
        train_value_model(
            config,
            base,
            &self.responses,
            Some(&self.features),
            &run_dir,
            on_event,
        )
    }
}

fn config(objective: ScorerObjective, depth: ScorerDepth) -> ScorerTrainConfig {
    ScorerTrainConfig {
        objective,
        depth,
        lora: LoraConfig {
            rank: 4,
            ..LoraConfig::default()
        },
        trunk_len: 8,
        epochs: 6,
        optim: OptimConfig {
            batch_len: 200,
            learning_rate: 5e-3,
            eval_every_steps: Some(8),
            ..OptimConfig::default()
        },
        eval_fraction: 0.25,
        seed: 1,
        ..ScorerTrainConfig::default()
    }
}

fn one_step() -> ScorerObjective {
    ScorerObjective::CdQ {
        lambda: 0.0,
        num_steps: 1,
        target_network: None,
    }
}

fn go_on(_event: TrainEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn live_states_learn_and_the_engine_gives_their_values() {
    let task = Task::new();
    for (objective, depth) in [
        (ScorerObjective::CdFudge {}, ScorerDepth::Lora),
        (ScorerObjective::CdFudge {}, ScorerDepth::Full),
        (one_step(), ScorerDepth::Lora),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(objective, depth);
        let (mut losses, mut num_steps) = (Vec::new(), 0);
        let trained = task
            .train(&config, dir.path(), &mut |event| {
                if let TrainEvent::Step {
                    loss, total_steps, ..
                } = event
                {
                    losses.push(loss);
                    num_steps = total_steps;
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(losses.len() as u64, num_steps);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (first, last) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
        assert!(
            last < 0.8 * first,
            "{:?}: the loss went from {first} to {last}",
            config.objective
        );
        assert!(trained.scorer.metrics["mse"].is_finite());
        assert_values_in_the_engine(&task, &trained);
    }
}

/// The scorer's values on the engine's states, run with the trained weights, equal those of the training forward: the
/// judge's error over held-out responses comes out the same.
fn assert_values_in_the_engine(task: &Task, trained: &TrainedValueModel) {
    let weights: Arc<dyn WeightSource> = Arc::new(trained.decoder.trained_weights(Arc::clone(&task.weights)));
    let is_held_out = |response: &&TokenResponse| {
        trimtab_train::prefix_batches::is_held_out(response.key, 0.25, trimtab_base::Seed(1))
    };
    let (mut square_sum, mut count) = (0.0, 0.0);
    for response in task.responses.iter().filter(is_held_out) {
        let tokens = [&response.prompt_token_ids[..], &response.response_token_ids].concat();
        let states = engine_output(&task.config, &weights, &tokens).hidden;
        let first = response.prompt_token_ids.len() - 1;
        for state in states.chunks_exact(task.config.hidden_len).skip(first) {
            square_sum += (trained.scorer.weights.state_value(state) - response.reward).powi(2);
            count += 1.0;
        }
    }
    let (got, expected) = (square_sum / count, trained.scorer.metrics["mse"]);
    assert!(
        (got - expected).abs() < 1e-3 * expected,
        "mse {got} in the engine, {expected} in training"
    );
}

#[test]
fn a_stopped_run_ends_in_the_same_bytes() {
    let task = Task::new();
    for depth in [ScorerDepth::Lora, ScorerDepth::Full] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
        let config = config(one_step(), depth);
        let expected = task.train(&config, &whole, &mut go_on).unwrap();
        let stopped = task.train(&config, &broken, &mut |event| match event {
            TrainEvent::Step { step: 11, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(stopped, Err(TrainError::Stopped { step: 11 })));
        let resumed = task.train(&config, &broken, &mut go_on).unwrap();
        assert_eq!(resumed.scorer.weights, expected.scorer.weights);
        for file in [
            "metrics.jsonl",
            "checkpoints/last.safetensors",
            "checkpoints/best.safetensors",
        ] {
            let read = |dir: &Path| fs::read(dir.join(file)).unwrap();
            assert!(read(&whole) == read(&broken), "{file} differs at depth {depth:?}");
        }
    }
}

#[test]
fn a_checkpoint_of_adapters_holds_no_frozen_weight() {
    let task = Task::new();
    let dir = tempfile::tempdir().unwrap();
    task.train(&config(one_step(), ScorerDepth::Lora), dir.path(), &mut go_on)
        .unwrap();
    let bytes = fs::read(dir.path().join("checkpoints/best.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let names = tensors.names();
    assert!(names.iter().any(|name| name.contains("adapter")), "{names:?}");
    let is_trained = |name: &&&str| name.contains("adapter") || name.contains("heads");
    let frozen: Vec<_> = names.iter().filter(|name| !is_trained(name)).collect();
    assert!(frozen.is_empty(), "{frozen:?}");
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let check = |change: &dyn Fn(&mut Task, &mut ScorerTrainConfig), expect: &str| {
        let (mut task, mut config) = (Task::new(), config(one_step(), ScorerDepth::Lora));
        change(&mut task, &mut config);
        let dir = tempfile::tempdir().unwrap();
        let message = task
            .train(&config, dir.path(), &mut go_on)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expect), "{message:?} does not say {expect:?}");
        let is_empty = fs::read_dir(dir.path()).unwrap().next().is_none();
        assert!(is_empty, "a refused run left files behind");
    };
    check(
        &|task, _| task.responses[3].prompt_token_ids.clear(),
        "response 3: the prompt has no tokens",
    );
    check(
        &|task, _| task.responses[5].response_token_ids[0] = 40,
        "response 5: token id 40",
    );
    check(
        &|task, _| task.responses[0].response_token_ids = vec![1; 300],
        "exceed the model's context of 256",
    );
    check(
        &|task, _| task.responses[2].reward = f64::NAN,
        "response 2: the reward is NaN",
    );
    check(
        &|task, _| task.responses[1].expected_features.truncate(4),
        "response 1: 4 expected features",
    );
    check(&|_, config| config.lora.rank = 0, "lora.rank is 0");
    let target = |_: &mut Task, config: &mut ScorerTrainConfig| {
        config.objective = ScorerObjective::CdQ {
            lambda: 0.0,
            num_steps: 1,
            target_network: Some(TargetNetwork::Polyak { rate: 0.5 }),
        };
    };
    check(&target, "objective.target_network");
    check(&|task, _| task.responses.truncate(1), "expected some of both");
}
