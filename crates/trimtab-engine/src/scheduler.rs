//! Which rows run in the next step. Pure: it sees what branches wait for and says how much of each to run.

use trimtab_decode::BranchId;

use crate::request::RequestId;

/// A branch that waits for its next-token logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) request: RequestId,
    pub(crate) branch: BranchId,
    /// Positions appended and not run; at least 1.
    pub(crate) num_pending: usize,
}

/// Part of a branch's pending positions to run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) request: RequestId,
    pub(crate) branch: BranchId,
    pub(crate) num_positions: usize,
}

/// Limits of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepLimits {
    pub(crate) max_rows: usize,
    pub(crate) max_prefill_rows: usize,
}

/// Decoding rows first (one position each), then prefill chunks with what is left of both limits.
///
/// `rotation` moves the start of the round from step to step, so that under a small `max_rows` nobody starves.
pub(crate) fn plan(waiting: &[Waiting], limits: StepLimits, rotation: usize) -> Vec<Planned> {
    let mut rows_left = limits.max_rows;
    let mut prefill_left = limits.max_prefill_rows;
    let mut planned = Vec::new();
    let start = if waiting.is_empty() {
        0
    } else {
        rotation % waiting.len()
    };
    let round = || waiting[start..].iter().chain(&waiting[..start]);
    for branch in round().filter(|branch| branch.num_pending == 1) {
        if rows_left == 0 {
            return planned;
        }
        rows_left -= 1;
        planned.push(Planned {
            request: branch.request,
            branch: branch.branch,
            num_positions: 1,
        });
    }
    for branch in round().filter(|branch| branch.num_pending > 1) {
        let num_positions = branch.num_pending.min(rows_left).min(prefill_left);
        if num_positions == 0 {
            break;
        }
        rows_left -= num_positions;
        prefill_left -= num_positions;
        planned.push(Planned {
            request: branch.request,
            branch: branch.branch,
            num_positions,
        });
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        pending: &[usize],
        max_rows: usize,
        max_prefill_rows: usize,
        rotation: usize,
        expect: &[(u64, usize)],
    ) {
        let waiting: Vec<Waiting> = pending
            .iter()
            .enumerate()
            .map(|(idx, &num_pending)| Waiting {
                request: RequestId(idx as u64),
                branch: BranchId::ROOT,
                num_pending,
            })
            .collect();
        let planned = plan(
            &waiting,
            StepLimits {
                max_rows,
                max_prefill_rows,
            },
            rotation,
        );
        let got: Vec<(u64, usize)> = planned.iter().map(|p| (p.request.0, p.num_positions)).collect();
        assert_eq!(
            got, expect,
            "pending {pending:?}, rows {max_rows}, prefill {max_prefill_rows}, rotation {rotation}"
        );
    }

    #[test]
    fn decoding_comes_before_prefill_and_limits_hold() {
        check(&[], 8, 8, 3, &[]);
        check(&[1, 1], 8, 8, 0, &[(0, 1), (1, 1)]);
        check(&[100, 1], 8, 8, 0, &[(1, 1), (0, 7)]);
        check(&[100, 1], 8, 4, 0, &[(1, 1), (0, 4)]);
        check(&[3, 3, 3], 8, 8, 0, &[(0, 3), (1, 3), (2, 2)]);
        check(&[1, 1, 1], 2, 8, 0, &[(0, 1), (1, 1)]);
        check(&[1, 1, 1], 2, 8, 2, &[(2, 1), (0, 1)]);
        check(&[1, 9], 1, 8, 0, &[(0, 1)]);
    }
}
