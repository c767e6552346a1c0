use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::row_op::RowOp;

/// A decoder that decides `script[i]` before its `i`-th need and is done after the last.
struct Scripted {
    script: Vec<Vec<Action>>,
    step: usize,
    is_taken: bool,
    outcome: Outcome,
    /// What is committed at each step.
    committed: Vec<Vec<TokenId>>,
}

impl Decoder for Scripted {
    fn next_need(&self) -> Need {
        if self.step + 1 >= self.script.len() {
            return Need::Done;
        }
        Need::Rows(vec![RowRequest {
            branch: BranchId::ROOT,
            op: RowOp::TopLogProbs { count: 1 },
        }])
    }

    fn take_actions(&mut self) -> Vec<Action> {
        if std::mem::replace(&mut self.is_taken, true) {
            Vec::new()
        } else {
            self.script[self.step].clone()
        }
    }

    fn feed(&mut self, _answer: Answer) -> Result<(), DecodeError> {
        self.step += 1;
        self.is_taken = false;
        Ok(())
    }

    fn outcome(&self) -> Option<&Outcome> {
        matches!(self.next_need(), Need::Done).then_some(&self.outcome)
    }

    fn committed(&self) -> &[TokenId] {
        self.committed.get(self.step).map_or(&[], Vec::as_slice)
    }

    fn max_live_branches(&self) -> usize {
        2
    }

    fn max_new_tokens(&self) -> usize {
        2
    }
}

fn is_refused(script: &[&[Action]]) -> bool {
    is_refused_with(script, &[])
}

fn is_refused_with(script: &[&[Action]], committed: &[&[TokenId]]) -> bool {
    let candidates = crate::laws::run("sample", 0).candidates;
    let outcome = Outcome::unsteered(candidates, 0, 0);
    let script = script.iter().map(|actions| actions.to_vec()).collect();
    let mut decoder = Scripted {
        script,
        step: 0,
        is_taken: false,
        outcome,
        committed: committed.iter().map(|tokens| tokens.to_vec()).collect(),
    };
    catch_unwind(AssertUnwindSafe(|| {
        drive(&mut decoder, &mut |_| vec![0.0], &mut |_| 0.0)
    }))
    .is_err()
}

#[test]
fn breaches_of_the_protocol_are_caught() {
    let fork = |parent, child| Action::Fork {
        parent: BranchId(parent),
        child: BranchId(child),
    };
    let append = |branch| Action::Append {
        branch: BranchId(branch),
        token: TokenId(1),
    };
    let prune = |branch| Action::Prune {
        branch: BranchId(branch),
    };
    let check = |script: &[&[Action]], expect: bool| assert_eq!(is_refused(script), expect, "{script:?}");
    check(&[&[], &[append(0)], &[fork(0, 1), prune(0), prune(1)]], false);
    // A branch left behind.
    check(&[&[], &[]], true);
    check(&[&[fork(0, 1)], &[prune(0)]], true);
    // Branches that do not live.
    check(&[&[fork(5, 6)], &[prune(0)]], true);
    check(&[&[append(1)], &[prune(0)]], true);
    check(&[&[fork(0, 1), prune(1), append(1)], &[prune(0)]], true);
    check(&[&[fork(0, 1), prune(1), prune(1)], &[prune(0)]], true);
    check(&[&[prune(0)], &[]], true);
    // An id used twice.
    check(
        &[&[fork(0, 1), prune(1), fork(0, 1), prune(1)], &[prune(0)]],
        true,
    );
    // More branches or tokens than announced.
    check(
        &[&[fork(0, 1), fork(0, 2)], &[prune(0), prune(1), prune(2)]],
        true,
    );
    check(&[&[append(0), append(0), append(0)], &[prune(0)]], true);
    // A row after the last token that was announced.
    check(&[&[append(0)], &[prune(0)]], false);
    check(&[&[append(0), append(0)], &[prune(0)]], true);
}

#[test]
fn what_is_committed_stays_and_is_the_answer_s() {
    let prune = Action::Prune {
        branch: BranchId::ROOT,
    };
    let answer = crate::laws::run("sample", 0).candidates.remove(0).token_ids;
    let other = [TokenId(7)];
    let check = |committed: &[&[TokenId]], expect: bool| {
        assert_eq!(
            is_refused_with(&[&[], &[], &[prune]], committed),
            expect,
            "{committed:?}"
        );
    };
    check(&[&[], &answer[..1], &answer], false);
    check(&[&[], &answer[..1], &[]], true);
    check(&[&[], &other, &answer], true);
    check(&[&[], &[], &other], true);
}
