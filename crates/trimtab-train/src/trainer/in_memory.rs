//! The optimiser's passes over weights that are in this process's memory. Knows vectors, no modules and no schedule.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;
use trimtab_kernels::training::adamw::{self, Step, Stretch};
use trimtab_kernels::training::scores::dot;

/// Values of a task; sums are taken in these blocks, whatever the number of threads.
const TASK_LEN: usize = 32 << 10;
/// Squares that are added in f32.
const SUM_LEN: usize = 1 << 10;

/// Whether the other functions take it: an `f32` vector on the CPU, off the tape.
pub(super) fn holds(vector: &Tensor<1>) -> bool {
    vector.dtype() == DType::F32 && vector.clone().try_into_primitive::<Flex>().is_ok()
}

/// The weight and its two moments after a step, in the memory where they were.
///
/// # Panics
/// If [`holds`] says no.
pub(super) fn step(numbers: Step, grad: &Tensor<1>, state: [Tensor<1>; 3]) -> [Tensor<1>; 3] {
    let grad = contiguous(grad.clone());
    let grads: &[f32] = grad.as_slice().expect("the vector was made contiguous");
    let mut state = state.map(contiguous);
    let [weights, first, second] = state.each_mut().map(FlexTensor::storage_mut::<f32>);
    weights
        .par_chunks_mut(TASK_LEN)
        .zip(first.par_chunks_mut(TASK_LEN))
        .zip(second.par_chunks_mut(TASK_LEN))
        .zip(grads.par_chunks(TASK_LEN))
        .for_each(|(((weights, first), second), grads)| {
            let mut stretch = Stretch {
                weights,
                first,
                second,
            };
            adamw::step(numbers, grads, &mut stretch);
        });
    state.map(Tensor::from_primitive::<Flex>)
}

/// Sum of the squares.
///
/// # Panics
/// If [`holds`] says no.
pub(super) fn sum_of_squares(vector: &Tensor<1>) -> f64 {
    let vector = contiguous(vector.clone());
    let values: &[f32] = vector.as_slice().expect("the vector was made contiguous");
    let of_block = |block: &[f32]| f64::from(dot(block, block));
    let sums: Vec<f64> = values
        .par_chunks(TASK_LEN)
        .map(|values| values.chunks(SUM_LEN).map(of_block).sum())
        .collect();
    sums.iter().sum()
}

/// The whole of a buffer that nobody else reads, if the vector is one.
fn contiguous(vector: Tensor<1>) -> FlexTensor {
    let [len] = vector.dims();
    let vector = vector
        .try_into_primitive::<Flex>()
        .expect("the caller has asked whether it is on the CPU");
    if vector.is_contiguous() && vector.storage::<f32>().len() == len {
        vector
    } else {
        vector.to_contiguous()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn squares_add_up_over_blocks() {
        let vector = Tensor::<1>::ones([300_000], &Device::flex()).mul_scalar(0.5);
        assert!(holds(&vector));
        assert_eq!(sum_of_squares(&vector), 75_000.0);
    }

    #[test]
    fn a_part_of_a_vector_leaves_the_rest() {
        let numbers = Step {
            grad_factor: 1.0,
            beta_1: 0.0,
            beta_2: 0.0,
            correction_1: 1.0,
            correction_2: 1.0,
            epsilon: 0.0,
            keep: 1.0,
            rate: 0.5,
        };
        let whole = Tensor::<1>::ones([6], &Device::flex());
        let moment = || Tensor::<1>::zeros([2], &Device::flex());
        let part = whole.clone().narrow(0, 2, 2);
        let [moved, ..] = step(numbers, &moment().add_scalar(3.0), [part, moment(), moment()]);
        assert_eq!(moved.into_data().try_to_vec::<f32>().unwrap(), [0.5, 0.5]);
        assert_eq!(whole.into_data().try_to_vec::<f32>().unwrap(), [1.0; 6]);
    }
}
