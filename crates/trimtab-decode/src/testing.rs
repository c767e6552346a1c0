//! A driver that runs a decoder against plain functions and asserts the protocol, for tests and examples.
//! Knows no batch and no cache: every row is computed afresh from the branch's tokens.

use std::collections::HashMap;

use trimtab_base::TokenId;

use crate::DecodeError;
use crate::need::{Action, Answer, BranchId, Candidate, Decoder, Need, Outcome, Prefix, RowRequest};
use crate::row_op::Row;

/// Prefix scorers as plain functions of the tokens of a branch, prompt not included.
pub trait Scorers {
    /// `V([x, y^t])` under each scorer. `[scorers]`
    fn state_values(&mut self, tokens: &[TokenId]) -> Vec<f32>;

    /// `V([x, y^t, z])` for every next token under each scorer. `[scorers][vocab]`
    fn action_values(&mut self, tokens: &[TokenId]) -> Vec<Vec<f32>>;

    /// Values of a response under the terms that are asked of the caller. `[asked terms]`
    fn asked_values(&mut self, prefix: &Prefix) -> Vec<f64>;
}

/// No scorers: what an unsteered decoder is driven with.
struct NoScorers;

impl Scorers for NoScorers {
    fn state_values(&mut self, _tokens: &[TokenId]) -> Vec<f32> {
        Vec::new()
    }

    fn action_values(&mut self, _tokens: &[TokenId]) -> Vec<Vec<f32>> {
        Vec::new()
    }

    fn asked_values(&mut self, _prefix: &Prefix) -> Vec<f64> {
        Vec::new()
    }
}

/// Runs a decoder that no scorer steers to its end.
///
/// `logits` gives the next-token logits after the tokens of a branch (prompt not included), `reward` the reward of a
/// finished candidate.
///
/// # Errors
/// What the decoder or a row operation refuses.
///
/// # Panics
/// As [`drive_steered`].
pub fn drive(
    decoder: &mut dyn Decoder,
    logits: &mut dyn FnMut(&[TokenId]) -> Vec<f32>,
    reward: &mut dyn FnMut(&Candidate) -> f64,
) -> Result<Outcome, DecodeError> {
    drive_steered(decoder, logits, reward, &mut NoScorers)
}

/// Runs `decoder` to its end, with the values of `scorers` beside the logits.
///
/// # Errors
/// What the decoder or a row operation refuses.
///
/// # Panics
/// If the decoder breaks the protocol: it names a branch that does not live, reuses an id, leaves branches behind, keeps
/// more alive or grows them longer than it announced, asks for a row after the last token it announced, says two
/// different needs in a row, asks for nothing, or takes back what it has committed.
pub fn drive_steered(
    decoder: &mut dyn Decoder,
    logits: &mut dyn FnMut(&[TokenId]) -> Vec<f32>,
    reward: &mut dyn FnMut(&Candidate) -> f64,
    scorers: &mut dyn Scorers,
) -> Result<Outcome, DecodeError> {
    let mut tree = BranchTree::new(decoder);
    let mut committed: Vec<TokenId> = Vec::new();
    loop {
        let need = decoder.next_need();
        assert_eq!(
            format!("{need:?}"),
            format!("{:?}", decoder.next_need()),
            "next_need changed something"
        );
        tree.execute(decoder.take_actions());
        assert!(decoder.take_actions().is_empty(), "actions were handed out twice");
        let is_done = matches!(need, Need::Done);
        assert_eq!(
            decoder.outcome().is_some(),
            is_done,
            "an outcome is there exactly when nothing is needed"
        );
        assert!(
            decoder.committed().starts_with(&committed),
            "took back what was committed"
        );
        committed = decoder.committed().to_vec();
        let answer = match need {
            Need::Rows(requests) => Answer::Rows(tree.answer_rows(&requests, logits, scorers)?),
            Need::Rewards(candidates) => {
                assert!(!candidates.is_empty(), "asked for rewards of nothing");
                Answer::Rewards(candidates.iter().map(&mut *reward).collect())
            }
            Need::Values(prefixes) => {
                assert!(!prefixes.is_empty(), "asked for values of nothing");
                Answer::Values(
                    prefixes
                        .iter()
                        .map(|prefix| scorers.asked_values(prefix))
                        .collect(),
                )
            }
            Need::Done => break,
        };
        decoder.feed(answer)?;
    }
    assert!(
        tree.live.is_empty(),
        "branches left behind: {:?}",
        tree.live.keys()
    );
    let outcome = decoder
        .outcome()
        .expect("asserted to be there when nothing is needed")
        .clone();
    assert!(
        outcome.chosen < outcome.candidates.len(),
        "chose candidate {} of none",
        outcome.chosen
    );
    assert!(
        outcome.candidates[outcome.chosen]
            .token_ids
            .starts_with(&committed),
        "committed other tokens than those of the answer"
    );
    Ok(outcome)
}

/// Live branches with their tokens.
struct BranchTree {
    live: HashMap<BranchId, Vec<TokenId>>,
    max_live_branches: usize,
    max_new_tokens: usize,
    next_unused: u32,
}

impl BranchTree {
    fn new(decoder: &dyn Decoder) -> Self {
        Self {
            live: HashMap::from([(BranchId::ROOT, Vec::new())]),
            max_live_branches: decoder.max_live_branches(),
            max_new_tokens: decoder.max_new_tokens(),
            next_unused: BranchId::ROOT.0 + 1,
        }
    }

    fn tokens_of(&mut self, branch: BranchId) -> &mut Vec<TokenId> {
        self.live
            .get_mut(&branch)
            .unwrap_or_else(|| panic!("branch {} does not live", branch.0))
    }

    fn execute(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Fork { parent, child } => {
                    assert!(child.0 >= self.next_unused, "branch id {} is not new", child.0);
                    self.next_unused = child.0 + 1;
                    let copy = self.tokens_of(parent).clone();
                    self.live.insert(child, copy);
                    assert!(
                        self.live.len() <= self.max_live_branches,
                        "more live branches than announced"
                    );
                }
                Action::Append { branch, token } => {
                    let max_new_tokens = self.max_new_tokens;
                    let tokens = self.tokens_of(branch);
                    tokens.push(token);
                    assert!(
                        tokens.len() <= max_new_tokens,
                        "branch {} is longer than announced",
                        branch.0
                    );
                }
                Action::Prune { branch } => {
                    self.tokens_of(branch);
                    self.live.remove(&branch);
                }
            }
        }
    }

    fn answer_rows(
        &mut self,
        requests: &[RowRequest],
        logits: &mut dyn FnMut(&[TokenId]) -> Vec<f32>,
        scorers: &mut dyn Scorers,
    ) -> Result<Vec<crate::RowAnswer>, DecodeError> {
        assert!(!requests.is_empty(), "asked for no rows");
        let max_new_tokens = self.max_new_tokens;
        let mut answer = |request: &RowRequest| {
            let tokens = self.tokens_of(request.branch);
            assert!(
                tokens.len() < max_new_tokens,
                "branch {}: asked for the row after the last token announced",
                request.branch.0
            );
            let (op, mut row_logits) = (&request.op, Vec::new());
            let (mut state_values, mut action_values) = (Vec::new(), Vec::new());
            // As in an engine, only what an operation says it needs is there.
            if op.wants_state_values() {
                state_values = scorers.state_values(tokens);
            } else {
                row_logits = logits(tokens);
            }
            if op.wants_action_values() {
                action_values = scorers.action_values(tokens);
            }
            op.apply_row(&Row {
                logits: &row_logits,
                state_values: &state_values,
                action_values: &action_values,
            })
        };
        requests.iter().map(&mut answer).collect()
    }
}

#[cfg(test)]
mod tests;
