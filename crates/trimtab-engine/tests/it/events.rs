//! Cancelling, failing rewards, and who sees hidden states.

use std::sync::{Arc, Mutex};

use trimtab_decode::BranchId;
use trimtab_engine::engine::RowObserver;
use trimtab_engine::{Engine, EngineConfig, Event, RequestId};

use crate::table_backend::{engine, request, reward, run_to_end};

fn no_cache() -> EngineConfig {
    EngineConfig {
        prefix_cache: false,
        ..EngineConfig::standard()
    }
}

#[test]
fn cancelling_frees_everything_at_once() {
    let (mut engine, _) = engine(60, 4, no_cache());
    let running = engine.submit(request("bon:8", &[1, 2, 3, 1], 1)).expect("fits");
    let queued = engine.submit(request("bon:8", &[1, 2, 3, 1], 2)).expect("fits");
    engine.step().expect("runs");
    engine.step().expect("runs");
    assert!(engine.stats().blocks_held > 0);
    engine.cancel(running).expect("is running");
    engine.cancel(queued).expect("is queued or running");
    assert_eq!((engine.stats().blocks_held, engine.is_idle()), (0, true));
    let twice = engine.cancel(running).expect_err("already cancelled").to_string();
    assert!(twice.contains("not waiting for a cancellation"), "{twice}");
}

/// Answers every reward question; those of `bad` with NaN for candidate 1.
fn run_with_bad_rewards(engine: &mut Engine, bad: RequestId) -> (Vec<RequestId>, Vec<String>) {
    let (mut finished, mut failures) = (Vec::new(), Vec::new());
    while !engine.is_idle() {
        for event in engine.step().expect("runs") {
            match event {
                Event::RewardsWanted { request, candidates } => {
                    let mut rewards: Vec<f64> = candidates.iter().map(|c| reward(&c.text)).collect();
                    if request == bad {
                        rewards[1] = f64::NAN;
                    }
                    if let Err(error) = engine.answer_rewards(request, rewards) {
                        failures.push(error.to_string());
                    }
                }
                Event::Finished { request, .. } => finished.push(request),
                Event::Failed { error, .. } => failures.push(error.to_string()),
                Event::ValuesWanted { .. } | Event::Committed { .. } => {
                    panic!("best-of-N neither asks nor commits")
                }
            }
        }
    }
    (finished, failures)
}

#[test]
fn a_nan_reward_names_its_candidate_and_fails_its_request_alone() {
    let (mut engine, _) = engine(80, 4, no_cache());
    let good = engine.submit(request("bon:4", &[1, 2, 3, 1], 1)).expect("fits");
    let bad = engine.submit(request("bon:4", &[1, 2, 3, 2], 1)).expect("fits");
    let (finished, failures) = run_with_bad_rewards(&mut engine, bad);
    assert_eq!(finished, [good]);
    assert_eq!(failures.len(), 1);
    assert!(failures[0].contains("candidate 1"), "{}", failures[0]);
    assert_eq!(
        engine.stats().blocks_held,
        0,
        "the failed request's blocks are free"
    );
}

#[test]
fn rewards_for_a_request_that_asked_for_none_are_refused() {
    let (mut engine, _) = engine(80, 4, no_cache());
    let id = engine.submit(request("bon:4", &[1, 2, 3, 1], 1)).expect("fits");
    engine.step().expect("runs");
    let message = engine
        .answer_rewards(id, vec![1.0; 4])
        .expect_err("nothing was asked")
        .to_string();
    assert!(message.contains("not waiting for rewards"), "{message}");
    assert_eq!(run_to_end(&mut engine).len(), 1, "the request goes on unharmed");
}

/// Branch, hidden state and logits of every row seen.
type Seen = Arc<Mutex<Vec<(BranchId, f32, Vec<f32>)>>>;

struct Recorder(Seen);

impl RowObserver for Recorder {
    fn on_row(&mut self, _request: RequestId, branch: BranchId, hidden: &[f32], logits: &[f32]) {
        self.0
            .lock()
            .expect("not poisoned")
            .push((branch, hidden[0], logits.to_vec()));
    }
}

#[test]
fn observers_see_the_hidden_state_and_logits_of_each_computed_row() {
    let (mut engine, _) = engine(80, 4, no_cache());
    let seen = Seen::default();
    engine.observe_rows(Box::new(Recorder(Arc::clone(&seen))));
    engine.submit(request("greedy", &[1, 2, 3, 1], 1)).expect("fits");
    let ended = run_to_end(&mut engine);
    let (outcome, _) = ended[0].1.as_ref().expect("no request fails");
    let seen = seen.lock().expect("not poisoned");
    assert_eq!(
        seen.len() as u64,
        outcome.tokens_generated,
        "one row per drawn token"
    );
    let hash = |ids: &[u32]| {
        ids.iter()
            .fold(0.0, |hash: f32, &id| (hash * 5.0 + id as f32) % 9973.0)
    };
    assert_eq!(seen[0].1, hash(&[1, 2, 3, 1]));
    assert!(
        seen.iter()
            .all(|(branch, _, logits)| *branch == BranchId::ROOT && logits.len() == 4)
    );
}
