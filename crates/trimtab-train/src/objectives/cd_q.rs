//! CD-Q: draw each prefix's value to the reference's expectation of the next one's.

use burn::module::Module;
use burn::tensor::TensorData;

use super::regression_loss;
use super::targets::{lambda_return, num_step_return};
use crate::config::TargetNetwork;
use crate::heads::{Heads, value_at};
use crate::prefix_batches::PrefixBatch;
use crate::trainer::{Loss, Objective, Progress, load_params, params_of};

/// CD-Q. Implements CD Eq. 5 (arXiv 2310.17022v3): `l_Q = 1/2 sum_t (V([x, y^t]) - v_t)^2` with
/// `v_t = sum_z pi_ref(z | [x, y^t]) V([x, y^t, z])` held constant for `t < T`, and `v_T = r`.
///
/// The sum over the vocabulary is exact: values are affine in the token features, so it is the value at the expected
/// features `e_t`. It is policy evaluation, an expectation and not a maximum, so responses may come from anyone.
///
/// Differs: the action head makes the targets and both heads are drawn to them. A target network, lambda-returns and
/// several steps are extensions and off by default.
#[derive(Debug, Clone)]
pub struct CdQ {
    /// Mixing of longer returns; 0 is the paper's target.
    pub lambda: f32,
    /// Steps until a value is read; 1 is the paper's target.
    pub num_steps: usize,
    /// How the target network follows, with its weights.
    target: Option<(TargetNetwork, Heads)>,
}

impl CdQ {
    /// The paper's objective for `lambda` 0, `num_steps` 1 and no target network, which starts as a copy of `heads`.
    pub fn new(lambda: f64, num_steps: usize, target: Option<TargetNetwork>, heads: &Heads) -> Self {
        Self {
            lambda: lambda as f32,
            num_steps,
            target: target.map(|rule| (rule, heads.clone().no_grad())),
        }
    }

    /// `v_t` of every prefix, off the tape; meaningless at a response's last. `[prefixes]`
    fn expected(&self, heads: &Heads, batch: &PrefixBatch) -> Vec<f32> {
        let heads = self.target.as_ref().map_or(heads, |(_, target)| target).valid();
        let action = heads
            .action
            .as_ref()
            .expect("CD-Q is configured with an action head");
        let features = batch
            .features
            .as_ref()
            .expect("CD-Q is configured with token features");
        let (base, direction) = action.forward(batch.hidden.clone());
        let values = value_at(base, direction, features.expected.clone());
        values.into_data().try_to_vec().expect("values are f32")
    }
}

impl Objective<Heads> for CdQ {
    type Batch = PrefixBatch;

    fn loss(&self, heads: &Heads, batch: &PrefixBatch, _progress: Progress) -> Loss {
        let expected = self.expected(heads, batch);
        let mut targets = vec![0.0; expected.len()];
        for (rows, &reward) in batch.rows.iter().zip(&batch.rewards) {
            let (expected, out) = (&expected[rows.clone()], &mut targets[rows.clone()]);
            if self.num_steps > 1 {
                num_step_return(expected, reward, self.num_steps, out);
            } else {
                lambda_return(expected, reward, self.lambda, out);
            }
        }
        regression_loss(heads, batch, &targets)
    }

    fn after_step(&mut self, heads: &Heads, step: u64) {
        let Some((rule, target)) = self.target.take() else {
            return;
        };
        let moved = match rule {
            TargetNetwork::Periodic { steps } if step.is_multiple_of(steps) => blend(target, heads, 1.0),
            TargetNetwork::Periodic { .. } => target,
            TargetNetwork::Polyak { rate } => blend(target, heads, rate),
        };
        self.target = Some((rule, moved));
    }

    fn companion(&self) -> Option<&Heads> {
        self.target.as_ref().map(|(_, target)| target)
    }

    fn restore_companion(&mut self, companion: Heads) {
        self.target = self.target.take().map(|(rule, _)| (rule, companion));
    }
}

/// `target + rate (heads - target)`, weight by weight.
fn blend(target: Heads, heads: &Heads, rate: f64) -> Heads {
    let (mut moved, weights) = (params_of(&target), params_of(heads));
    for (path, values) in &mut moved {
        let weight = weights.get(path).and_then(|data| data.as_slice::<f32>().ok());
        let weight = weight.expect("the target network is a copy of the heads");
        let old = values.as_slice::<f32>().expect("weights are kept in f32").iter();
        let new = old
            .zip(weight)
            .map(|(&old, &new)| old + rate as f32 * (new - old))
            .collect();
        *values = TensorData::new(new, values.shape().clone());
    }
    load_params(target, &moved).expect("the weights are the target's own")
}
