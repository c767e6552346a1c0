//! Reward models with weights of their own: one or several heads learn, resume, and give their values in the engine.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use trimtab_model::ModelConfig;
use trimtab_model::load::WeightSource;
use trimtab_model::presets::test_tiny;
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_train::decoder::ValueBase;
use trimtab_train::{
    ClassifierTrainConfig, Judgements, OptimConfig, RewardTask, RunDir, ScorerDepth, TrainError, TrainEvent,
    TrainedRewardModel, Verdicts, train_reward_model,
};

use crate::decoder::engine_output;

const NUM_TEXTS: usize = 240;

/// Draws from a fixed sequence.
fn draw(state: &mut u64, num: u64) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) % num) as u32
}

struct World {
    config: ModelConfig,
    weights: Arc<dyn WeightSource>,
    texts: Vec<Vec<u32>>,
    /// Whether a text holds many even tokens.
    even: Judgements,
    /// Which of two texts begins with the greater token.
    first: Judgements,
}

impl World {
    fn new() -> Self {
        let config = test_tiny();
        let state = &mut 5;
        let text = |_: usize| -> Vec<u32> {
            let len = 3 + draw(state, 6);
            (0..len).map(|_| draw(state, 40)).collect()
        };
        let texts: Vec<Vec<u32>> = (0..NUM_TEXTS).map(text).collect();
        let is_even =
            |text: &Vec<u32>| 2 * text.iter().filter(|id| id.is_multiple_of(2)).count() > text.len();
        let numbers = || 0..NUM_TEXTS as u32;
        let even = Judgements {
            verdicts: Verdicts::Labels {
                texts: numbers().collect(),
                labels: texts
                    .iter()
                    .map(|text| f32::from(u8::from(is_even(text))))
                    .collect(),
            },
            keys: numbers().map(u64::from).collect(),
        };
        let pairs = numbers().map(|a| (a, (a + 1) % NUM_TEXTS as u32)).map(|(a, b)| {
            if texts[a as usize][0] >= texts[b as usize][0] {
                (a, b)
            } else {
                (b, a)
            }
        });
        let (chosen, rejected): (Vec<u32>, Vec<u32>) = pairs.unzip();
        let first = Judgements {
            verdicts: Verdicts::Pairs {
                chosen,
                rejected,
                margins: vec![0.0; NUM_TEXTS],
            },
            keys: numbers().map(u64::from).collect(),
        };
        Self {
            weights: Arc::new(SyntheticWeights::new(config.clone(), 7)),
            config,
            texts,
            even,
            first,
        }
    }

    fn train(
        &self,
        config: &ClassifierTrainConfig,
        tasks: &[RewardTask<'_>],
        dir: &Path,
        on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<TrainedRewardModel, TrainError> {
        let base = ValueBase {
            config: &self.config,
            weights: self.weights.as_ref(),
            sha256: "of the test",
        };
        train_reward_model(
            config,
            base,
            (&self.texts, tasks),
            &RunDir::new(dir, "test"),
            on_event,
        )
    }
}

fn config(depth: ScorerDepth) -> ClassifierTrainConfig {
    ClassifierTrainConfig {
        depth,
        trunk_len: 0,
        epochs: 12,
        eval_fraction: 0.2,
        optim: OptimConfig {
            batch_len: 256,
            learning_rate: 3e-3,
            ..OptimConfig::default()
        },
        ..ClassifierTrainConfig::default()
    }
}

fn go_on(_: TrainEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn two_heads_learn_on_one_decoder_and_are_read_in_the_engine() {
    let world = World::new();
    let tasks = [("even", &world.even), ("first", &world.first)];
    let tasks = tasks.map(|(name, judgements)| RewardTask { name, judgements });
    let folder = tempfile::tempdir().unwrap();
    let trained = world
        .train(&config(ScorerDepth::Full), &tasks, folder.path(), &mut go_on)
        .unwrap();
    for (head, at_least) in trained.heads.iter().zip([0.6, 0.65]) {
        assert!(head.metrics["accuracy"] > at_least, "{:?}", head.metrics);
        assert!(
            !head
                .metrics
                .keys()
                .any(|name| name.starts_with("even") || name.starts_with("first"))
        );
    }
    // The engine runs the decoder that was trained: its states give the values that were measured.
    let merged = trained.decoder.trained_weights(Arc::clone(&world.weights));
    let merged: Arc<dyn WeightSource> = Arc::new(merged);
    let right = world.texts.iter().filter(|text| {
        let hidden = engine_output(&world.config, &merged, text).hidden;
        let last = &hidden[hidden.len() - world.config.hidden_len..];
        let is_even = 2 * text.iter().filter(|id| id.is_multiple_of(2)).count() > text.len();
        (trained.heads[0].weights.state_value(last) > 0.0) == is_even
    });
    let share = right.count() as f64 / NUM_TEXTS as f64;
    assert!(share > 0.7, "{share}");
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bytes() {
    let world = World::new();
    let tasks = [RewardTask {
        name: "first",
        judgements: &world.first,
    }];
    let short = ClassifierTrainConfig {
        epochs: 2,
        ..config(ScorerDepth::Lora)
    };
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expect = world.train(&short, &tasks, whole.path(), &mut go_on).unwrap();
    let mut steps = 0;
    let stop = &mut |event: TrainEvent| {
        steps += u64::from(matches!(event, TrainEvent::Step { .. }));
        if steps == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let error = world.train(&short, &tasks, stopped.path(), stop).unwrap_err();
    assert!(matches!(error, TrainError::Stopped { .. }), "{error}");
    let got = world.train(&short, &tasks, stopped.path(), &mut go_on).unwrap();
    assert_eq!(got.heads[0].weights, expect.heads[0].weights);
    assert_eq!(got.heads[0].metrics, expect.heads[0].metrics);
    assert_eq!(got.data_sha256, expect.data_sha256);
}

#[test]
fn what_does_not_fit_is_refused_before_a_step() {
    let world = World::new();
    let check = |texts: Vec<Vec<u32>>, depth: ScorerDepth, expect: &str| {
        let world = World {
            texts,
            ..World::new()
        };
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let tasks = [RewardTask {
            name: "even",
            judgements: &world.even,
        }];
        let error = world.train(&config(depth), &tasks, &dir, &mut go_on).unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
        assert!(!dir.exists());
    };
    check(world.texts.clone(), ScorerDepth::Head, "lora or full");
    let with = |text: Vec<u32>| {
        let mut texts = world.texts.clone();
        texts[3] = text;
        texts
    };
    check(with(vec![]), ScorerDepth::Lora, "text 3 has 0 tokens");
    check(with(vec![40]), ScorerDepth::Lora, "token 40");
    check(with(vec![1; 9999]), ScorerDepth::Lora, "text 3 has 9999 tokens");
    check(
        world.texts[..5].to_vec(),
        ScorerDepth::Lora,
        "text 5 of 5 is not there",
    );
    let folder = tempfile::tempdir().unwrap();
    let none = world.train(&config(ScorerDepth::Lora), &[], folder.path(), &mut go_on);
    assert!(none.unwrap_err().to_string().contains("no task"));
}
