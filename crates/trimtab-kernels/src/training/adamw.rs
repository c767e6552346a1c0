//! One step of `AdamW` on a stretch of a weight (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2).

use crate::isa::{Isa, for_isa};

/// Numbers of a step that all values share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Gradients are multiplied by it before anything else.
    pub grad_factor: f32,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second.
    pub beta_2: f32,
    /// `1 - beta_1^t`, for step `t` counted from 1.
    pub correction_1: f32,
    /// `1 - beta_2^t`.
    pub correction_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// What is left of a weight after its decay, `1 - rate * decay`.
    pub keep: f32,
    /// The learning rate.
    pub rate: f32,
}

/// A stretch of a weight and its moments, which the step moves.
#[derive(Debug)]
pub struct Stretch<'a> {
    /// Values.
    pub weights: &'a mut [f32],
    /// Means of gradients.
    pub first: &'a mut [f32],
    /// Means of their squares.
    pub second: &'a mut [f32],
}

/// Moves weights and moments: `w = keep w - rate m / (sqrt(v) + epsilon)` with the corrected moments `m` and `v`.
///
/// # Panics
/// If lengths differ.
pub fn step(numbers: Step, grads: &[f32], stretch: &mut Stretch<'_>) {
    let lens = [stretch.weights.len(), stretch.first.len(), stretch.second.len()];
    assert_eq!(
        lens,
        [grads.len(); 3],
        "expected a gradient and two moments per weight"
    );
    let (weights, first, second) = (&mut *stretch.weights, &mut *stretch.first, &mut *stretch.second);
    let isa = Isa::detect();
    for_isa!(isa, step_all(numbers: Step, grads: &[f32], weights: &mut [f32], first: &mut [f32], second: &mut [f32]));
}

#[inline(always)]
fn step_all(numbers: Step, grads: &[f32], weights: &mut [f32], first: &mut [f32], second: &mut [f32]) {
    let moments = first.iter_mut().zip(second);
    for (((weight, grad), first), second) in weights
        .iter_mut()
        .zip(grads)
        .zip(moments)
        .map(|((weight, grad), (first, second))| (((weight, grad), first), second))
    {
        let grad = grad * numbers.grad_factor;
        *first = *first * numbers.beta_1 + grad * (1.0 - numbers.beta_1);
        *second = *second * numbers.beta_2 + grad * grad * (1.0 - numbers.beta_2);
        let root = (*second / numbers.correction_2).sqrt() + numbers.epsilon;
        *weight = *weight * numbers.keep - *first / numbers.correction_1 / root * numbers.rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_are_those_of_the_algorithm() {
        let (rate, decay, betas, epsilon) = (0.1, 0.5, (0.9, 0.999), 1e-8);
        let grads = [[0.5, -2.0, 0.0], [-1.0, -2.0, 3.0]];
        let mut got = ([1.0_f32, -1.0, 2.0], [0.0_f32; 3], [0.0_f32; 3]);
        let mut expected = ([1.0_f64, -1.0, 2.0], [0.0_f64; 3], [0.0_f64; 3]);
        for (time, grads) in (1..).zip(&grads) {
            let numbers = Step {
                grad_factor: 0.5,
                beta_1: 0.9,
                beta_2: 0.999,
                correction_1: 1.0 - 0.9_f32.powi(time),
                correction_2: 1.0 - 0.999_f32.powi(time),
                epsilon: 1e-8,
                keep: 1.0 - 0.1 * 0.5,
                rate: 0.1,
            };
            let mut stretch = Stretch {
                weights: &mut got.0,
                first: &mut got.1,
                second: &mut got.2,
            };
            step(numbers, grads, &mut stretch);
            for (i, &grad) in grads.iter().enumerate() {
                let grad = 0.5 * f64::from(grad);
                expected.1[i] = betas.0 * expected.1[i] + (1.0 - betas.0) * grad;
                expected.2[i] = betas.1 * expected.2[i] + (1.0 - betas.1) * grad * grad;
                let first = expected.1[i] / (1.0 - f64::powi(betas.0, time));
                let second: f64 = expected.2[i] / (1.0 - f64::powi(betas.1, time));
                let decayed = expected.0[i] * (1.0 - rate * decay);
                expected.0[i] = decayed - rate * first / (second.sqrt() + epsilon);
                assert!((f64::from(got.0[i]) - expected.0[i]).abs() < 1e-5, "{time} {i}");
            }
        }
    }
}
