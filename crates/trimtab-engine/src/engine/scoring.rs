//! Row operations of a step with what they want of prefix scorers. Knows rows, not whose they are.
//!
//! What is computed for many rows at once is a function of each row alone, to the last bit, so that an answer does not
//! depend on which requests share a step.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use trimtab_base::TokenId;
use trimtab_decode::{DecodeError, Guide, GuidedToken, Row, RowAnswer, RowOp, SampledToken, Sampling};
use trimtab_kernels::pool::Pool;
use trimtab_kernels::vocab::sample_guided_row;
use trimtab_model::forward::ForwardOutput;
use trimtab_scorer::{ActionRows, ScorerSet};

use crate::row_ops;

/// Rows whose tilts are held at once: enough for a full product, and memory of a fraction of the logits.
const TILTED_ROWS: usize = 64;

/// A row operation and the row of the step's output that it reads.
pub(super) struct Task<'a> {
    pub(super) op: &'a RowOp,
    pub(super) row_idx: usize,
}

/// One step's outputs and scorers.
pub(super) struct Scoring<'a> {
    pub(super) pool: &'a Pool,
    pub(super) output: &'a ForwardOutput,
    pub(super) hidden_len: usize,
    pub(super) vocab_len: usize,
    pub(super) scorers: Option<&'a ScorerSet>,
    /// Memory for tilts, kept between steps. `[TILTED_ROWS, vocab]`
    pub(super) tilts: &'a mut Vec<f32>,
    /// What the scorers have taken.
    pub(super) time: Duration,
}

type Answers = [OnceLock<Result<RowAnswer, DecodeError>>];

/// A draw whose tilt is one product over the vocabulary, by its place among the tasks.
struct Guided<'a> {
    task_idx: usize,
    row_idx: usize,
    op: &'a RowOp,
    sampling: &'a Sampling,
    guide: &'a Guide,
    coin: f64,
}

impl Scoring<'_> {
    /// The answer to each task, in order.
    pub(super) fn apply(&mut self, tasks: &[Task<'_>]) -> Vec<Result<RowAnswer, DecodeError>> {
        let answers: Vec<_> = tasks.iter().map(|_| OnceLock::new()).collect();
        let (mut guided, mut valued, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (task_idx, task) in tasks.iter().enumerate() {
            match task.op {
                RowOp::StateValues => valued.push((task_idx, task.row_idx)),
                op => match self.as_guided(task_idx, task.row_idx, op) {
                    Some(draw) => guided.push(draw),
                    None => others.push(task_idx),
                },
            }
        }
        self.look_up_states(&valued, &answers);
        for draws in guided.chunks(TILTED_ROWS) {
            self.draw_guided(draws, &answers);
        }
        self.pool.run(others.len(), &|idx| {
            let task = &tasks[others[idx]];
            answer(&answers[others[idx]], self.apply_alone(task.op, task.row_idx));
        });
        let answers = answers.into_iter().map(OnceLock::into_inner);
        answers
            .map(|answer| answer.expect("each task is in one of three lists, which are all answered"))
            .collect()
    }

    /// The draw that the vectorised path can make; others have a slow reference.
    fn as_guided<'a>(&self, task_idx: usize, row_idx: usize, op: &'a RowOp) -> Option<Guided<'a>> {
        let RowOp::SampleGuided {
            sampling,
            guide,
            coin,
        } = op
        else {
            return None;
        };
        let scorers = self.scorers?;
        let is_plain = sampling.is_plain() && sampling.temperature > 0.0 && guide.floor.is_none();
        let has_values = guide.terms.iter().all(|term| scorers.has_action(term.scorer));
        (is_plain && has_values).then_some(Guided {
            task_idx,
            row_idx,
            op,
            sampling,
            guide,
            coin: *coin,
        })
    }

    /// State values of all rows that want them: one pass through each scorer's head.
    fn look_up_states(&mut self, valued: &[(usize, usize)], answers: &Answers) {
        let Some(scorers) = self.scorers.filter(|_| !valued.is_empty()) else {
            for &(task_idx, row_idx) in valued {
                answer(&answers[task_idx], self.apply_alone(&RowOp::StateValues, row_idx));
            }
            return;
        };
        let start = Instant::now();
        let hidden = self.gather(valued.iter().map(|&(_, row_idx)| row_idx));
        let mut values = vec![0.0; valued.len() * scorers.num_scorers()];
        scorers.state_values(self.pool, &hidden, &mut values);
        self.time += start.elapsed();
        for (&(task_idx, row_idx), state_values) in
            valued.iter().zip(values.chunks_exact(scorers.num_scorers()))
        {
            let row = Row {
                state_values,
                ..Row::of_logits(self.logits(row_idx))
            };
            answer(&answers[task_idx], RowOp::StateValues.apply_row(&row));
        }
    }

    /// Draws whose tilts are made together: directions of each row's scorers are mixed, then multiplied by the features
    /// of all tokens.
    fn draw_guided(&mut self, draws: &[Guided<'_>], answers: &Answers) {
        let Some(scorers) = self.scorers else { return };
        let start = Instant::now();
        let hidden = self.gather(draws.iter().map(|draw| draw.row_idx));
        let num_scorers = scorers.num_scorers();
        let mut weights = vec![None; draws.len() * num_scorers];
        for (draw, weights) in draws.iter().zip(weights.chunks_exact_mut(num_scorers)) {
            for term in &draw.guide.terms {
                *weights[term.scorer].get_or_insert(0.0) += term.weight;
            }
        }
        let mut tilts = std::mem::take(self.tilts);
        tilts.resize(draws.len() * self.vocab_len, 0.0);
        let actions = scorers.tilts(self.pool, &hidden, &weights, &mut tilts);
        self.time += start.elapsed();
        self.pool.run(draws.len(), &|place| {
            let draw = &draws[place];
            let tilt = &tilts[place * self.vocab_len..][..self.vocab_len];
            let drawn = draw.sample(self.logits(draw.row_idx), tilt, scorers, (&actions, place));
            // The reference names what is wrong with the row or its values.
            let drawn = drawn.map_or_else(|| self.apply_alone(draw.op, draw.row_idx), Ok);
            answer(&answers[draw.task_idx], drawn);
        });
        *self.tilts = tilts;
    }

    /// One operation without others: vectorised where it wants no values, else the slow reference with the values of
    /// every token.
    fn apply_alone(&self, op: &RowOp, row_idx: usize) -> Result<RowAnswer, DecodeError> {
        let logits = self.logits(row_idx);
        let (RowOp::SampleGuided { guide, .. }, Some(scorers)) = (op, self.scorers) else {
            return row_ops::apply(op, logits);
        };
        let mut action_values = vec![Vec::new(); scorers.num_scorers()];
        for term in &guide.terms {
            if scorers.has_action(term.scorer) && action_values[term.scorer].is_empty() {
                let mut values = vec![0.0; self.vocab_len];
                scorers.action_values(self.pool, term.scorer, self.hidden(row_idx), &mut values);
                action_values[term.scorer] = values;
            }
        }
        op.apply_row(&Row {
            action_values: &action_values,
            ..Row::of_logits(logits)
        })
    }

    /// Hidden states of some rows, one after the other. `[rows, hidden]`
    fn gather(&self, row_idxs: impl Iterator<Item = usize>) -> Vec<f32> {
        row_idxs
            .flat_map(|row_idx| self.hidden(row_idx))
            .copied()
            .collect()
    }

    fn hidden(&self, row_idx: usize) -> &[f32] {
        &self.output.hidden[row_idx * self.hidden_len..][..self.hidden_len]
    }

    fn logits(&self, row_idx: usize) -> &[f32] {
        &self.output.logits[row_idx * self.vocab_len..][..self.vocab_len]
    }
}

impl Guided<'_> {
    /// `None` if logits or tilts are not usable. `actions` with the draw's row in them.
    fn sample(
        &self,
        logits: &[f32],
        tilt: &[f32],
        scorers: &ScorerSet,
        (actions, row_idx): (&ActionRows, usize),
    ) -> Option<RowAnswer> {
        let row = sample_guided_row(logits, tilt, 1.0 / self.sampling.temperature as f32, self.coin)?;
        let token = TokenId(row.token_idx);
        let terms = self.guide.terms.iter();
        Some(RowAnswer::Guided(GuidedToken {
            sampled: SampledToken {
                token,
                log_prob: row.log_prob,
                reference_log_prob: row.reference_log_prob,
                kl_nats: row.kl_nats,
            },
            values: terms
                .clone()
                .map(|term| scorers.action_value(actions, row_idx, term.scorer, token))
                .collect(),
            weights: terms.map(|term| term.weight).collect(),
        }))
    }
}

/// Sets an answer; no task is answered twice.
fn answer(slot: &OnceLock<Result<RowAnswer, DecodeError>>, answer: Result<RowAnswer, DecodeError>) {
    let _ = slot.set(answer);
}

#[cfg(test)]
mod tests;
