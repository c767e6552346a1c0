//! After a batch: row operations on its logits, decoders fed, events. Knows no blocks and no schedule.
//!
//! A row's operations are applied in the step that computes it and only their answers are kept: a request with more
//! branches than a batch has rows would otherwise hold `[vocab]` logits for each until the last is computed.

use std::sync::OnceLock;

use trimtab_decode::{Answer, DecodeError, Need, RowAnswer, RowOp};

use super::Engine;
use crate::error::EngineError;
use crate::request::{Event, RequestId};
use crate::row_ops;
use crate::sequence::RowState;

/// A row operation to apply: of which request, and its place among the request's needs.
struct Task<'a> {
    request: RequestId,
    place: usize,
    op: &'a RowOp,
    logits: &'a [f32],
}

/// The result of a [`Task`].
struct Done {
    request: RequestId,
    place: usize,
    answer: Result<RowAnswer, DecodeError>,
}

impl Engine {
    /// Feeds every decoder whose need is met, until none is; then this step's rows are gone.
    pub(super) fn postprocess(&mut self, events: &mut Vec<Event>) {
        self.start_prefilled(events);
        loop {
            self.settle(events);
            for done in self.apply_row_ops() {
                self.keep_answer(done, events);
            }
            let ready: Vec<RequestId> = self
                .active
                .iter()
                .filter(|(_, active)| active.rows_answered())
                .map(|(&id, _)| id)
                .collect();
            if ready.is_empty() {
                break;
            }
            for id in ready {
                self.feed_rows(id, events);
            }
        }
        for sequence in self
            .active
            .values_mut()
            .flat_map(|active| active.branches.values_mut())
        {
            sequence.forget_row();
        }
    }

    /// Lets decoders begin whose prompt has been run: forks made earlier would each have prefilled it again.
    fn start_prefilled(&mut self, events: &mut Vec<Event>) {
        let mut failed = Vec::new();
        for (&id, active) in &mut self.active {
            if active.is_prefilled()
                && let Err(error) = active.start(&mut self.blocks)
            {
                failed.push((id, error));
            }
        }
        for (request, error) in failed {
            self.fail(request, error, events);
        }
    }

    /// Turns finished requests and unasked rewards into events.
    fn settle(&mut self, events: &mut Vec<Event>) {
        let mut done = Vec::new();
        for (&id, active) in &mut self.active {
            match &active.need {
                Some(Need::Done) => done.push(id),
                Some(Need::Rewards(candidates)) if !active.rewards_asked => {
                    active.rewards_asked = true;
                    events.push(Event::RewardsWanted {
                        request: id,
                        candidates: candidates.clone(),
                    });
                }
                _ => {}
            }
        }
        for id in done {
            let Some(active) = self.remove(id) else { continue };
            if let Some(outcome) = active.decoder.outcome() {
                events.push(Event::Finished {
                    request: id,
                    outcome: outcome.clone(),
                    usage: active.usage,
                });
            }
        }
    }

    /// Every wanted row operation whose row this step has computed, in parallel.
    fn apply_row_ops(&self) -> Vec<Done> {
        let vocab_len = self.backend.vocab_len();
        let mut tasks = Vec::new();
        for (&request, active) in &self.active {
            for (place, wanted) in active.unanswered() {
                if let Some(RowState::InOutput(idx)) = active.row_of(wanted.branch) {
                    let logits = &self.output.logits[idx * vocab_len..][..vocab_len];
                    let op = &wanted.op;
                    tasks.push(Task {
                        request,
                        place,
                        op,
                        logits,
                    });
                }
            }
        }
        let answers: Vec<OnceLock<Result<RowAnswer, DecodeError>>> =
            tasks.iter().map(|_| OnceLock::new()).collect();
        self.backend.pool().run(tasks.len(), &|task_idx| {
            let task = &tasks[task_idx];
            // Each task sets its own slot once, so a slot that is already set cannot occur.
            let _ = answers[task_idx].set(row_ops::apply(task.op, task.logits));
        });
        let answers = answers.into_iter().map(OnceLock::into_inner);
        let done = tasks.iter().zip(answers).filter_map(|(task, answer)| {
            Some(Done {
                request: task.request,
                place: task.place,
                answer: answer?,
            })
        });
        done.collect()
    }

    fn keep_answer(&mut self, done: Done, events: &mut Vec<Event>) {
        match done.answer {
            Ok(answer) => {
                if let Some(active) = self.active.get_mut(&done.request) {
                    active.answers[done.place] = Some(answer);
                }
            }
            Err(error) => self.fail(done.request, EngineError::from(error), events),
        }
    }

    fn feed_rows(&mut self, id: RequestId, events: &mut Vec<Event>) {
        let Some(active) = self.active.get_mut(&id) else {
            return;
        };
        let rows = std::mem::take(&mut active.answers)
            .into_iter()
            .flatten()
            .collect();
        if let Err(error) = active.feed(Answer::Rows(rows), &mut self.blocks) {
            self.fail(id, error, events);
        }
    }
}
