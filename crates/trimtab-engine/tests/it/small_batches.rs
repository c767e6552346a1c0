//! Requests with more branches than a batch has rows: each row is run once, and its logits are not kept.

use std::sync::{Arc, Mutex};

use trimtab_base::TokenId;
use trimtab_decode::{
    Action, Answer, BranchId, DecodeError, Decoder, Need, Outcome, RowAnswer, RowOp, RowRequest,
};
use trimtab_engine::{EngineConfig, Prompt, Request};

use crate::table_backend::{engine, request, run_to_end, tokens};

fn rows_at_once(max_batch_rows: usize) -> EngineConfig {
    EngineConfig {
        max_batch_rows,
        ..EngineConfig::standard()
    }
}

#[test]
fn answers_are_kept_over_steps_so_that_no_row_is_run_twice() {
    let prompt = [1, 2, 3, 1, 2];
    let run = |max_batch_rows: usize| {
        let (mut engine, counts) = engine(400, prompt.len(), rows_at_once(max_batch_rows));
        engine.submit(request("bon:64", &prompt, 1)).expect("fits");
        let mut ended = run_to_end(&mut engine);
        let (outcome, usage) = ended.remove(0).1.expect("no request fails");
        let rows = counts.lock().expect("not poisoned").rows as u64;
        assert_eq!(rows, usage.rows_run);
        (outcome, rows)
    };
    let (at_once, rows) = run(512);
    // Each candidate's last token is not run: nobody asks what would follow it.
    assert_eq!(rows, prompt.len() as u64 + at_once.tokens_generated - 64);
    for max_batch_rows in [1, 3, 63] {
        assert_eq!(run(max_batch_rows), (at_once.clone(), rows), "{max_batch_rows}");
    }
}

/// Forks branches, gives each a token and asks twice what follows, without a token in between.
struct AsksTwice {
    actions: Vec<Action>,
    answers: Vec<Vec<RowAnswer>>,
    seen: Arc<Mutex<Vec<Vec<RowAnswer>>>>,
    outcome: Outcome,
}

const NUM_BRANCHES: u32 = 5;

impl AsksTwice {
    fn new(seen: Arc<Mutex<Vec<Vec<RowAnswer>>>>) -> Self {
        let fork = |child| Action::Fork {
            parent: BranchId::ROOT,
            child: BranchId(child),
        };
        Self {
            actions: (1..NUM_BRANCHES).map(fork).collect(),
            answers: Vec::new(),
            seen,
            outcome: Outcome::unsteered(Vec::new(), 0, 0),
        }
    }
}

impl Decoder for AsksTwice {
    fn next_need(&self) -> Need {
        if self.answers.len() == 6 {
            return Need::Done;
        }
        let request = |branch| RowRequest {
            branch: BranchId(branch),
            op: RowOp::TopLogProbs { count: 3 },
        };
        // The last branch is asked about twice in one need.
        Need::Rows((0..NUM_BRANCHES).chain([NUM_BRANCHES - 1]).map(request).collect())
    }

    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn feed(&mut self, answer: Answer) -> Result<(), DecodeError> {
        if let Answer::Rows(rows) = answer {
            self.answers.push(rows);
        }
        if self.answers.len().is_multiple_of(2) {
            let append = |branch: u32| Action::Append {
                branch: BranchId(branch),
                token: TokenId(1 + branch % 3),
            };
            self.actions.extend((0..NUM_BRANCHES).map(append));
        }
        self.seen.lock().expect("not poisoned").clone_from(&self.answers);
        Ok(())
    }

    fn outcome(&self) -> Option<&Outcome> {
        (self.answers.len() == 6).then_some(&self.outcome)
    }

    fn max_live_branches(&self) -> usize {
        NUM_BRANCHES as usize
    }

    fn max_new_tokens(&self) -> usize {
        3
    }
}

#[test]
fn a_row_asked_for_again_is_the_same_row() {
    // Prompts that end inside a block and at its end, whose cached blocks must not be written.
    for prompt in [[1, 2, 3, 1].as_slice(), &[1, 2, 3, 1, 2, 3]] {
        let run = |max_batch_rows: usize| {
            // Two blocks per branch and two of the prompt: all that is set aside, and no more.
            let num_blocks = NUM_BRANCHES as usize * 2 + 2;
            let (mut engine, _) = engine(num_blocks, prompt.len(), rows_at_once(max_batch_rows));
            let seen = Arc::default();
            for _ in 0..2 {
                let decoder = Box::new(AsksTwice::new(Arc::clone(&seen)));
                let prompt = Prompt::tokens(tokens(prompt));
                engine.submit(Request { prompt, decoder }).expect("fits");
            }
            let ended = run_to_end(&mut engine);
            assert!(ended.iter().all(|(_, result)| result.is_ok()));
            let seen: Vec<Vec<RowAnswer>> = seen.lock().expect("not poisoned").clone();
            seen
        };
        let at_once = run(512);
        assert_eq!(at_once.len(), 6);
        for pair in at_once.chunks(2) {
            assert_eq!(pair[0], pair[1]);
            assert_eq!(pair[0][4], pair[0][5]);
        }
        assert_ne!(at_once[0], at_once[2]);
        for max_batch_rows in [1, 2, 4] {
            assert_eq!(run(max_batch_rows), at_once, "{max_batch_rows}");
        }
    }
}
