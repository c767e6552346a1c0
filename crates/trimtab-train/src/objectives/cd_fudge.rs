//! CD-FUDGE: regress the final reward at every prefix.

use super::regression_loss;
use super::targets::final_reward;
use crate::heads::Heads;
use crate::prefix_batches::PrefixBatch;
use crate::trainer::{Loss, Objective, Progress};

/// CD-FUDGE. Implements CD Eq. 4 (arXiv 2310.17022v3): `l_F = 1/2 sum_t (V([x, y^t]) - r([x, y]))^2`.
///
/// Responses must come from the reference; on others it learns the value of whoever wrote them. Differs: the action
/// head is trained on the same target, `Q(h_{t-1})[y_t]` being the value of the same prefix.
#[derive(Debug, Clone, Copy, Default)]
pub struct CdFudge;

impl Objective<Heads> for CdFudge {
    type Batch = PrefixBatch;

    fn loss(&self, heads: &Heads, batch: &PrefixBatch, _progress: Progress) -> Loss {
        let mut targets = vec![0.0; batch.num_prefixes()];
        for (rows, &reward) in batch.rows.iter().zip(&batch.rewards) {
            final_reward(reward, &mut targets[rows.clone()]);
        }
        regression_loss(heads, batch, &targets)
    }
}
