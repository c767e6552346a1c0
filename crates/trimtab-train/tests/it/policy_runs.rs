//! Whole runs over decoders: resuming, KL goals, reference, counted data, and what comes out in the engine.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};
use trimtab_model::load::WeightSource;
use trimtab_model::presets::{test_tiny, test_tiny_qwen};
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_train::decoder::LoraConfig;
use trimtab_train::policy::objective::numbers_of;
use trimtab_train::policy::pieces::{Piece, PolicyItem};
use trimtab_train::policy::{
    Advantage, Importance, PolicyBase, PolicyData, PolicyDepth, PolicyObjective, PolicyResponse,
    PolicyRollouts, PolicyTrainConfig, PreferenceTokens, TrainedPolicy, kept_policies, load_kept,
    measured_kl, train_policy,
};
use trimtab_train::trainer::Checkpoint;
use trimtab_train::{OptimConfig, RunDir, Schedule, TrainError, TrainEvent};

use crate::decoder::engine_output;
use crate::decoder_training::{load, lora, moved};

const LEN: usize = 4;

fn base() -> PolicyBase {
    PolicyBase {
        config: test_tiny(),
        weights: Arc::new(SyntheticWeights::new(test_tiny(), 7)),
        sha256: "base".to_owned(),
    }
}

/// Draws four responses to each of two prompts with the engine; the reward is the share of low tokens.
struct Engine {
    num_draws: usize,
}

impl Engine {
    fn new() -> Self {
        Self { num_draws: 0 }
    }
}

fn log_probs(weights: &Arc<dyn WeightSource>, tokens: &[u32]) -> Vec<f64> {
    let output = engine_output(&test_tiny(), weights, tokens);
    let row: Vec<f64> = output.logits[output.logits.len() - test_tiny().vocab_len..]
        .iter()
        .map(|&logit| f64::from(logit))
        .collect();
    let log_sum = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    row.iter().map(|logit| logit - log_sum).collect()
}

fn reward(token_ids: &[u32]) -> f64 {
    token_ids.iter().filter(|&&id| id < 10).count() as f64 / token_ids.len() as f64
}

impl PolicyRollouts for Engine {
    fn rollouts(
        &mut self,
        weights: Arc<dyn WeightSource>,
        step: u64,
    ) -> Result<Vec<PolicyResponse>, TrainError> {
        self.num_draws += 1;
        let mut responses = Vec::new();
        for idx in 0..8_u64 {
            let coins = SampleStream::new(Seed(step), PromptKey(idx), 0, Purpose::Training);
            let prompt = vec![3, 4 + (idx / 4) as u32];
            let (mut token_ids, mut sampler_log_probs) = (Vec::new(), Vec::new());
            for at in 0..LEN {
                let law = log_probs(&weights, &[&prompt[..], &token_ids].concat());
                let mut coin = coins.uniform(at as u64);
                let drawn = law.iter().position(|log_prob| {
                    coin -= log_prob.exp();
                    coin < 0.0
                });
                let token = drawn.unwrap_or(law.len() - 1);
                token_ids.push(token as u32);
                sampler_log_probs.push(law[token] as f32);
            }
            responses.push(PolicyResponse {
                key: idx / 4,
                prompt_token_ids: prompt,
                reward: reward(&token_ids),
                token_ids,
                sampler_log_probs,
                weight: 1.0,
                is_of_reference: false,
            });
        }
        // One that cannot be learned from.
        responses.push(PolicyResponse {
            prompt_token_ids: vec![3],
            weight: 1.0,
            ..PolicyResponse::default()
        });
        Ok(responses)
    }
}

fn rl(beta: f64) -> PolicyObjective {
    PolicyObjective::Rl {
        beta,
        advantage: Advantage::LeaveOneOut,
        clip: Some(0.2),
        importance: Importance::default(),
    }
}

fn config() -> PolicyTrainConfig {
    PolicyTrainConfig {
        objective: rl(0.1),
        lora: LoraConfig {
            rank: 2,
            alpha: 4.0,
            ..LoraConfig::default()
        },
        epochs: 6,
        steps_per_round: 2,
        passes_per_round: 2,
        optim: OptimConfig {
            batch_len: 20,
            learning_rate: 0.01,
            weight_decay: 0.0,
            schedule: Schedule::Constant,
            eval_every_steps: Some(5),
            ..OptimConfig::default()
        },
        logit_rows: 5,
        ..PolicyTrainConfig::default()
    }
}

fn on_policy(
    config: &PolicyTrainConfig,
    dir: &Path,
    stop_after: Option<u64>,
) -> Result<TrainedPolicy, TrainError> {
    let on_event = &mut |event| match event {
        TrainEvent::Step { step, .. } if Some(step) == stop_after => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let data = PolicyData::OnPolicy(&mut Engine::new());
    train_policy(config, &base(), data, &RunDir::new(dir, "test"), on_event)
}

fn adapters(policy: &TrainedPolicy) -> Vec<(String, Vec<f32>)> {
    trimtab_train::trainer::params_of(&policy.decoder)
        .into_iter()
        .map(|(path, data)| (path, data.iter::<f32>().collect()))
        .collect()
}

#[test]
fn an_on_policy_run_that_stops_within_a_round_ends_in_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let config = PolicyTrainConfig {
        keep_at_kl_nats: vec![0.02, 1e6],
        ..config()
    };
    let expected = on_policy(&config, &whole, None).unwrap();
    for stop_after in [3, 6, 16] {
        let stopped = on_policy(&config, &broken, Some(stop_after));
        assert!(matches!(stopped, Err(TrainError::Stopped { step }) if step == stop_after));
    }
    let resumed = on_policy(&config, &broken, None).unwrap();
    assert_eq!(adapters(&resumed), adapters(&expected));
    assert_eq!(resumed.step, 24);
    assert_eq!(expected.kept.len(), 1, "{:?}", expected.kept);
    for file in [
        "run.json",
        "metrics.jsonl",
        "checkpoints/last.safetensors",
        "checkpoints/kept/kl-0.02.safetensors",
    ] {
        let read = |dir: &Path| fs::read(dir.join(file)).unwrap();
        assert!(read(&whole) == read(&broken), "{file} differs");
    }
    let metrics = fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    for name in [
        "reward",
        "kl_nats",
        "entropy_nats",
        "response_len",
        "repetition",
        "clip_share",
        "importance_ratio",
    ] {
        assert!(
            metrics.lines().next().unwrap().contains(&format!("\"{name}\"")),
            "{name}"
        );
    }
    // One empty response in each of six rounds, and in the one that looks at the last weights.
    assert_eq!(expected.skipped.get("empty response"), Some(&7));
}

#[test]
fn the_policy_moves_towards_its_reward_and_starts_at_its_reference() {
    let folder = tempfile::tempdir().unwrap();
    let config = PolicyTrainConfig {
        epochs: 30,
        steps_per_round: 1,
        passes_per_round: 1,
        ..config()
    };
    let policy = on_policy(&config, folder.path(), None).unwrap();
    let metrics = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|row: &serde_json::Value| row["kind"] == "train")
        .collect();
    let mean = |rows: &[serde_json::Value], name: &str| {
        rows.iter().map(|row| row[name].as_f64().unwrap()).sum::<f64>() / rows.len() as f64
    };
    // Adapters begin at zero, and the sampler is the policy itself in another program.
    assert!(rows[0]["kl_nats"].as_f64().unwrap() < 1e-9);
    assert!((rows[0]["importance_ratio"].as_f64().unwrap() - 1.0).abs() < 1e-4);
    let (before, after) = (mean(&rows[..5], "reward"), mean(&rows[25..], "reward"));
    assert!(after > before + 0.2, "reward {before} before, {after} after");
    assert!(mean(&rows[25..], "kl_nats") > 0.1);
    // What comes out is what the engine runs.
    let weights = policy.weights();
    let drawn = Engine::new().rollouts(weights, 1000).unwrap();
    let drawn: Vec<f64> = drawn
        .iter()
        .filter(|r| !r.token_ids.is_empty())
        .map(|r| r.reward)
        .collect();
    assert!(drawn.iter().sum::<f64>() / drawn.len() as f64 > before);
}

#[test]
fn a_kl_that_is_reached_ends_the_run_and_one_that_explodes_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (stopped, exploded) = (folder.path().join("stopped"), folder.path().join("exploded"));
    let mut config = PolicyTrainConfig {
        epochs: 40,
        steps_per_round: 1,
        passes_per_round: 1,
        kl_stop_nats: Some(0.1),
        keep_at_kl_nats: vec![0.05],
        ..config()
    };
    let policy = on_policy(&config, &stopped, None).unwrap();
    let cause = policy.stopped.clone().unwrap();
    assert!(cause.contains("kl_stop_nats = 0.1"), "{cause}");
    assert!(policy.step > 1 && policy.step < 40, "{} steps", policy.step);
    let kept = kept_policies(&stopped).unwrap();
    assert!(kept.len() == 1 && kept[0].kl_nats >= 0.05 && kept[0].step <= policy.step);
    let loaded = load_kept(&config, &base(), &kept[0].path).unwrap();
    assert_eq!(log_probs(&loaded, &[3, 4]).len(), 40);
    // A finished run is not gone on with.
    let again = on_policy(&config, &stopped, None).unwrap();
    assert_eq!(
        (again.step, again.stopped.clone()),
        (policy.step, policy.stopped.clone())
    );
    assert_eq!(adapters(&again), adapters(&policy));
    // Its numbers are there still: whoever was killed before writing a card writes the same one.
    assert_eq!(again.metrics, policy.metrics);
    assert!(measured_kl(&again.metrics).unwrap() >= 0.1);

    config.kl_stop_nats = None;
    config.kl_limit_nats = 0.1;
    let error = on_policy(&config, &exploded, None)
        .map(|policy| policy.step)
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, TrainError::Diverged { .. }), "{text}");
    // What was last seen below the limit is kept, and is not what the policy began with.
    let good = Checkpoint::read(error.last_good().unwrap()).unwrap();
    assert!(
        text.contains("kl_limit_nats") && text.contains("good.safetensors"),
        "{text}"
    );
    let kl = good.metrics["kl_nats"];
    assert!(
        good.step > 0 && kl > 0.0 && kl <= 0.1,
        "step {}, KL {kl}",
        good.step
    );
    let loaded = load_kept(&config, &base(), error.last_good().unwrap()).unwrap();
    assert_ne!(log_probs(&loaded, &[3, 4]), log_probs(&base().weights, &[3, 4]));
}

#[test]
fn a_run_that_goes_wrong_where_it_goes_on_keeps_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let config = PolicyTrainConfig {
        epochs: 40,
        steps_per_round: 1,
        passes_per_round: 1,
        keep_at_kl_nats: vec![1e-6],
        kl_limit_nats: 0.1,
        ..config()
    };
    let fail = |dir: &Path, stop_after| on_policy(&config, dir, stop_after).map(|policy| policy.step);
    let expect = fail(&whole, None).unwrap_err();
    let TrainError::Diverged { step, .. } = expect else {
        panic!("{expect}");
    };
    // Its checkpoint is of the weights that the first step after it finds to be too far.
    let stopped = fail(&broken, Some(step - 1));
    assert!(matches!(stopped, Err(TrainError::Stopped { step: at }) if at == step - 1));
    let error = fail(&broken, None).unwrap_err();
    assert!(
        matches!(error, TrainError::Diverged { step: at, .. } if at == step),
        "{error}"
    );
    let good = |error: &TrainError| fs::read(error.last_good().unwrap()).unwrap();
    assert!(good(&error) == good(&expect), "other weights are good");
    let kept = kept_policies(&broken).unwrap();
    assert!(kept.len() == 1 && kept[0].step < step, "{kept:?}");
}

#[test]
fn the_model_is_good_until_given_data_says_more() {
    let folder = tempfile::tempdir().unwrap();
    let responses = Engine::new().rollouts(base().weights, 0).unwrap();
    // How it ended, the KL of each evaluation, and the last good checkpoint with whether it is the model.
    let run = |name: &str, learning_rate: f64, every: u64, kl_limit_nats: f64| {
        let mut config = PolicyTrainConfig {
            kl_limit_nats,
            ..given(PolicyObjective::Sft { num_candidates: 1 }, PolicyDepth::Full)
        };
        config.optim.learning_rate = learning_rate;
        config.optim.eval_every_steps = Some(every);
        let data = PolicyData::Responses {
            responses: &responses,
            probe: Some(&mut Engine::new()),
        };
        let mut kls = Vec::new();
        let on_event = &mut |event| {
            if let TrainEvent::Evaluated { metrics, .. } = event {
                kls.push(metrics["kl_nats"]);
            }
            ControlFlow::Continue(())
        };
        let run_dir = RunDir::new(folder.path().join(name), "test");
        let ended = train_policy(&config, &base(), data, &run_dir, on_event).map(|policy| policy.step);
        let good = ended.as_ref().err().and_then(TrainError::last_good).map(|path| {
            let weights = load_kept(&config, &base(), path).unwrap();
            let is_base = log_probs(&weights, &[3, 4]) == log_probs(&base().weights, &[3, 4]);
            (Checkpoint::read(path).unwrap(), is_base)
        });
        (ended, kls, good)
    };
    // Beyond f32 before anything is evaluated, and too far at the first evaluation.
    let (ended, _, good) = run("infinite", 1e30, 1000, 50.0);
    assert!(
        matches!(ended, Err(TrainError::NotFinite { step: 2.., .. })),
        "{ended:?}"
    );
    assert!(matches!(good, Some((Checkpoint { step: 0, .. }, true))));
    let (ended, _, good) = run("first", 1e-3, 1, 1e-9);
    assert!(matches!(ended, Err(TrainError::Diverged { .. })), "{ended:?}");
    assert!(matches!(good, Some((Checkpoint { step: 0, .. }, true))));
    // Later those of the evaluation before, with its numbers.
    let (ended, kls, _) = run("free", 1e-3, 2, 1e9);
    assert!(ended.is_ok() && kls.len() == 3 && kls[0] < kls[1], "{kls:?}");
    let (ended, _, good) = run("later", 1e-3, 2, f64::midpoint(kls[0], kls[1]));
    assert!(matches!(ended, Err(TrainError::Diverged { .. })), "{ended:?}");
    let (good, is_base) = good.unwrap();
    assert_eq!((good.step, good.metrics["kl_nats"], is_base), (2, kls[0], false));
}

#[test]
fn what_the_last_update_did_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = PolicyTrainConfig {
        epochs: 1,
        steps_per_round: 1,
        passes_per_round: 1,
        ..config()
    };
    config.optim.learning_rate = 0.3;
    let policy = on_policy(&config, &folder.path().join("far"), None).unwrap();
    // The only step's responses are those of the reference, whose KL is 0.
    assert!(policy.metrics["kl_nats"] > 0.1, "{:?}", policy.metrics);
    config.kl_limit_nats = policy.metrics["kl_nats"] / 2.0;
    let error = on_policy(&config, &folder.path().join("too_far"), None).map(|policy| policy.step);
    assert!(matches!(error, Err(TrainError::Diverged { .. })), "{error:?}");
}

fn given(objective: PolicyObjective, depth: PolicyDepth) -> PolicyTrainConfig {
    PolicyTrainConfig {
        objective,
        depth,
        epochs: 6,
        // All of them in every step, so that losses differ by the weights alone.
        responses_per_step: 1000,
        ..config()
    }
}

#[test]
fn every_method_lowers_its_own_loss_at_every_depth() {
    let responses: Vec<PolicyResponse> = (0..6)
        .flat_map(|step| {
            let mut drawn = Engine::new().rollouts(base().weights, step).unwrap();
            for response in &mut drawn {
                response.key += 10 * step;
            }
            drawn
        })
        .collect();
    let objectives = [
        rl(0.1),
        PolicyObjective::Dpo { beta: 0.1 },
        PolicyObjective::Ipo { beta: 0.1 },
        PolicyObjective::Sft { num_candidates: 4 },
        PolicyObjective::BonBon {
            num_candidates: 4,
            alpha: 0.1,
        },
    ];
    for objective in objectives {
        for depth in [PolicyDepth::Lora, PolicyDepth::Full] {
            let folder = tempfile::tempdir().unwrap();
            let config = given(objective.clone(), depth);
            let mut losses = Vec::new();
            let on_event = &mut |event| {
                if let TrainEvent::Step { loss, .. } = event {
                    losses.push(loss);
                }
                ControlFlow::Continue(())
            };
            let mut probe = Engine::new();
            let data = PolicyData::Responses {
                responses: &responses,
                probe: Some(&mut probe),
            };
            let policy =
                train_policy(&config, &base(), data, &RunDir::new(folder.path(), "t"), on_event).unwrap();
            let (before, after) = (losses[0], losses[losses.len() - 1]);
            // The value of `rl` is made of rewards, which are given here.
            let is_constant = matches!(objective, PolicyObjective::Rl { .. });
            assert!(
                is_constant || after < before,
                "{objective:?} {depth:?}: {losses:?}"
            );
            assert!(policy.metrics["kl_nats"] > 0.0 && policy.metrics.contains_key("held_out_loss"));
            assert!(probe.num_draws >= 1);
            // Nothing is dropped without being counted.
            assert!(policy.skipped["empty response"] >= 6, "{:?}", policy.skipped);
        }
    }
}

#[test]
fn passes_over_pairs_keep_what_the_reference_says_and_resume_in_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let pair = |idx: u64| PreferenceTokens {
        key: idx,
        prompt_token_ids: vec![3, 4 + idx as u32],
        chosen: vec![1, 2, idx as u32 % 5],
        rejected: vec![20 + idx as u32, 5],
        weight: 1.0,
    };
    let pairs: Vec<PreferenceTokens> = (0..12).map(pair).collect();
    let run = |name: &str, epochs: u64, stop_after: Option<u64>| {
        let config = PolicyTrainConfig {
            objective: PolicyObjective::Dpo { beta: 0.1 },
            epochs,
            responses_per_step: 8,
            ..config()
        };
        let mut probe = Engine::new();
        let data = PolicyData::Preferences {
            pairs: &pairs,
            probe: Some(&mut probe),
        };
        let on_event = &mut |event| match event {
            TrainEvent::Step { step, .. } if Some(step) == stop_after => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let run_dir = RunDir::new(folder.path().join(name), "test");
        train_policy(&config, &base(), data, &run_dir, on_event)
    };
    let read = |name: &str, file: &str| fs::read(folder.path().join(name).join(file)).unwrap();
    let whole = run("whole", 3, None).unwrap();
    assert!(matches!(
        run("broken", 3, Some(4)),
        Err(TrainError::Stopped { step: 4 })
    ));
    let resumed = run("broken", 3, None).unwrap();
    assert_eq!(adapters(&resumed), adapters(&whole));
    for file in ["metrics.jsonl", "reference_log_probs.f64"] {
        assert!(read("whole", file) == read("broken", file), "{file} differs");
    }
    // One pass computes the reference's distributions as it goes, which say the KL at the data too.
    run("once", 1, None).unwrap();
    let first_loss = |name: &str| {
        let metrics = String::from_utf8(read(name, "metrics.jsonl")).unwrap();
        let row: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
        (row["loss"].as_f64().unwrap(), row["kl_at_data_nats"].is_number())
    };
    let (once, whole) = (first_loss("once"), first_loss("whole"));
    assert!((once.0 - whole.0).abs() < 1e-5, "{once:?} and {whole:?}");
    assert_eq!((once.1, whole.1), (true, false));
}

/// Responses that cannot be used, with what is said of them.
fn unusable() -> [(PolicyResponse, &'static str); 4] {
    let good = || PolicyResponse {
        prompt_token_ids: vec![1],
        token_ids: vec![2],
        weight: 1.0,
        ..PolicyResponse::default()
    };
    [
        (
            PolicyResponse {
                reward: f64::NAN,
                ..good()
            },
            "reward NaN",
        ),
        (
            PolicyResponse {
                token_ids: vec![40],
                ..good()
            },
            "outside the vocabulary of 40",
        ),
        (
            PolicyResponse {
                sampler_log_probs: vec![-1.0, -1.0],
                ..good()
            },
            "2 log-probs of the sampler, expected 1",
        ),
        (
            PolicyResponse {
                token_ids: vec![2; 300],
                ..good()
            },
            "longer than the context",
        ),
    ]
}

#[test]
fn data_that_cannot_be_learned_from_is_counted_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pair = |chosen: &[u32], rejected: &[u32]| PreferenceTokens {
        key: 1,
        prompt_token_ids: vec![3],
        chosen: chosen.to_vec(),
        rejected: rejected.to_vec(),
        weight: 1.0,
    };
    let pairs = [
        pair(&[1, 2], &[5]),
        pair(&[1], &[1]),
        pair(&[], &[2]),
        pair(&[9], &[8]),
    ];
    let train = |objective: PolicyObjective, data: PolicyData<'_>, name: &str| {
        let config = PolicyTrainConfig {
            eval_fraction: 0.0,
            ..given(objective, PolicyDepth::Lora)
        };
        let run_dir = RunDir::new(folder.path().join(name), "test");
        train_policy(&config, &base(), data, &run_dir, &mut |_| {
            ControlFlow::Continue(())
        })
    };
    let of_pairs = || PolicyData::Preferences {
        pairs: &pairs,
        probe: None,
    };
    let policy = train(PolicyObjective::Dpo { beta: 0.1 }, of_pairs(), "counted").unwrap();
    let skipped: Vec<(&str, u64)> = policy.skipped.into_iter().collect();
    assert_eq!(skipped, [("empty response", 1), ("pair of identical sides", 1)]);

    let check = |objective: PolicyObjective, data: PolicyData<'_>, expect: &str| {
        let error = train(objective, data, "refused")
            .map(|policy| policy.step)
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expect), "{text:?} does not say {expect:?}");
    };
    check(rl(0.1), of_pairs(), "not from pairs");
    let mut engine = Engine::new();
    check(
        PolicyObjective::Dpo { beta: 0.1 },
        PolicyData::OnPolicy(&mut engine),
        "only the objective rl",
    );
    for (response, expect) in unusable() {
        let data = PolicyData::Responses {
            responses: &[response],
            probe: None,
        };
        check(PolicyObjective::Sft { num_candidates: 1 }, data, expect);
    }
}

#[test]
fn the_reference_of_adapters_is_the_base_and_its_kl_is_exact() {
    for config in [test_tiny(), test_tiny_qwen()] {
        let weights = SyntheticWeights::new(config.clone(), 7);
        let policy = moved(load(&config, &weights, lora())).valid();
        let reference = policy.without_adapters();
        assert_eq!(reference.num_params(), 0);
        let item = PolicyItem {
            prompt_token_ids: vec![3, 14],
            token_ids: vec![15, 9, 26],
            ..PolicyItem::default()
        };
        let piece = Piece::new(vec![vec![item]]);
        let numbers = numbers_of(&policy, &reference, &piece, 2);
        let trained: Arc<dyn WeightSource> =
            Arc::new(policy.trained_weights(Arc::new(SyntheticWeights::new(config.clone(), 7))));
        let base: Arc<dyn WeightSource> = Arc::new(SyntheticWeights::new(config.clone(), 7));
        let law = |weights: &Arc<dyn WeightSource>, tokens: &[u32]| {
            let output = engine_output(&config, weights, tokens);
            let row: Vec<f64> = output.logits[output.logits.len() - config.vocab_len..]
                .iter()
                .map(|&logit| f64::from(logit))
                .collect();
            let log_sum = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            row.into_iter().map(|logit| logit - log_sum).collect::<Vec<f64>>()
        };
        let sequence = [3, 14, 15, 9, 26];
        for at in 0..3 {
            let (own, other) = (
                law(&trained, &sequence[..2 + at]),
                law(&base, &sequence[..2 + at]),
            );
            let kl: f64 = own.iter().zip(&other).map(|(p, q)| p.exp() * (p - q)).sum();
            let token = sequence[2 + at] as usize;
            assert!(kl > 1e-3, "adapters changed nothing");
            assert!(
                (numbers.kl_nats[at] - kl).abs() < 1e-3 * kl,
                "{} and {kl}",
                numbers.kl_nats[at]
            );
            assert!((numbers.log_probs[at] - own[token]).abs() < 1e-4);
            assert!((numbers.reference_log_probs[at] - other[token]).abs() < 1e-4);
        }
    }
}
