//! Blockwise controlled decoding: draw K blocks of M tokens, keep the one of greatest value, go on (CD Eq. 7).
//!
//! A block ends at M tokens, at the end of the response, or at a newline or sentence if asked. Where it ends its value
//! is looked up; of the candidates one is kept, the others are pruned at once, and the winner becomes the parent of the
//! next K, so nothing is ever encoded twice. With M at least the length of responses this is best-of-K, draw for draw.
//!
//! Extensions: keep the best B branches instead of one; keep at random in proportion to `exp(value / temperature)`; stop
//! choosing once a value is reached or a token budget is spent. Knows neither the model nor where values come from.

mod block_end;
mod choice;
mod draws;
mod drift;
mod kept;
mod settings;

use std::collections::HashSet;
use std::sync::Arc;

use trimtab_base::rng::Purpose;
use trimtab_base::{SampleStream, TokenId};

use crate::DecodeError;
use crate::inputs::DecoderInputs;
use crate::need::{Action, Answer, BranchId, Decoder, Need, Outcome, RowRequest};
use crate::row_op::{RowAnswer, RowOp};
use crate::sampling::Sampling;
use crate::selecting::{Scoring, Selecting};
use crate::steering::ValueSource;
use crate::stop::Response;
use crate::trace::{TraceStep, TracedBlock};

use choice::{Chooser, Chosen, Contender};
use draws::{Draw, Progress, Valuer};
use drift::Drift;
use kept::{Kept, KeptBranches};

pub use settings::{BlockChoice, BlockEnd, CdBlockConfig};

/// Blockwise controlled decoding as a state machine.
///
/// Candidate `k` of kept branch `b` draws token `t` of the response with the coin `(seed, prompt, b K + k, t)`; blocks
/// for the KL estimate have the indices after them. So whatever M, the candidates of the first block are the beginnings
/// of best-of-K's candidates, and with K = 1 the response is that of plain sampling.
pub struct CdBlock {
    config: CdBlockConfig,
    sampling: Arc<Sampling>,
    inputs: DecoderInputs,
    scoring: Scoring,
    valuer: Valuer,
    chooser: Chooser,
    streams: Vec<SampleStream>,
    kept: KeptBranches,
    draws: Vec<Draw>,
    phase: Phase,
    next_branch: u32,
    num_choices: u64,
    tokens_generated: u64,
    committed: Vec<TokenId>,
    tokens_to_first_commit: Option<u64>,
    drift: Drift,
    trace: Vec<TraceStep>,
    actions: Vec<Action>,
}

enum Phase {
    /// Candidates of the next choice are drawn and valued.
    Choosing,
    /// The one kept branch is sampled to its end.
    Continuing(BranchId),
    Selecting(Selecting),
}

impl CdBlock {
    /// A decoder at its start.
    ///
    /// # Errors
    /// [`DecodeError::NoScorer`] without steering, [`DecodeError::InvalidSetting`] if a setting or a stop rule is out
    /// of range, or settings exclude each other.
    pub fn try_new(
        config: CdBlockConfig,
        scoring: Scoring,
        inputs: DecoderInputs,
    ) -> Result<Self, DecodeError> {
        config.validate()?;
        inputs.stop.validate()?;
        inputs.steering.require("cd-block")?;
        config.check_floor(inputs.steering.floor)?;
        let stream = |idx| SampleStream::new(inputs.seed, inputs.prompt_key, idx, Purpose::Token);
        let mut decoder = Self {
            sampling: Arc::new(config.sampling),
            scoring,
            valuer: Valuer::new(Arc::clone(&inputs.steering)),
            chooser: Chooser::new(&config, &inputs),
            streams: (0..config.num_draws() as u64).map(stream).collect(),
            kept: KeptBranches::of_prompt(config.beams),
            draws: Vec::new(),
            phase: Phase::Choosing,
            next_branch: BranchId::ROOT.0 + 1,
            num_choices: 0,
            tokens_generated: 0,
            committed: Vec::new(),
            tokens_to_first_commit: None,
            drift: Drift::new(&config, inputs.steering.floor.is_some()),
            trace: Vec::new(),
            actions: Vec::new(),
            inputs,
            config,
        };
        decoder.go_on();
        Ok(decoder)
    }

    /// After a choice, and at the start: the next one if it may be made, else one plain continuation, else the end.
    fn go_on(&mut self) {
        let best = self.chooser.best(&self.kept.contenders());
        if self.kept.have_all_ended() {
            self.begin_selecting(best);
        } else if self.is_enough(best) || !self.is_within_budget() {
            self.begin_continuing(best);
        } else {
            self.begin_choice();
        }
    }

    fn is_enough(&self, best: usize) -> bool {
        let best = self.kept.at(best);
        let target = self.config.target;
        best.num_blocks > 0 && target.is_some_and(|target| best.mixed_value >= target)
    }

    fn is_within_budget(&self) -> bool {
        let more = self
            .kept
            .greatest_cost(&self.config, self.inputs.stop.max_new_tokens);
        let budget = self.config.token_budget;
        budget.is_none_or(|budget| self.tokens_generated.saturating_add(more) <= budget)
    }

    /// Keeps one branch and samples it to its end.
    fn begin_continuing(&mut self, best: usize) {
        self.kept.keep_only(best, &mut self.actions);
        self.commit();
        match self.kept.at(0).branch {
            Some(branch) => self.phase = Phase::Continuing(branch),
            None => self.begin_selecting(0),
        }
    }

    /// Forks the candidates of the next choice. The first child of a branch inherits it, further ones are its copies.
    fn begin_choice(&mut self) {
        self.num_choices += 1;
        let mut inherited: HashSet<BranchId> = HashSet::new();
        let num_candidates = self.config.num_candidates;
        for place in self.kept.places() {
            let kept = self.kept.at(place);
            let Some(parent) = kept.branch else {
                self.draws
                    .push(Draw::carried(place, &kept.response, &kept.values));
                continue;
            };
            let num_children = num_candidates + self.config.audit;
            for child in 0..num_children {
                let branch = if inherited.insert(parent) {
                    parent
                } else {
                    self.fork(parent)
                };
                let is_audit = child >= num_candidates;
                // Only a single branch has audit blocks, so their indices come after all candidates'.
                let stream_idx = place * num_candidates + child;
                let response = self.kept.at(place).response.clone();
                self.draws
                    .push(Draw::growing(place, stream_idx, branch, response, is_audit));
            }
        }
    }

    fn fork(&mut self, parent: BranchId) -> BranchId {
        let child = BranchId(self.next_branch);
        self.next_branch += 1;
        self.actions.push(Action::Fork { parent, child });
        child
    }

    fn sample_request(&self, branch: BranchId, stream_idx: usize, response: &Response) -> RowRequest {
        RowRequest {
            branch,
            op: RowOp::Sample {
                sampling: Arc::clone(&self.sampling),
                coin: self.streams[stream_idx].uniform(response.num_tokens() as u64),
            },
        }
    }

    /// One row of each candidate that still grows or waits for the values of its last row, in order.
    fn choosing_need(&self) -> Need {
        let request = |draw: &Draw| {
            let branch = draw.branch?;
            match draw.progress {
                Progress::Growing => Some(self.sample_request(branch, draw.stream_idx, &draw.response)),
                Progress::AwaitsRow => Some(RowRequest {
                    branch,
                    op: RowOp::StateValues,
                }),
                Progress::AwaitsAsked | Progress::Valued => None,
            }
        };
        let rows: Vec<RowRequest> = self.draws.iter().filter_map(request).collect();
        if !rows.is_empty() {
            return Need::Rows(rows);
        }
        let asked = self
            .draws
            .iter()
            .filter(|draw| draw.progress == Progress::AwaitsAsked);
        Need::Values(asked.map(|draw| draw.response.prefix()).collect())
    }

    fn take_candidate_rows(&mut self, rows: &[RowAnswer]) -> Result<(), DecodeError> {
        let waiting: Vec<usize> = (0..self.draws.len())
            .filter(|&idx| self.draws[idx].wants_row())
            .collect();
        check_count("rows", waiting.len(), rows.len())?;
        for (&idx, row) in waiting.iter().zip(rows) {
            self.draws[idx].check(row, &self.valuer)?;
        }
        for (&idx, row) in waiting.iter().zip(rows) {
            let draw = &mut self.draws[idx];
            match row {
                RowAnswer::Sampled(sampled) => {
                    draw.push(
                        sampled,
                        &self.config,
                        &self.inputs,
                        &self.valuer,
                        &mut self.actions,
                    );
                    self.tokens_generated += 1;
                }
                RowAnswer::Values(values) => draw.take_row_values(values, &self.valuer, &mut self.actions),
                _ => {}
            }
        }
        self.choose_if_valued();
        Ok(())
    }

    fn take_asked(&mut self, values: &[Vec<f64>]) -> Result<(), DecodeError> {
        let awaits = |draw: &Draw| draw.progress == Progress::AwaitsAsked;
        let waiting = self.draws.iter().filter(|draw| awaits(draw)).count();
        check_count("prefixes' values", waiting, values.len())?;
        for (draw, values) in self.draws.iter().filter(|draw| awaits(draw)).zip(values) {
            self.valuer.check_asked(values, draw.response.num_tokens())?;
        }
        for (draw, values) in self.draws.iter_mut().filter(|draw| awaits(draw)).zip(values) {
            draw.take_asked_values(values, &self.valuer);
        }
        self.choose_if_valued();
        Ok(())
    }

    fn choose_if_valued(&mut self) {
        if self.draws.iter().any(|draw| draw.progress != Progress::Valued) {
            return;
        }
        let draws = std::mem::take(&mut self.draws);
        let (candidates, audit): (Vec<Draw>, Vec<Draw>) = draws.into_iter().partition(|draw| !draw.is_audit);
        let contenders = self.contenders(&candidates);
        let chosen = self.chooser.keep(&contenders, self.num_choices - 1);
        if self.config.audit > 0 {
            let audit_values: Vec<f64> = audit.iter().map(|draw| self.valuer.mixed(&draw.values)).collect();
            let kept_value = contenders[chosen.kept[0]].mixed_value;
            self.drift.add_estimate(kept_value, &audit_values);
        }
        if self.inputs.trace {
            let mixed_value = |idx: usize| chosen.mixed_value(&contenders[idx]);
            let traced = candidates.iter().enumerate();
            let traced = traced.map(|(idx, draw)| self.traced(draw, mixed_value(idx), chosen.keeps(idx)));
            let step = TraceStep::Block {
                committed_len: self.committed.len(),
                candidates: traced.collect(),
            };
            self.trace.push(step);
        }
        self.reseat(&candidates, &audit, &chosen);
        self.go_on();
    }

    fn contenders<'a>(&self, candidates: &'a [Draw]) -> Vec<Contender<'a>> {
        let contender = |draw: &'a Draw| Contender {
            mixed_value: self.valuer.mixed(&draw.values),
            parent_mixed_value: self.kept.at(draw.place).mixed_value,
            values: &draw.values,
            num_copies: if draw.is_carried {
                self.config.num_candidates
            } else {
                1
            },
        };
        candidates.iter().map(contender).collect()
    }

    /// Makes the chosen candidates the kept branches and prunes all others.
    fn reseat(&mut self, candidates: &[Draw], audit: &[Draw], chosen: &Chosen) {
        let losers = candidates
            .iter()
            .enumerate()
            .filter(|&(idx, _)| !chosen.keeps(idx));
        let losers = losers.map(|(_, draw)| draw).chain(audit);
        let pruned = losers.filter_map(|draw| draw.branch);
        self.actions.extend(pruned.map(|branch| Action::Prune { branch }));
        let kept = chosen.kept.iter().map(|&idx| {
            let draw = &candidates[idx];
            Kept {
                branch: draw.branch,
                response: draw.response.clone(),
                values: draw.values.clone(),
                mixed_value: self.valuer.mixed(&draw.values),
                num_blocks: self.kept.at(draw.place).num_blocks + u64::from(!draw.is_carried),
            }
        });
        self.kept = KeptBranches::of(kept.collect());
        self.commit();
    }

    fn traced(&self, draw: &Draw, mixed_value: f64, is_kept: bool) -> TracedBlock {
        let parent = &self.kept.at(draw.place).response;
        let token_ids = draw.response.token_ids()[parent.num_tokens()..].to_vec();
        TracedBlock {
            parent: draw.place,
            text: self.inputs.token_bytes.text_of(&token_ids),
            token_ids,
            reference_log_prob: draw.response.reference_log_prob() - parent.reference_log_prob(),
            values: draw.values.clone(),
            mixed_value,
            is_kept,
        }
    }

    /// Commits what all kept branches share.
    fn commit(&mut self) {
        let new = self.kept.shared_tokens()[self.committed.len()..].to_vec();
        self.commit_tokens(&new);
    }

    fn commit_tokens(&mut self, tokens: &[TokenId]) {
        self.committed.extend_from_slice(tokens);
        if !self.committed.is_empty() {
            self.tokens_to_first_commit.get_or_insert(self.tokens_generated);
        }
    }

    fn take_continuation(&mut self, branch: BranchId, rows: &[RowAnswer]) -> Result<(), DecodeError> {
        check_count("rows", 1, rows.len())?;
        let RowAnswer::Sampled(sampled) = &rows[0] else {
            return Err(DecodeError::UnexpectedAnswer {
                expected: "sampled tokens",
                got: rows[0].kind(),
            });
        };
        let (rules, bytes) = (&self.inputs.stop, self.inputs.token_bytes.as_ref());
        let is_finished = self.kept.at_mut(0).response.push(sampled, rules, bytes);
        self.tokens_generated += 1;
        self.commit_tokens(&[sampled.token]);
        if is_finished {
            self.actions.push(Action::Prune { branch });
            self.begin_selecting(0);
        } else {
            let token = sampled.token;
            self.actions.push(Action::Append { branch, token });
        }
        Ok(())
    }

    fn begin_selecting(&mut self, best: usize) {
        let kept = self.kept.take();
        let answer = &kept[best];
        let rest = answer.response.token_ids()[self.committed.len()..].to_vec();
        self.commit_tokens(&rest);
        let (num_blocks, values) = (answer.num_blocks, answer.values.clone());
        let candidates = kept
            .into_iter()
            .zip(0..)
            .filter_map(|(kept, idx)| kept.response.into_candidate(idx))
            .collect();
        let outcome = Outcome {
            block_kl: Some(self.drift.of_answer(num_blocks)),
            tokens_to_first_commit: self.tokens_to_first_commit,
            values,
            trace: std::mem::take(&mut self.trace),
            ..Outcome::unsteered(candidates, best, self.tokens_generated)
        };
        self.phase = Phase::Selecting(Selecting::of_chosen(outcome, self.scoring));
    }
}

fn check_count(what: &'static str, expected: usize, got: usize) -> Result<(), DecodeError> {
    if expected == got {
        Ok(())
    } else {
        Err(DecodeError::WrongAnswerCount { what, expected, got })
    }
}

impl Decoder for CdBlock {
    fn next_need(&self) -> Need {
        match &self.phase {
            Phase::Selecting(selecting) => selecting.next_need(),
            // Candidate 0 has not drawn beyond what is kept, so its coins are fresh.
            Phase::Continuing(branch) => {
                Need::Rows(vec![self.sample_request(*branch, 0, &self.kept.at(0).response)])
            }
            Phase::Choosing => self.choosing_need(),
        }
    }

    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn feed(&mut self, answer: Answer) -> Result<(), DecodeError> {
        if let Phase::Selecting(selecting) = &mut self.phase {
            return selecting.feed(answer);
        }
        let wants_rows = self.draws.is_empty() || self.draws.iter().any(Draw::wants_row);
        match (&self.phase, answer) {
            (&Phase::Continuing(branch), Answer::Rows(rows)) => self.take_continuation(branch, &rows),
            (_, Answer::Rows(rows)) if wants_rows => self.take_candidate_rows(&rows),
            (_, Answer::Values(values)) if !wants_rows => self.take_asked(&values),
            (_, answer) => Err(DecodeError::UnexpectedAnswer {
                expected: if wants_rows { "rows" } else { "values" },
                got: answer.kind(),
            }),
        }
    }

    fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Selecting(selecting) => selecting.outcome(),
            _ => None,
        }
    }

    fn committed(&self) -> &[TokenId] {
        &self.committed
    }

    fn max_live_branches(&self) -> usize {
        self.config.num_draws()
    }

    fn max_new_tokens(&self) -> usize {
        let terms = &self.inputs.steering.terms;
        let reads_rows = terms
            .iter()
            .any(|term| matches!(term.source, ValueSource::Row { .. }));
        // The row of the last token is asked for its values, so it takes a position as the others do.
        self.inputs
            .stop
            .max_new_tokens
            .saturating_add(usize::from(reads_rows))
    }
}

#[cfg(test)]
mod tests;
