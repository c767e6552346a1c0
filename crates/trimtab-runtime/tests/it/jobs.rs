//! Jobs on a small model: what a result depends on, and what failures leave behind.

use std::sync::Mutex;

use serde_json::Map;
use trimtab_base::{RewardError, RewardModel, ScoreInput, Seed};
use trimtab_decode::StopRules;
use trimtab_engine::EngineConfig;
use trimtab_runtime::{
    Job, JobResult, LoadOptions, LoadedModel, PromptStyle, RunEvent, RunLimits, RuntimeError, run_jobs,
};

use trimtab_runtime::testing::write_tiny_model;

use crate::tiny_model;

/// How a reward misbehaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// Not at all.
    None,
    /// The third candidate of this prompt gets NaN.
    NanFor(&'static str),
    /// A batch with this prompt is refused because of its third candidate.
    RefusesBatchWith(&'static str),
    /// Every batch fails.
    OutOfOrder,
    Panics,
}

/// Counts the letter `e`, if nothing is wrong with it.
struct CountE {
    fault: Fault,
    largest_batch: Mutex<usize>,
}

impl CountE {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            largest_batch: Mutex::new(0),
        }
    }
}

impl RewardModel for CountE {
    fn name(&self) -> &'static str {
        "count-e"
    }

    fn unit(&self) -> &'static str {
        "letters"
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        let third_of = |prompt: &str| {
            let first = batch.iter().position(|input| input.prompt == prompt)?;
            Some(first + 2)
        };
        let mut rewards: Vec<f64> = batch
            .iter()
            .map(|input| input.response.matches('e').count() as f64)
            .collect();
        let mut largest = self.largest_batch.lock().unwrap();
        *largest = batch.len().max(*largest);
        let reward = "count-e".to_owned();
        match self.fault {
            Fault::None => {}
            Fault::NanFor(prompt) => {
                if let Some(third) = third_of(prompt) {
                    rewards[third] = f64::NAN;
                }
            }
            Fault::RefusesBatchWith(prompt) => {
                if let Some(item_idx) = third_of(prompt) {
                    let got = "\"good\"".to_owned();
                    return Err(RewardError::BadReward {
                        reward,
                        item_idx,
                        got,
                    });
                }
            }
            Fault::OutOfOrder => {
                let problem = "is out of order".to_owned();
                return Err(RewardError::External { reward, problem });
            }
            Fault::Panics => panic!("a reward with a bug"),
        }
        Ok(rewards)
    }
}

pub(crate) const PROMPTS: [&str; 5] = ["hello", "a", "the quick brown fox", "zebra", "one two three"];

pub(crate) fn jobs(model: &LoadedModel, decode: &str, prompts: &[&str]) -> Vec<Job> {
    let job = |(idx, prompt): (usize, &&str)| Job {
        label: format!("prompt {idx}"),
        prompt: (*prompt).to_owned(),
        record: Map::new(),
        token_ids: PromptStyle::default().encode(model.tokenizer(), prompt).unwrap(),
        decode: decode.parse().unwrap(),
        seed: Seed(5),
        stop: StopRules {
            stop_tokens: model.tokenizer().stop_tokens().to_vec(),
            stop_strings: Vec::new(),
            max_new_tokens: 20,
        },
        steering: std::sync::Arc::default(),
        trace: false,
    };
    prompts.iter().enumerate().map(job).collect()
}

fn run(
    model: &LoadedModel,
    jobs: &[Job],
    reward: Option<&dyn RewardModel>,
    max_live_branches: usize,
) -> Result<Vec<JobResult>, RuntimeError> {
    let mut engine = model.engine(8 << 20, EngineConfig::standard()).unwrap();
    let mut results = Vec::new();
    let limits = RunLimits { max_live_branches };
    let ran = run_jobs::<RuntimeError>(
        &mut engine,
        &model.token_bytes(),
        jobs,
        reward,
        limits,
        &mut |event| {
            if let RunEvent::Finished(result) = event {
                results.push(result);
            }
            Ok(())
        },
    );
    assert!(engine.is_idle(), "nothing is left behind, whatever happened");
    results.sort_by_key(|result| result.job_idx);
    ran.map(|()| results)
}

#[test]
fn results_do_not_depend_on_company_threads_or_order() {
    let (two_threads, one_thread) = (tiny_model::load(2), tiny_model::load(1));
    let reward = CountE::new(Fault::None);
    let together = run(
        &two_threads,
        &jobs(&two_threads, "bon:4", &PROMPTS),
        Some(&reward),
        64,
    )
    .unwrap();
    let mut reversed = PROMPTS;
    reversed.reverse();
    let apart = run(
        &one_thread,
        &jobs(&one_thread, "bon:4", &reversed),
        Some(&reward),
        1,
    )
    .unwrap();
    assert_eq!(together.len(), PROMPTS.len());
    for (a, b) in together.iter().zip(apart.iter().rev()) {
        assert_eq!(a.outcome, b.outcome);
    }
    for result in &together {
        let rewards: Vec<f64> = result
            .outcome
            .candidates
            .iter()
            .map(|c| c.reward.unwrap())
            .collect();
        let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(rewards[result.outcome.chosen], best);
        let text = &result.outcome.candidates[0].text;
        assert_eq!(rewards[0], text.matches('e').count() as f64, "{text:?}");
    }
}

#[test]
fn candidates_of_several_jobs_are_scored_in_one_batch() {
    let model = tiny_model::load(2);
    let reward = CountE::new(Fault::None);
    run(&model, &jobs(&model, "bon:4", &PROMPTS), Some(&reward), 64).unwrap();
    let largest = *reward.largest_batch.lock().unwrap();
    assert!((4..=20).contains(&largest), "largest batch {largest}");
}

#[test]
fn failures_name_prompt_and_candidate() {
    let model = tiny_model::load(1);
    let check = |reward: Option<&dyn RewardModel>, decode: &str, expect: &[&str]| {
        let error = run(&model, &jobs(&model, decode, &PROMPTS), reward, 64)
            .expect_err("must fail")
            .to_string();
        for part in expect {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    };
    let nan = CountE::new(Fault::NanFor("zebra"));
    check(
        Some(&nan),
        "bon:4",
        &["candidate 2 of prompt 3", "a number", "NaN"],
    );
    let refusing = CountE::new(Fault::RefusesBatchWith("zebra"));
    check(
        Some(&refusing),
        "bon:4",
        &["count-e: candidate 2 of prompt 3", "a number", "\"good\""],
    );
    let broken = CountE::new(Fault::OutOfOrder);
    check(Some(&broken), "bon:4", &["out of order", "scoring prompt "]);
    let panicking = CountE::new(Fault::Panics);
    check(Some(&panicking), "bon:4", &["the reward stopped working"]);
    check(None, "bon:4", &["bon:4 chooses by reward"]);
}

#[test]
fn a_bad_response_costs_the_jobs_before_it_nothing() {
    let model = tiny_model::load(1);
    let mut prompts = PROMPTS;
    prompts.swap(3, 4);
    let mut jobs = jobs(&model, "bon:4", &prompts);
    for job in &mut jobs {
        // All end in the same step and are scored in order, however the scoring thread cuts them into batches.
        job.stop.max_new_tokens = 1;
    }
    for fault in [Fault::NanFor("zebra"), Fault::RefusesBatchWith("zebra")] {
        let mut engine = model.engine(8 << 20, EngineConfig::standard()).unwrap();
        let mut finished = Vec::new();
        let ran = run_jobs::<RuntimeError>(
            &mut engine,
            &model.token_bytes(),
            &jobs,
            Some(&CountE::new(fault)),
            RunLimits::standard(),
            &mut |event| {
                if let RunEvent::Finished(result) = event {
                    finished.push(result.job_idx);
                }
                Ok(())
            },
        );
        assert!(ran.is_err(), "{fault:?}");
        finished.sort_unstable();
        assert_eq!(finished, [0, 1, 2, 3], "{fault:?}");
    }
}

#[test]
fn a_job_without_a_label_is_not_called_anything() {
    let model = tiny_model::load(1);
    let mut jobs = jobs(&model, "bon:4", &["zebra"]);
    jobs[0].label.clear();
    let mut check = |new_tokens: usize, expect: &str| {
        jobs[0].stop.max_new_tokens = new_tokens;
        let reward = CountE::new(Fault::NanFor("zebra"));
        let error = run(&model, &jobs, Some(&reward), 64).expect_err("must fail");
        assert!(error.to_string().starts_with(expect), "{error}");
        assert!(
            std::error::Error::source(&error).is_none(),
            "the cause is in the text already"
        );
    };
    check(4, "reward count-e: candidate 2: expected a number");
    check(1000, "prompt of 7 positions plus 1000 new tokens");
    check(0, "max_new_tokens: expected");
}

#[test]
fn errors_of_the_caller_stop_the_run() {
    let model = tiny_model::load(1);
    let jobs = jobs(&model, "sample", &PROMPTS);
    let mut engine = model.engine(8 << 20, EngineConfig::standard()).unwrap();
    let mut seen = 0;
    let ran = run_jobs::<RuntimeError>(
        &mut engine,
        &model.token_bytes(),
        &jobs,
        None,
        RunLimits { max_live_branches: 2 },
        &mut |event| match event {
            RunEvent::Finished(_) => {
                seen += 1;
                Err(RuntimeError::NoReward {
                    decode: "stop here".to_owned(),
                })
            }
            RunEvent::Stepped { .. } | RunEvent::Committed { .. } => Ok(()),
        },
    );
    assert!(ran.unwrap_err().to_string().contains("stop here"));
    assert_eq!((seen, engine.is_idle()), (1, true));
}

#[test]
fn a_missing_vocabulary_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_tiny_model(folder.path()).unwrap();
    std::fs::remove_file(folder.path().join("tokenizer.bin")).unwrap();
    let options = LoadOptions {
        plan: trimtab_model::PrecisionPlan::f32(),
        num_threads: 1,
    };
    let error = LoadedModel::open(&path, options)
        .err()
        .expect("must fail")
        .to_string();
    assert!(
        error.contains("tokenizer.bin is missing") && error.contains("tok285.bin"),
        "{error}"
    );
}

#[test]
fn styles_of_prompts_are_kept_apart() {
    let model = tiny_model::load(1);
    let style = PromptStyle {
        raw: false,
        system: Some("be brief".to_owned()),
    };
    let error = style.encode(model.tokenizer(), "x").unwrap_err().to_string();
    assert!(error.contains("no chat template"), "{error}");
    let empty = PromptStyle::default().encode(model.tokenizer(), "").unwrap();
    assert!(
        !empty.is_empty(),
        "an empty text still begins with the start token"
    );
}

#[test]
fn machines_that_are_too_small_are_an_error() {
    let model = tiny_model::load(1);
    let error = model
        .engine(usize::MAX / 2, EngineConfig::standard())
        .err()
        .expect("no machine has that much address space");
    assert!(error.to_string().contains("keys and values"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = write_tiny_model(folder.path()).unwrap();
    let plan = trimtab_model::PrecisionPlan::f32();
    let error = LoadedModel::open(&path, LoadOptions { plan, num_threads: 0 })
        .err()
        .expect("somebody must work")
        .to_string();
    assert!(error.contains("threads, got 0"), "{error}");
}
