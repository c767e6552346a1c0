//! The last phase of every decoder: rewards of finished candidates if they are wanted, then the choice.
//! Knows finished candidates, not how they came to be.

use crate::DecodeError;
use crate::need::{Answer, Candidate, Need, Outcome};
use crate::selection::Selection;

/// When rewards are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Only where the choice depends on them.
    WhenChoosing,
    /// Always, so that every candidate leaves with its reward.
    Always,
}

/// Finished candidates on their way to an [`Outcome`].
pub(crate) struct Selecting {
    outcome: Outcome,
    /// `None` where the choice is made already.
    selection: Option<Selection>,
    wants_rewards: bool,
}

impl Selecting {
    pub(crate) fn new(
        candidates: Vec<Candidate>,
        selection: Selection,
        scoring: Scoring,
        tokens_generated: u64,
    ) -> Self {
        let wants_rewards = scoring == Scoring::Always || selection.needs_rewards();
        let chosen = if wants_rewards {
            0
        } else {
            selection.choose(&candidates)
        };
        Self {
            outcome: Outcome::unsteered(candidates, chosen, tokens_generated),
            selection: Some(selection),
            wants_rewards,
        }
    }

    /// Rewards, if they are always wanted, for an outcome whose choice stays as it is.
    pub(crate) fn of_chosen(outcome: Outcome, scoring: Scoring) -> Self {
        Self {
            outcome,
            selection: None,
            wants_rewards: scoring == Scoring::Always,
        }
    }

    pub(crate) fn next_need(&self) -> Need {
        if self.wants_rewards {
            Need::Rewards(self.outcome.candidates.clone())
        } else {
            Need::Done
        }
    }

    /// Takes the rewards and chooses. On an error nothing has changed.
    pub(crate) fn feed(&mut self, answer: Answer) -> Result<(), DecodeError> {
        let candidates = &mut self.outcome.candidates;
        let rewards = match answer {
            Answer::Rewards(rewards) if self.wants_rewards => rewards,
            Answer::Rewards(_) => {
                return Err(DecodeError::UnexpectedAnswer {
                    expected: "nothing",
                    got: "rewards",
                });
            }
            Answer::Rows(_) => {
                let expected = if self.wants_rewards { "rewards" } else { "nothing" };
                return Err(DecodeError::UnexpectedAnswer {
                    expected,
                    got: "rows",
                });
            }
            Answer::Values(_) => {
                let expected = if self.wants_rewards { "rewards" } else { "nothing" };
                return Err(DecodeError::UnexpectedAnswer {
                    expected,
                    got: "values",
                });
            }
        };
        if rewards.len() != candidates.len() {
            let (expected, got) = (candidates.len(), rewards.len());
            return Err(DecodeError::WrongAnswerCount {
                what: "rewards",
                expected,
                got,
            });
        }
        if let Some((candidate, _)) = candidates
            .iter()
            .zip(&rewards)
            .find(|(_, reward)| reward.is_nan())
        {
            return Err(DecodeError::NanReward {
                candidate_idx: candidate.candidate_idx,
            });
        }
        for (candidate, reward) in candidates.iter_mut().zip(rewards) {
            candidate.reward = Some(reward);
        }
        if let Some(selection) = &self.selection {
            self.outcome.chosen = selection.choose(&self.outcome.candidates);
        }
        self.wants_rewards = false;
        Ok(())
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        (!self.wants_rewards).then_some(&self.outcome)
    }
}
