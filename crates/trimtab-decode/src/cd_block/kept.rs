//! The branches that choices have kept so far. Knows what they are, not how they were chosen.

use trimtab_base::TokenId;

use super::choice::Contender;
use super::settings::CdBlockConfig;
use crate::need::{Action, BranchId};
use crate::stop::Response;

/// A branch that choices have kept.
#[derive(Clone)]
pub(super) struct Kept {
    /// `None` once the response has ended.
    pub(super) branch: Option<BranchId>,
    pub(super) response: Response,
    /// One a term; empty before the first choice.
    pub(super) values: Vec<f64>,
    /// Their weighted sum; 0 before the first choice.
    pub(super) mixed_value: f64,
    /// Blocks it is made of.
    pub(super) num_blocks: u64,
}

/// Branches in order of their places, at least one. Draws with replacement can have put one branch in several places.
pub(super) struct KeptBranches(Vec<Kept>);

impl KeptBranches {
    /// The prompt, which counts as B equal branches, so that each choice, the first too, is among B K candidates.
    pub(super) fn of_prompt(beams: usize) -> Self {
        let root = Kept {
            branch: Some(BranchId::ROOT),
            response: Response::default(),
            values: Vec::new(),
            mixed_value: 0.0,
            num_blocks: 0,
        };
        Self(vec![root; beams])
    }

    /// What a choice has kept; not empty.
    pub(super) fn of(branches: Vec<Kept>) -> Self {
        Self(branches)
    }

    pub(super) fn places(&self) -> std::ops::Range<usize> {
        0..self.0.len()
    }

    pub(super) fn at(&self, place: usize) -> &Kept {
        &self.0[place]
    }

    pub(super) fn at_mut(&mut self, place: usize) -> &mut Kept {
        &mut self.0[place]
    }

    /// The branches as a chooser sees them.
    pub(super) fn contenders(&self) -> Vec<Contender<'_>> {
        let kept = self.0.iter();
        kept.map(|kept| Contender::lasting(kept.mixed_value, &kept.values))
            .collect()
    }

    pub(super) fn have_all_ended(&self) -> bool {
        self.0.iter().all(|kept| kept.branch.is_none())
    }

    /// Tokens that all share: certain, because the answer descends from one of them.
    pub(super) fn shared_tokens(&self) -> &[TokenId] {
        let mut shared = self.0[0].response.token_ids();
        for kept in &self.0[1..] {
            let others = kept.response.token_ids();
            let len = shared.iter().zip(others).take_while(|(a, b)| a == b).count();
            shared = &shared[..len];
        }
        shared
    }

    /// Most tokens that one more choice and a continuation to the token limit take.
    ///
    /// A kept block that ends early leaves more to continue with, and has cost as much less.
    pub(super) fn greatest_cost(&self, config: &CdBlockConfig, max_new_tokens: usize) -> u64 {
        let left = |kept: &Kept| max_new_tokens - kept.response.num_tokens();
        let block_len = |kept: &Kept| left(kept).min(config.block_len.unwrap_or(usize::MAX));
        let growing = || self.0.iter().filter(|kept| kept.branch.is_some());
        let num_draws = config.num_candidates + config.audit;
        let drawn = growing().map(|kept| num_draws.saturating_mul(block_len(kept)) as u64);
        let rest = growing().map(|kept| (left(kept) - block_len(kept)) as u64).max();
        drawn.fold(rest.unwrap_or(0), u64::saturating_add)
    }

    /// Drops all branches but one.
    pub(super) fn keep_only(&mut self, place: usize, actions: &mut Vec<Action>) {
        let only = self.0.swap_remove(place);
        let mut dropped: Vec<BranchId> = self.0.drain(..).filter_map(|kept| kept.branch).collect();
        dropped.retain(|&branch| Some(branch) != only.branch);
        dropped.sort_unstable();
        dropped.dedup();
        actions.extend(dropped.into_iter().map(|branch| Action::Prune { branch }));
        self.0.push(only);
    }

    /// The branches themselves, leaving none.
    pub(super) fn take(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.0)
    }
}
