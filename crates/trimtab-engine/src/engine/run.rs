//! One batch through the model: which rows, where their keys and values go, and who sees the results.

use std::collections::BTreeSet;
use std::sync::Arc;

use trimtab_decode::BranchId;
use trimtab_model::ModelError;
use trimtab_model::forward::BatchRow;

use super::Engine;
use crate::error::EngineError;
use crate::request::{Event, RequestId};
use crate::scheduler::{self, Planned, StepLimits, Waiting};
use crate::sequence::RowState;

impl Engine {
    /// Runs what is due. What cannot be run fails its requests, so that no step is tried again for ever.
    pub(super) fn run_batch(&mut self, events: &mut Vec<Event>) {
        let mut planned = self.schedule();
        for plan in &planned {
            if let Err(error) = self.make_room(plan) {
                self.fail(plan.request, error, events);
            }
        }
        planned.retain(|plan| self.active.contains_key(&plan.request));
        if planned.is_empty() {
            return;
        }
        if let Err(error) = self.forward(&planned) {
            let failed: BTreeSet<RequestId> = planned.iter().map(|plan| plan.request).collect();
            let (num_requests, source) = (failed.len(), Arc::new(error));
            for request in failed {
                let source = Arc::clone(&source);
                let error = EngineError::BatchRefused { num_requests, source };
                self.fail(request, error, events);
            }
            return;
        }
        self.mark_stored(&planned);
    }

    fn schedule(&self) -> Vec<Planned> {
        let mut waiting = Vec::new();
        for (&request, active) in &self.active {
            let stale = active.stale_branches().into_iter();
            waiting.extend(stale.map(|(branch, num_pending)| Waiting {
                request,
                branch,
                num_pending,
            }));
        }
        let limits = StepLimits {
            max_rows: self.config.max_batch_rows,
            max_prefill_rows: self.config.prefill_chunk,
        };
        scheduler::plan(&waiting, limits, self.stats.steps as usize)
    }

    /// Blocks for the positions of `plan`. Admission has set them aside; cached blocks may have to go first.
    ///
    /// That this cannot fail for admitted requests: their blocks, each counted once, are fewer than those set aside,
    /// so if none is free the cache alone holds one, and that is what [`crate::prefix_cache::PrefixCache::evict_one`]
    /// frees.
    fn make_room(&mut self, plan: &Planned) -> Result<(), EngineError> {
        let Some(sequence) = self
            .active
            .get_mut(&plan.request)
            .and_then(|active| active.branches.get_mut(&plan.branch))
        else {
            return Ok(());
        };
        while sequence
            .reserve(plan.num_positions, &mut self.blocks, self.backend.as_mut())
            .is_none()
        {
            if !self.cache.evict_one(&mut self.blocks) {
                return Err(EngineError::OutOfBlocks {
                    branch: plan.branch.0,
                });
            }
        }
        Ok(())
    }

    fn forward(&mut self, planned: &[Planned]) -> Result<(), ModelError> {
        let mut rows = Vec::new();
        let mut outputs = Vec::new();
        for plan in planned {
            let active = &self.active[&plan.request];
            let sequence = &active.branches[&plan.branch];
            for (offset, input) in sequence.pending[..plan.num_positions].iter().enumerate() {
                let position = (sequence.num_stored + offset) as u32;
                let input = active.row_input(input, self.backend.hidden_len());
                rows.push(BatchRow {
                    input,
                    position,
                    blocks: &sequence.blocks,
                });
            }
            if plan.num_positions == sequence.pending.len() {
                outputs.push(rows.len() - 1);
            }
        }
        self.backend.forward(&rows, &outputs, &mut self.output)?;
        self.stats.steps += 1;
        self.stats.rows += rows.len() as u64;
        self.stats.output_rows += outputs.len() as u64;
        Ok(())
    }

    /// Books the positions that have been run, marks where logits are and shows them to the observer.
    fn mark_stored(&mut self, planned: &[Planned]) {
        let (hidden_len, vocab_len) = (self.backend.hidden_len(), self.backend.vocab_len());
        let block_len = self.backend.block_len();
        let mut output_idx = 0;
        for plan in planned {
            let Some(active) = self.active.get_mut(&plan.request) else {
                continue;
            };
            active.usage.rows_run += plan.num_positions as u64;
            let Some(sequence) = active.branches.get_mut(&plan.branch) else {
                continue;
            };
            sequence.mark_stored(plan.num_positions);
            if !sequence.pending.is_empty() {
                continue;
            }
            sequence.row = RowState::InOutput(output_idx);
            if let Some(observer) = &mut self.observer {
                let hidden = &self.output.hidden[output_idx * hidden_len..][..hidden_len];
                let logits = &self.output.logits[output_idx * vocab_len..][..vocab_len];
                observer.on_row(plan.request, plan.branch, hidden, logits);
            }
            output_idx += 1;
            // A decoder that has not begun: the prompt has just been run to its end, which happens once.
            if self.config.prefix_cache && active.need.is_none() && plan.branch == BranchId::ROOT {
                let (tokens, held) = (&active.leading_tokens, &sequence.blocks);
                self.cache.insert(tokens, block_len, held, &mut self.blocks);
            }
        }
    }
}
