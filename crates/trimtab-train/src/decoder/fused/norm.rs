//! Root-mean-square normalisation in one pass.

use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;
use trimtab_kernels::training::norm;

use super::TASK_ROWS;
use super::tape::{Function, Gradient, Output, Values, apply};

/// `x / sqrt(mean(x^2) + eps) * weight` over the last axis, on the CPU.
pub(in crate::decoder) fn rms_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    eps: f64,
) -> Option<Tensor<D>> {
    let inputs = [x.clone().into_dispatch(), weight.clone().into_dispatch()];
    apply(inputs, |[x, weight]| {
        let len = weight.row_len();
        let mut values = vec![0.0; x.as_slice().len()];
        let mut inverse_rms = vec![0.0; values.len() / len];
        let tasks = values
            .par_chunks_mut(TASK_ROWS * len)
            .zip(x.as_slice().par_chunks(TASK_ROWS * len))
            .zip(inverse_rms.par_chunks_mut(TASK_ROWS));
        tasks.for_each(|((out, x), inverse_rms)| {
            let rows = out
                .chunks_exact_mut(len)
                .zip(x.chunks_exact(len))
                .zip(inverse_rms);
            for ((out, x), inverse_rms) in rows {
                *inverse_rms = norm::forward(x, weight.as_slice(), eps as f32, out);
            }
        });
        Output {
            values,
            shape: x.shape(),
            function: Normed {
                x,
                weight,
                inverse_rms: Arc::new(inverse_rms),
            },
        }
    })
}

#[derive(Debug, Clone)]
struct Normed {
    x: Values,
    weight: Values,
    /// `[rows]`
    inverse_rms: Arc<Vec<f32>>,
}

impl Function<2> for Normed {
    fn backward(self, grad: &[f32], [by_x, by_weight]: [bool; 2]) -> [Option<Gradient>; 2] {
        let by_x = by_x.then(|| Gradient {
            values: self.by_x(grad),
            shape: self.x.shape(),
        });
        let by_weight = by_weight.then(|| Gradient {
            values: self.by_weight(grad),
            shape: self.weight.shape(),
        });
        [by_x, by_weight]
    }
}

impl Normed {
    fn by_x(&self, grad: &[f32]) -> Vec<f32> {
        let (weight, len) = (self.weight.as_slice(), self.weight.row_len());
        let mut out = vec![0.0; grad.len()];
        let tasks = out
            .par_chunks_mut(TASK_ROWS * len)
            .zip(self.x.as_slice().par_chunks(TASK_ROWS * len))
            .zip(grad.par_chunks(TASK_ROWS * len))
            .zip(self.inverse_rms.par_chunks(TASK_ROWS));
        tasks.for_each(|(((out, x), grad), inverse_rms)| {
            let rows = out.chunks_exact_mut(len).zip(x.chunks_exact(len));
            for (((out, x), grad), inverse_rms) in rows.zip(grad.chunks_exact(len)).zip(inverse_rms) {
                norm::backward((x, weight), *inverse_rms, grad, out);
            }
        });
        out
    }

    fn by_weight(&self, grad: &[f32]) -> Vec<f32> {
        let len = self.weight.row_len();
        let blocks: Vec<Vec<f32>> = grad
            .par_chunks(TASK_ROWS * len)
            .zip(self.x.as_slice().par_chunks(TASK_ROWS * len))
            .zip(self.inverse_rms.par_chunks(TASK_ROWS))
            .map(|((grad, x), inverse_rms)| {
                let mut sum = vec![0.0; len];
                let rows = grad.chunks_exact(len).zip(x.chunks_exact(len)).zip(inverse_rms);
                for ((grad, x), inverse_rms) in rows {
                    norm::add_by_weight(x, *inverse_rms, grad, &mut sum);
                }
                sum
            })
            .collect();
        let mut total = vec![0.0; len];
        for block in blocks {
            for (total, part) in total.iter_mut().zip(block) {
                *total += part;
            }
        }
        total
    }
}
