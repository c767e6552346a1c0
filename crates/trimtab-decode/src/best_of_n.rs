//! N independent samples of which one is chosen: plain sampling, best-of-N, worst-of-N and majority vote.
//!
//! They differ in the rule that chooses and in nothing else; plain sampling is N = 1, greedy is temperature 0.
//! Knows neither the model nor the reward. Law of best-of-N: Stiennon et al. 2020, arXiv 2009.01325; closed form
//! with ties in the tests.

use std::sync::Arc;

use trimtab_base::rng::Purpose;
use trimtab_base::{SampleStream, TokenBytes};

use crate::DecodeError;
use crate::inputs::DecoderInputs;
use crate::need::{Action, Answer, BranchId, Decoder, Need, Outcome, RowRequest};
use crate::row_op::{RowAnswer, RowOp};
use crate::sampling::Sampling;
use crate::selecting::{Scoring, Selecting};
use crate::selection::Selection;
use crate::stop::{Response, StopRules};

/// What is drawn and how one is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct BestOfNConfig {
    /// N, at least 1.
    pub num_candidates: usize,
    /// The policy each candidate is drawn from.
    pub sampling: Sampling,
    /// The rule that chooses.
    pub selection: Selection,
    /// Whether rewards are asked for that the rule does not need.
    pub scoring: Scoring,
}

impl BestOfNConfig {
    /// Most candidates accepted: far beyond use, small enough that a typing error cannot ask for all memory.
    pub const MAX_CANDIDATES: usize = 1 << 20;
}

/// N independent samples and a choice, as a state machine.
///
/// Candidate `i` draws step `t` with the coin `(seed, prompt, i, t)` and lives on branch `i`, so it is the same
/// whatever N, and the first N candidates of a larger run are the run with N.
pub struct BestOfN {
    sampling: Arc<Sampling>,
    stop: StopRules,
    token_bytes: Arc<dyn TokenBytes>,
    streams: Vec<SampleStream>,
    responses: Vec<Response>,
    actions: Vec<Action>,
    phase: Phase,
    selection: Selection,
    scoring: Scoring,
}

enum Phase {
    Drawing,
    Selecting(Selecting),
}

impl BestOfN {
    /// A decoder at its start.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] if N is 0 or a setting is out of range.
    pub fn try_new(config: BestOfNConfig, inputs: DecoderInputs) -> Result<Self, DecodeError> {
        config.sampling.validate()?;
        inputs.stop.validate()?;
        if config.num_candidates == 0 || config.num_candidates > BestOfNConfig::MAX_CANDIDATES {
            let expected = format!("a whole number from 1 to {}", BestOfNConfig::MAX_CANDIDATES);
            return Err(DecodeError::invalid("n", &expected, &config.num_candidates));
        }
        let stream = |idx| SampleStream::new(inputs.seed, inputs.prompt_key, idx, Purpose::Token);
        // The prompt's own branch carries candidate 0; the others start as its copies.
        let forks = (1..config.num_candidates).map(|idx| Action::Fork {
            parent: BranchId::ROOT,
            child: branch_of(idx),
        });
        Ok(Self {
            sampling: Arc::new(config.sampling),
            stop: inputs.stop,
            token_bytes: inputs.token_bytes,
            streams: (0..config.num_candidates as u64).map(stream).collect(),
            responses: vec![Response::default(); config.num_candidates],
            actions: forks.collect(),
            phase: Phase::Drawing,
            selection: config.selection,
            scoring: config.scoring,
        })
    }

    /// Candidates still growing, in order.
    fn live(&self) -> Vec<usize> {
        (0..self.responses.len())
            .filter(|&idx| !self.responses[idx].is_finished())
            .collect()
    }

    fn row_request(&self, idx: usize) -> RowRequest {
        let coin = self.streams[idx].uniform(self.responses[idx].num_tokens() as u64);
        RowRequest {
            branch: branch_of(idx),
            op: RowOp::Sample {
                sampling: Arc::clone(&self.sampling),
                coin,
            },
        }
    }

    fn take_rows(&mut self, rows: &[RowAnswer]) -> Result<(), DecodeError> {
        let live = self.live();
        if rows.len() != live.len() {
            return Err(DecodeError::WrongAnswerCount {
                what: "rows",
                expected: live.len(),
                got: rows.len(),
            });
        }
        for (&idx, row) in live.iter().zip(rows) {
            let RowAnswer::Sampled(sampled) = row else {
                return Err(DecodeError::UnexpectedAnswer {
                    expected: "sampled tokens",
                    got: row.kind(),
                });
            };
            let branch = branch_of(idx);
            let is_finished = self.responses[idx].push(sampled, &self.stop, self.token_bytes.as_ref());
            // The last token is not appended: nobody asks what would follow it.
            let action = if is_finished {
                Action::Prune { branch }
            } else {
                Action::Append {
                    branch,
                    token: sampled.token,
                }
            };
            self.actions.push(action);
        }
        if self.live().is_empty() {
            self.begin_selecting();
        }
        Ok(())
    }

    fn begin_selecting(&mut self) {
        let responses = std::mem::take(&mut self.responses);
        let tokens_generated = responses
            .iter()
            .map(|response| response.num_tokens() as u64)
            .sum();
        let candidates = responses
            .into_iter()
            .zip(0..)
            .filter_map(|(response, idx)| response.into_candidate(idx))
            .collect();
        let selecting = Selecting::new(candidates, self.selection.clone(), self.scoring, tokens_generated);
        self.phase = Phase::Selecting(selecting);
    }
}

fn branch_of(candidate_idx: usize) -> BranchId {
    BranchId(candidate_idx as u32)
}

impl Decoder for BestOfN {
    fn next_need(&self) -> Need {
        match &self.phase {
            Phase::Drawing => Need::Rows(self.live().into_iter().map(|idx| self.row_request(idx)).collect()),
            Phase::Selecting(selecting) => selecting.next_need(),
        }
    }

    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn feed(&mut self, answer: Answer) -> Result<(), DecodeError> {
        match (&mut self.phase, answer) {
            (Phase::Drawing, Answer::Rows(rows)) => self.take_rows(&rows),
            (Phase::Drawing, Answer::Rewards(_) | Answer::Values(_)) => Err(DecodeError::UnexpectedAnswer {
                expected: "rows",
                got: "rewards or values",
            }),
            (Phase::Selecting(selecting), answer) => selecting.feed(answer),
        }
    }

    fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Drawing => None,
            Phase::Selecting(selecting) => selecting.outcome(),
        }
    }

    fn max_live_branches(&self) -> usize {
        self.streams.len()
    }

    fn max_new_tokens(&self) -> usize {
        self.stop.max_new_tokens
    }
}

#[cfg(test)]
mod tests;
