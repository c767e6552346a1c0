//! A row of attention's probabilities on the way back.

use crate::LANES;
use crate::exp::sum_lanes;
use crate::isa::{Isa, for_isa};

/// Gradient by a row of scores: `grads[i] = probs[i] (grads[i] - mean)`, where `mean` is the sum of `probs * grads`.
///
/// # Panics
/// If lengths differ.
pub fn softmax_backward(probs: &[f32], mean: f32, grads: &mut [f32]) {
    assert_eq!(probs.len(), grads.len(), "expected a gradient per probability");
    let isa = Isa::detect();
    for_isa!(isa, backward_row(probs: &[f32], mean: f32, grads: &mut [f32]));
}

/// `sum(a * b)`.
///
/// # Panics
/// If lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "expected vectors of one length");
    let isa = Isa::detect();
    for_isa!(isa, dot_row(a: &[f32], b: &[f32]) -> f32)
}

#[inline(always)]
fn backward_row(probs: &[f32], mean: f32, grads: &mut [f32]) {
    for (grad, prob) in grads.iter_mut().zip(probs) {
        *grad = prob * (*grad - mean);
    }
}

#[inline(always)]
fn dot_row(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sum_lanes(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_formula() {
        let probs = [0.25, 0.5, 0.25];
        let mut grads = [1.0, -2.0, 4.0];
        let mean = dot(&probs, &grads);
        assert_eq!(mean, 0.25);
        softmax_backward(&probs, mean, &mut grads);
        assert_eq!(grads, [0.1875, -1.125, 0.9375]);
        let ones = [1.0; 37];
        assert_eq!(dot(&ones, &ones), 37.0);
    }
}
