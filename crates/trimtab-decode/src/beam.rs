//! Beam search: a bounded breadth-first search for the most probable response. Knows no reward and no randomness.
//!
//! At each step all one-token extensions of the live beams are ranked by log-probability under the reference. Finished
//! ones among the first `width` enter the pool of results, the best `width` unfinished ones live on. The search ends
//! when no live beam can still enter the pool, so ending early never changes the result. With a width of at least the
//! number of responses nothing is ever cut and the search is exhaustive; with width 1 it is greedy decoding.

use std::cmp::Ordering;

use trimtab_base::TokenId;

use crate::DecodeError;
use crate::inputs::DecoderInputs;
use crate::need::{Action, Answer, BranchId, Candidate, Decoder, Need, Outcome, RowRequest, SampledToken};
use crate::row_op::{RowAnswer, RowOp};
use crate::selecting::{Scoring, Selecting};
use crate::selection::Selection;
use crate::stop::Response;

/// Settings of beam search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamConfig {
    /// Beams kept per step, and most candidates at the end; from 1 to [`Self::MAX_WIDTH`].
    pub width: usize,
    /// Results are ranked by `log_prob / tokens^length_power`, the stop token counted; finite, at least 0.
    /// 0 (default) finds the most probable response, 1 the one with the most probable tokens on average.
    pub length_power: f64,
}

impl BeamConfig {
    /// Widest beam accepted: far beyond use, small enough that a typing error cannot ask for all memory. Every step
    /// asks for twice as many tokens of each beam as there are beams, some 30 MiB at this width.
    pub const MAX_WIDTH: usize = 1024;

    /// Refuses settings out of range.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] naming the setting, its range and the value.
    pub fn validate(&self) -> Result<(), DecodeError> {
        if self.width == 0 || self.width > Self::MAX_WIDTH {
            let expected = format!("a whole number from 1 to {} (1 is greedy)", Self::MAX_WIDTH);
            return Err(DecodeError::invalid("beam width", &expected, &self.width));
        }
        if !(self.length_power.is_finite() && self.length_power >= 0.0) {
            let expected = "a finite number that is at least 0 (0 ranks by log-probability alone)";
            return Err(DecodeError::invalid(
                "beam length_power",
                expected,
                &self.length_power,
            ));
        }
        Ok(())
    }

    /// Score of a response or, at the greatest length, an upper bound for all extensions of a prefix.
    fn score(&self, log_prob: f64, num_tokens: usize) -> f64 {
        log_prob / (num_tokens as f64).powf(self.length_power)
    }
}

/// Beam search as a state machine.
///
/// The search is deterministic, so as a policy it gives each of its results with certainty: candidates have
/// `log_prob` 0 and `kl_nats` of minus their reference log-probability, as greedy decoding has.
pub struct Beam {
    config: BeamConfig,
    inputs: DecoderInputs,
    scoring: Scoring,
    beams: Vec<LiveBeam>,
    pool: Vec<Finished>,
    next_branch: u32,
    tokens_generated: u64,
    actions: Vec<Action>,
    selecting: Option<Selecting>,
}

struct LiveBeam {
    branch: BranchId,
    response: Response,
}

struct Finished {
    score: f64,
    response: Response,
}

/// One beam with one more token.
struct Extension {
    parent_idx: usize,
    /// Place among the tokens of its parent.
    row_rank: usize,
    token: TokenId,
    step_log_prob: f64,
    log_prob: f64,
}

impl Extension {
    /// Most probable first, ties by rank of the parent, then of the token.
    fn order(&self, other: &Self) -> Ordering {
        let place = |extension: &Self| (extension.parent_idx, extension.row_rank);
        other
            .log_prob
            .total_cmp(&self.log_prob)
            .then_with(|| place(self).cmp(&place(other)))
    }

    fn is_before(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Less
    }
}

/// Extensions of one step that can matter, each list best first.
struct BestExtensions {
    finished: Vec<Extension>,
    unfinished: Vec<Extension>,
}

/// The best `limit` of the extensions offered so far, and at most as many worse ones.
struct Best {
    limit: usize,
    kept: Vec<Extension>,
    /// What is no more probable than this is not among the best.
    floor: f64,
}

impl Best {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Vec::new(),
            floor: f64::NEG_INFINITY,
        }
    }

    /// Extensions must be offered in the order that decides ties.
    fn offer(&mut self, extension: Extension) {
        if extension.log_prob <= self.floor {
            return;
        }
        self.kept.push(extension);
        if self.kept.len() == 2 * self.limit {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.kept.sort_unstable_by(Extension::order);
        self.kept.truncate(self.limit);
        if let Some(worst) = self.kept.get(self.limit - 1) {
            self.floor = worst.log_prob;
        }
    }

    fn into_sorted(mut self) -> Vec<Extension> {
        self.cut();
        self.kept
    }
}

/// An unfinished extension that lives on.
struct Survivor {
    parent_idx: usize,
    token: TokenId,
    response: Response,
}

impl Beam {
    /// A decoder at its start.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] if a setting or a stop rule is out of range.
    pub fn try_new(config: BeamConfig, scoring: Scoring, inputs: DecoderInputs) -> Result<Self, DecodeError> {
        config.validate()?;
        inputs.stop.validate()?;
        Ok(Self {
            config,
            inputs,
            scoring,
            beams: vec![LiveBeam {
                branch: BranchId::ROOT,
                response: Response::default(),
            }],
            pool: Vec::new(),
            next_branch: BranchId::ROOT.0 + 1,
            tokens_generated: 0,
            actions: Vec::new(),
            selecting: None,
        })
    }

    /// Tokens asked for per beam: enough that `width` remain when every stop token is among them, and as many more
    /// for tokens that complete a stop string.
    fn num_extensions(&self) -> usize {
        2 * self.config.width + self.inputs.stop.stop_tokens.len()
    }

    fn take_rows(&mut self, rows: &[RowAnswer]) -> Result<(), DecodeError> {
        let BestExtensions { finished, unfinished } = self.best_extensions(rows)?;
        self.tokens_generated += self.beams.len() as u64;
        // Finished ones count where they rank among all: `rank` of them and those before it in `unfinished` are better.
        for (rank, extension) in finished.iter().enumerate() {
            let better = unfinished.partition_point(|other| other.is_before(extension));
            if rank + better < self.config.width {
                self.add_finished(self.extended(extension));
            }
        }
        let survivors: Vec<Survivor> = unfinished
            .iter()
            .map(|extension| Survivor {
                parent_idx: extension.parent_idx,
                token: extension.token,
                response: self.extended(extension),
            })
            .collect();
        if self.is_settled(&survivors) {
            self.actions.extend(
                self.beams
                    .drain(..)
                    .map(|beam| Action::Prune { branch: beam.branch }),
            );
            self.begin_selecting();
        } else {
            self.reseat(survivors);
        }
        Ok(())
    }

    /// The best `width` finished and the best `width` unfinished extensions with positive probability.
    fn best_extensions(&self, rows: &[RowAnswer]) -> Result<BestExtensions, DecodeError> {
        if rows.len() != self.beams.len() {
            let (expected, got) = (self.beams.len(), rows.len());
            return Err(DecodeError::WrongAnswerCount {
                what: "rows",
                expected,
                got,
            });
        }
        let mut finished = Best::new(self.config.width);
        let mut unfinished = Best::new(self.config.width);
        for (parent_idx, (beam, row)) in self.beams.iter().zip(rows).enumerate() {
            let RowAnswer::Top(top) = row else {
                return Err(DecodeError::UnexpectedAnswer {
                    expected: "top log-probabilities",
                    got: row.kind(),
                });
            };
            for (row_rank, &(token, step_log_prob)) in top.iter().enumerate() {
                let extension = Extension {
                    parent_idx,
                    row_rank,
                    token,
                    step_log_prob,
                    log_prob: beam.response.reference_log_prob() + step_log_prob,
                };
                // Whether it ends is looked up only for those that could stay.
                if extension.log_prob <= finished.floor.min(unfinished.floor) {
                    continue;
                }
                let token_bytes = self.inputs.token_bytes.as_ref();
                let ends = beam.response.would_end(token, &self.inputs.stop, token_bytes);
                let list = if ends { &mut finished } else { &mut unfinished };
                list.offer(extension);
            }
        }
        Ok(BestExtensions {
            finished: finished.into_sorted(),
            unfinished: unfinished.into_sorted(),
        })
    }

    fn extended(&self, extension: &Extension) -> Response {
        let mut response = self.beams[extension.parent_idx].response.clone();
        let certain = SampledToken {
            token: extension.token,
            log_prob: 0.0,
            reference_log_prob: extension.step_log_prob,
            kl_nats: -extension.step_log_prob,
        };
        response.push(&certain, &self.inputs.stop, self.inputs.token_bytes.as_ref());
        response
    }

    /// Keeps the pool sorted, best first, earlier before later among equals, and at most `width` long.
    fn add_finished(&mut self, response: Response) {
        let score = self
            .config
            .score(response.reference_log_prob(), response.num_tokens());
        let place = self.pool.partition_point(|other| other.score >= score);
        self.pool.insert(place, Finished { score, response });
        self.pool.truncate(self.config.width);
    }

    /// Whether no survivor can still enter the pool. Log-probabilities only fall as a response grows, and dividing
    /// by the greatest length raises them most.
    fn is_settled(&self, survivors: &[Survivor]) -> bool {
        let Some(best) = survivors.first() else {
            return true;
        };
        let bound = self.config.score(
            best.response.reference_log_prob(),
            self.inputs.stop.max_new_tokens,
        );
        self.pool.len() == self.config.width && self.pool.last().is_some_and(|worst| bound <= worst.score)
    }

    /// Moves survivors onto branches: the first child of a beam inherits its branch, further children fork from it.
    ///
    /// Prunes come first, so that never more than `width` branches are alive; appends last, so that forks copy the
    /// parent as it was.
    fn reseat(&mut self, survivors: Vec<Survivor>) {
        let mut heirless: Vec<bool> = vec![true; self.beams.len()];
        let (mut forks, mut appends, mut beams) = (Vec::new(), Vec::new(), Vec::new());
        for Survivor {
            parent_idx,
            token,
            response,
        } in survivors
        {
            let parent = self.beams[parent_idx].branch;
            let branch = if std::mem::take(&mut heirless[parent_idx]) {
                parent
            } else {
                self.fresh_branch()
            };
            if branch != parent {
                forks.push(Action::Fork {
                    parent,
                    child: branch,
                });
            }
            appends.push(Action::Append { branch, token });
            beams.push(LiveBeam { branch, response });
        }
        let pruned = self.beams.iter().zip(heirless).filter(|(_, heirless)| *heirless);
        self.actions
            .extend(pruned.map(|(beam, _)| Action::Prune { branch: beam.branch }));
        self.actions.extend(forks.into_iter().chain(appends));
        self.beams = beams;
    }

    fn fresh_branch(&mut self) -> BranchId {
        let branch = BranchId(self.next_branch);
        self.next_branch += 1;
        branch
    }

    fn begin_selecting(&mut self) {
        let finished = std::mem::take(&mut self.pool).into_iter().zip(0..);
        let candidates: Vec<Candidate> = finished
            .filter_map(|(finished, idx)| finished.response.into_candidate(idx))
            .collect();
        self.selecting = Some(Selecting::new(
            candidates,
            Selection::First,
            self.scoring,
            self.tokens_generated,
        ));
    }
}

impl Decoder for Beam {
    fn next_need(&self) -> Need {
        if let Some(selecting) = &self.selecting {
            return selecting.next_need();
        }
        let op = RowOp::TopLogProbs {
            count: self.num_extensions(),
        };
        Need::Rows(
            self.beams
                .iter()
                .map(|beam| RowRequest {
                    branch: beam.branch,
                    op: op.clone(),
                })
                .collect(),
        )
    }

    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn feed(&mut self, answer: Answer) -> Result<(), DecodeError> {
        match (&mut self.selecting, answer) {
            (Some(selecting), answer) => selecting.feed(answer),
            (None, Answer::Rows(rows)) => self.take_rows(&rows),
            (None, Answer::Rewards(_) | Answer::Values(_)) => Err(DecodeError::UnexpectedAnswer {
                expected: "rows",
                got: "rewards or values",
            }),
        }
    }

    fn outcome(&self) -> Option<&Outcome> {
        self.selecting.as_ref().and_then(Selecting::outcome)
    }

    fn max_live_branches(&self) -> usize {
        self.config.width
    }

    fn max_new_tokens(&self) -> usize {
        self.inputs.stop.max_new_tokens
    }
}

#[cfg(test)]
mod tests;
