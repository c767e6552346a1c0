//! Losses, one a file. Each is a value for the one loop; none knows data files or steps.

pub mod cd_fudge;
pub mod cd_q;
pub mod classifier;
pub mod targets;

use burn::tensor::{Device, Tensor, TensorData};

use crate::heads::{Heads, value_at};
use crate::prefix_batches::PrefixBatch;
use crate::trainer::Loss;

/// `1/2 sum (V([x, y^t]) - target_t)^2` over all prefixes `t = 0..=T`, and the same of `Q(h_{t-1})[y_t]` for
/// `t = 1..=T` where there is an action head: both heads estimate the value of the same prefix.
///
/// `targets`: one per prefix in normalised units, constants. `[prefixes]`
pub fn regression_loss(heads: &Heads, batch: &PrefixBatch, targets: &[f32]) -> Loss {
    let device = batch.hidden.device();
    let values = heads.state.forward(batch.hidden.clone());
    let state_loss = half_square_sum(values - vector(targets.to_vec(), &device));
    let num_items = batch.num_prefixes() as u64;
    let (Some(action), Some(features)) = (&heads.action, &batch.features) else {
        return Loss {
            sum: state_loss,
            num_items,
        };
    };
    let (base, direction) = action.forward(batch.hidden.clone());
    let values = value_at(base, direction, features.next.clone());
    // Row t of the head speaks of prefix t + 1; the last row of a response has none and is masked.
    let mut shifted = targets.to_vec();
    shifted.rotate_left(1);
    let mut mask = vec![1.0; targets.len()];
    for rows in &batch.rows {
        mask[rows.end - 1] = 0.0;
    }
    let errors = (values - vector(shifted, &device)) * vector(mask, &device);
    Loss {
        sum: state_loss + half_square_sum(errors),
        num_items,
    }
}

/// `1/2 sum e^2`. `[1]`
fn half_square_sum(errors: Tensor<1>) -> Tensor<1> {
    errors.square().sum().mul_scalar(0.5)
}

pub(crate) fn vector(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    // Constants live outside the tape.
    Tensor::from_data(TensorData::new(values, [len]), &device.clone().inner())
}
