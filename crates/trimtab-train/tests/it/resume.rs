//! A run that was stopped and went on ends in the same bytes as one that was not.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use trimtab_train::{
    OptimConfig, PrefixSet, RunDir, ScorerObjective, ScorerTrainConfig, TargetNetwork, TrainError,
    TrainEvent, TrainedScorer, train_scorer,
};

use crate::table::{EVAL_FRACTION, SEED, Table};

fn config(objective: ScorerObjective) -> ScorerTrainConfig {
    ScorerTrainConfig {
        objective,
        trunk_len: 8,
        epochs: 3,
        optim: OptimConfig {
            batch_len: 200,
            accumulation: 2,
            eval_every_steps: Some(5),
            ..OptimConfig::default()
        },
        eval_fraction: EVAL_FRACTION,
        seed: SEED,
        ..ScorerTrainConfig::default()
    }
}

fn small_set(table: &Table, dir: &Path) -> PrefixSet {
    table.set(dir, 300.0, |_, log_prob| log_prob.exp())
}

/// Runs until the end, or until `stop_after` steps.
fn run(
    set: &PrefixSet,
    config: &ScorerTrainConfig,
    dir: &Path,
    stop_after: Option<u64>,
) -> Result<TrainedScorer, TrainError> {
    let features = Table::new().features();
    let on_event = &mut |event| match event {
        TrainEvent::Step { step, .. } if Some(step) == stop_after => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    train_scorer(config, set, Some(&features), &RunDir::new(dir, "test"), on_event)
}

fn check_resume(objective: ScorerObjective) {
    let (table, folder) = (Table::new(), tempfile::tempdir().unwrap());
    let set = small_set(&table, &folder.path().join("set"));
    let config = config(objective);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let expected = run(&set, &config, &whole, None).unwrap();
    for stop_after in [3, 5, 8] {
        let stopped = run(&set, &config, &broken, Some(stop_after));
        assert!(matches!(stopped, Err(TrainError::Stopped { step }) if step == stop_after));
    }
    let resumed = run(&set, &config, &broken, None).unwrap();
    assert_eq!(resumed.weights, expected.weights);
    assert_eq!(resumed.metrics, expected.metrics);
    assert_eq!(resumed.best_step, expected.best_step);
    for file in [
        "config.toml",
        "run.json",
        "metrics.jsonl",
        "events.out.tfevents.0.trimtab",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
    ] {
        let read = |dir: &Path| fs::read(dir.join(file)).unwrap();
        assert!(read(&whole) == read(&broken), "{file} differs");
    }
}

#[test]
fn a_stopped_run_of_cd_fudge_ends_in_the_same_bytes() {
    check_resume(ScorerObjective::CdFudge {});
}

#[test]
fn a_stopped_run_with_a_target_network_ends_in_the_same_bytes() {
    check_resume(ScorerObjective::CdQ {
        lambda: 0.5,
        num_steps: 1,
        target_network: Some(TargetNetwork::Polyak { rate: 0.3 }),
    });
}

#[test]
fn what_was_logged_after_the_checkpoint_of_a_kill_is_forgotten() {
    let (table, folder) = (Table::new(), tempfile::tempdir().unwrap());
    let set = small_set(&table, &folder.path().join("set"));
    let config = config(ScorerObjective::CdFudge {});
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    run(&set, &config, &whole, None).unwrap();
    assert!(run(&set, &config, &broken, Some(5)).is_err());
    // As a kill after step 6 would leave it: a line that was flushed, and a torn one.
    let metrics = broken.join("metrics.jsonl");
    let mut text = fs::read_to_string(&metrics).unwrap();
    text.push_str("{\"step\":6,\"kind\":\"train\",\"loss\":99.0}\n{\"step\":7,\"ki");
    fs::write(&metrics, text).unwrap();
    run(&set, &config, &broken, None).unwrap();
    assert_eq!(
        fs::read(&metrics).unwrap(),
        fs::read(whole.join("metrics.jsonl")).unwrap()
    );
}

#[test]
fn a_folder_of_another_run_is_refused() {
    let (table, folder) = (Table::new(), tempfile::tempdir().unwrap());
    let set = small_set(&table, &folder.path().join("set"));
    let dir = folder.path().join("run");
    run(&set, &config(ScorerObjective::CdFudge {}), &dir, None).unwrap();
    let other = ScorerTrainConfig {
        trunk_len: 9,
        ..config(ScorerObjective::CdFudge {})
    };
    let error = run(&set, &other, &dir, None).unwrap_err();
    assert!(
        matches!(
            error,
            TrainError::Mismatch {
                what: "configuration",
                ..
            }
        ),
        "{error}"
    );
    let other_set = table.set(&folder.path().join("other"), 310.0, |_, log_prob| log_prob.exp());
    let error = run(&other_set, &config(ScorerObjective::CdFudge {}), &dir, None).unwrap_err();
    assert!(
        matches!(error, TrainError::Mismatch { what: "data", .. }),
        "{error}"
    );
}

#[test]
fn a_loss_that_is_not_finite_names_step_batch_and_checkpoint() {
    let (table, folder) = (Table::new(), tempfile::tempdir().unwrap());
    let set = small_set(&table, &folder.path().join("set"));
    let mut config = config(ScorerObjective::CdFudge {});
    // Beyond f32 within a few steps.
    config.optim.learning_rate = 1e30;
    config.optim.eval_every_steps = Some(1);
    let error = run(&set, &config, &folder.path().join("run"), None).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, TrainError::NotFinite { step, .. } if step > 1),
        "{text}"
    );
    assert!(
        text.contains("last.safetensors") && text.contains("of epoch 0"),
        "{text}"
    );
}

#[test]
fn accumulated_batches_make_the_step_of_one_large_batch() {
    let (table, folder) = (Table::new(), tempfile::tempdir().unwrap());
    let set = small_set(&table, &folder.path().join("set"));
    let loss_of_first_step = |batch_len, accumulation, name| {
        let mut config = config(ScorerObjective::CdFudge {});
        config.optim.batch_len = batch_len;
        config.optim.accumulation = accumulation;
        let dir = folder.path().join(name);
        let _ = run(&set, &config, &dir, Some(1));
        let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        (
            line["loss"].as_f64().unwrap(),
            line["grad_norm"].as_f64().unwrap(),
        )
    };
    let (loss, norm) = loss_of_first_step(100_000, 1, "one");
    let (parts_loss, parts_norm) = loss_of_first_step(150, 1000, "many");
    assert!((loss - parts_loss).abs() < 1e-5 * loss, "{loss} and {parts_loss}");
    assert!((norm - parts_norm).abs() < 1e-4 * norm, "{norm} and {parts_norm}");
}
