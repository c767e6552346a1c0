//! After a batch: row operations on its logits, decoders fed, events. Knows no blocks and no schedule.
//!
//! A row's operations are applied in the step that computes it and only their answers are kept: a request with more
//! branches than a batch has rows would otherwise hold `[vocab]` logits for each until the last is computed.

use std::time::Duration;

use trimtab_decode::{Answer, DecodeError, Need, RowAnswer};

use super::Engine;
use super::scoring::{Scoring, Task};
use crate::error::EngineError;
use crate::request::{Event, RequestId};
use crate::sequence::RowState;

/// The answer to a row operation: of which request, and its place among the request's needs.
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

    /// Turns committed tokens, unasked questions and finished requests into events.
    fn settle(&mut self, events: &mut Vec<Event>) {
        let mut done = Vec::new();
        for (&id, active) in &mut self.active {
            let token_ids = active.take_committed();
            if !token_ids.is_empty() {
                events.push(Event::Committed {
                    request: id,
                    token_ids,
                });
            }
            let question = match &active.need {
                Some(Need::Rewards(candidates)) if !active.is_asked => Event::RewardsWanted {
                    request: id,
                    candidates: candidates.clone(),
                },
                Some(Need::Values(prefixes)) if !active.is_asked => Event::ValuesWanted {
                    request: id,
                    prefixes: prefixes.clone(),
                },
                Some(Need::Done) => {
                    done.push(id);
                    continue;
                }
                _ => continue,
            };
            active.is_asked = true;
            events.push(question);
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
    fn apply_row_ops(&mut self) -> Vec<Done> {
        let (mut owners, mut tasks) = (Vec::new(), Vec::new());
        for (&request, active) in &self.active {
            for (place, wanted) in active.unanswered() {
                if let Some(&RowState::InOutput(row_idx)) = active.row_of(wanted.branch) {
                    owners.push((request, place));
                    tasks.push(Task {
                        op: &wanted.op,
                        row_idx,
                    });
                }
            }
        }
        let mut scoring = Scoring {
            pool: self.backend.pool(),
            output: &self.output,
            hidden_len: self.backend.hidden_len(),
            vocab_len: self.backend.vocab_len(),
            scorers: self.scorers.as_deref(),
            tilts: &mut self.tilts,
            time: Duration::ZERO,
        };
        let answers = scoring.apply(&tasks);
        self.stats.scorer_time += scoring.time;
        let done = owners.into_iter().zip(answers);
        done.map(|((request, place), answer)| Done {
            request,
            place,
            answer,
        })
        .collect()
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
