//! A driver that runs a decoder against plain functions and asserts the protocol, for tests and examples.
//! Knows no batch and no cache: every row is computed afresh from the branch's tokens.

use std::collections::HashMap;

use trimtab_base::TokenId;

use crate::DecodeError;
use crate::need::{Action, Answer, BranchId, Candidate, Decoder, Need, Outcome, RowRequest};

/// Runs `decoder` to its end.
///
/// `logits` gives the next-token logits after the tokens of a branch (prompt not included), `reward` the reward of a
/// finished candidate.
///
/// # Errors
/// What the decoder or a row operation refuses.
///
/// # Panics
/// If the decoder breaks the protocol: it names a branch that does not live, reuses an id, leaves branches behind,
/// keeps more alive or grows them longer than it announced, says two different needs in a row, or asks for nothing.
pub fn drive(
    decoder: &mut dyn Decoder,
    logits: &mut dyn FnMut(&[TokenId]) -> Vec<f32>,
    reward: &mut dyn FnMut(&Candidate) -> f64,
) -> Result<Outcome, DecodeError> {
    let mut tree = BranchTree::new(decoder);
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
        let answer = match need {
            Need::Rows(requests) => Answer::Rows(tree.answer_rows(&requests, logits)?),
            Need::Rewards(candidates) => {
                assert!(!candidates.is_empty(), "asked for rewards of nothing");
                Answer::Rewards(candidates.iter().map(&mut *reward).collect())
            }
            Need::Values(_) => panic!("this driver has no scorers; use `drive_steered`"),
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
    ) -> Result<Vec<crate::RowAnswer>, DecodeError> {
        assert!(!requests.is_empty(), "asked for no rows");
        requests
            .iter()
            .map(|request| request.op.apply(&logits(self.tokens_of(request.branch))))
            .collect()
    }
}

#[cfg(test)]
mod tests;
