//! One candidate block, from its first token to its value. Knows no other candidate.

use std::sync::Arc;

use super::block_end::is_block_end;
use super::settings::CdBlockConfig;
use crate::DecodeError;
use crate::inputs::DecoderInputs;
use crate::need::{Action, BranchId, SampledToken};
use crate::row_op::RowAnswer;
use crate::steering::{Steering, ValueSource};
use crate::stop::Response;

/// A candidate block with the response it extends.
pub(super) struct Draw {
    /// Place of its parent among the kept branches.
    pub(super) place: usize,
    /// Which random stream it draws from.
    pub(super) stream_idx: usize,
    /// `None` once nothing more is asked of it and it has ended.
    pub(super) branch: Option<BranchId>,
    /// The parent's response and the block.
    pub(super) response: Response,
    /// Whether it serves the KL estimate alone.
    pub(super) is_audit: bool,
    /// Whether it is no block at all but a branch that had ended before and keeps its place.
    pub(super) is_carried: bool,
    /// One a term, as far as known.
    pub(super) values: Vec<f64>,
    pub(super) progress: Progress,
    block_start: usize,
}

/// How far a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It takes further tokens.
    Growing,
    /// It has ended; the values that come with its last row are missing.
    AwaitsRow,
    /// It has ended; the values that are asked of the caller are missing.
    AwaitsAsked,
    /// It can be compared.
    Valued,
}

impl Draw {
    /// A block without tokens yet.
    pub(super) fn growing(
        place: usize,
        stream_idx: usize,
        branch: BranchId,
        response: Response,
        is_audit: bool,
    ) -> Self {
        Self {
            place,
            stream_idx,
            branch: Some(branch),
            is_audit,
            is_carried: false,
            values: Vec::new(),
            progress: Progress::Growing,
            block_start: response.num_tokens(),
            response,
        }
    }

    /// A branch that has ended, as a candidate for its own place.
    pub(super) fn carried(place: usize, response: &Response, values: &[f64]) -> Self {
        Self {
            place,
            stream_idx: 0,
            branch: None,
            is_audit: false,
            is_carried: true,
            values: values.to_vec(),
            progress: Progress::Valued,
            block_start: response.num_tokens(),
            response: response.clone(),
        }
    }

    /// Whether it waits for a row.
    pub(super) fn wants_row(&self) -> bool {
        matches!(self.progress, Progress::Growing | Progress::AwaitsRow)
    }

    /// Refuses a row that does not fit what is waited for.
    pub(super) fn check(&self, row: &RowAnswer, valuer: &Valuer) -> Result<(), DecodeError> {
        match (self.progress, row) {
            (Progress::Growing, RowAnswer::Sampled(_)) => Ok(()),
            (Progress::AwaitsRow, RowAnswer::Values(values)) => {
                valuer.check_row(values, self.response.num_tokens())
            }
            (progress, row) => Err(DecodeError::UnexpectedAnswer {
                expected: if progress == Progress::Growing {
                    "sampled tokens"
                } else {
                    "state values"
                },
                got: row.kind(),
            }),
        }
    }

    /// Appends a drawn token; at the end of the block asks for what is missing to value it.
    pub(super) fn push(
        &mut self,
        sampled: &SampledToken,
        config: &CdBlockConfig,
        inputs: &DecoderInputs,
        valuer: &Valuer,
        actions: &mut Vec<Action>,
    ) {
        let new_from = self.response.bytes().len();
        let is_finished = self
            .response
            .push(sampled, &inputs.stop, inputs.token_bytes.as_ref());
        let block_len = self.response.num_tokens() - self.block_start;
        let is_end = is_finished
            || config.block_len.is_some_and(|most| block_len >= most)
            || is_block_end(config.block_end, self.response.bytes(), new_from);
        if is_end {
            self.progress = valuer.first_wait();
            self.values = vec![0.0; valuer.num_terms()];
        }
        // The row after the last token is needed for its values, or to go on from it.
        let needs_row = !is_finished || self.progress == Progress::AwaitsRow;
        if let Some(branch) = self.branch {
            if needs_row {
                let token = sampled.token;
                actions.push(Action::Append { branch, token });
            } else {
                self.prune(actions);
            }
        }
    }

    /// Takes the values of its last row.
    pub(super) fn take_row_values(&mut self, row_values: &[f64], valuer: &Valuer, actions: &mut Vec<Action>) {
        for (value, term) in self.values.iter_mut().zip(&valuer.steering.terms) {
            if let ValueSource::Row { scorer } = term.source {
                *value = row_values[scorer];
            }
        }
        self.progress = valuer.wait_after_row();
        if self.response.is_finished() {
            self.prune(actions);
        }
    }

    /// Takes the values that were asked of the caller.
    pub(super) fn take_asked_values(&mut self, asked: &[f64], valuer: &Valuer) {
        let mut asked = asked.iter();
        for (value, term) in self.values.iter_mut().zip(&valuer.steering.terms) {
            if term.source == ValueSource::Asked {
                // One for each such term, as checked.
                *value = asked.next().copied().unwrap_or(*value);
            }
        }
        self.progress = Progress::Valued;
    }

    fn prune(&mut self, actions: &mut Vec<Action>) {
        if let Some(branch) = self.branch.take() {
            actions.push(Action::Prune { branch });
        }
    }
}

/// Where the values of a block come from, and whether they can be compared.
pub(super) struct Valuer {
    steering: Arc<Steering>,
}

impl Valuer {
    pub(super) fn new(steering: Arc<Steering>) -> Self {
        Self { steering }
    }

    pub(super) fn num_terms(&self) -> usize {
        self.steering.terms.len()
    }

    /// The weighted sum that blocks are compared by.
    pub(super) fn mixed(&self, values: &[f64]) -> f64 {
        self.steering.mixed(values)
    }

    fn first_wait(&self) -> Progress {
        let is_row = |source| matches!(source, ValueSource::Row { .. });
        if self.steering.terms.iter().any(|term| is_row(term.source)) {
            Progress::AwaitsRow
        } else {
            Progress::AwaitsAsked
        }
    }

    fn wait_after_row(&self) -> Progress {
        if self.steering.asks_caller() {
            Progress::AwaitsAsked
        } else {
            Progress::Valued
        }
    }

    fn check_row(&self, row_values: &[f64], num_tokens: usize) -> Result<(), DecodeError> {
        for term in &self.steering.terms {
            let ValueSource::Row { scorer } = term.source else {
                continue;
            };
            let value = row_values.get(scorer).ok_or(DecodeError::MissingValues {
                kind: "state",
                scorer,
                num_scorers: row_values.len(),
            })?;
            check_value(&term.name, term.weight, *value, num_tokens)?;
        }
        Ok(())
    }

    /// Refuses values of the caller that are not one finite number for each asked term.
    pub(super) fn check_asked(&self, values: &[f64], num_tokens: usize) -> Result<(), DecodeError> {
        let asked = || {
            self.steering
                .terms
                .iter()
                .filter(|term| term.source == ValueSource::Asked)
        };
        super::check_count("values of a prefix", asked().count(), values.len())?;
        for (term, &value) in asked().zip(values) {
            check_value(&term.name, term.weight, value, num_tokens)?;
        }
        Ok(())
    }
}

/// Blocks are compared by weighted sums, which no infinity may enter. The bound keeps sums of many terms finite too.
fn check_value(name: &str, weight: f64, value: f64, num_tokens: usize) -> Result<(), DecodeError> {
    if (weight * value).abs() < f64::MAX / 1e6 {
        return Ok(());
    }
    Err(DecodeError::UnusableValue {
        name: name.to_owned(),
        num_tokens,
        value,
    })
}
