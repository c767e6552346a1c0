//! Root-mean-square normalisation of a row and its gradients.

use crate::LANES;
use crate::exp::sum_lanes;
use crate::isa::{Isa, for_isa};

/// `out = x * r * weight` with `r = 1 / sqrt(mean(x^2) + eps)`; returns `r`, which [`backward`] reads.
///
/// # Panics
/// If lengths differ.
pub fn forward(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32 {
    assert!(
        x.len() == weight.len() && x.len() == out.len(),
        "expected rows of one length"
    );
    let isa = Isa::detect();
    for_isa!(isa, forward_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32)
}

/// `by_x = r (weight grad) - x r^3 mean(weight grad x)`, for `r` of [`forward`].
///
/// # Panics
/// If lengths differ.
pub fn backward((x, weight): (&[f32], &[f32]), inverse_rms: f32, grad: &[f32], by_x: &mut [f32]) {
    assert!(
        x.len() == weight.len() && x.len() == grad.len() && x.len() == by_x.len(),
        "expected rows of one length"
    );
    let isa = Isa::detect();
    for_isa!(isa, backward_row(x: &[f32], weight: &[f32], inverse_rms: f32, grad: &[f32], by_x: &mut [f32]));
}

/// `sum += x r grad`: a row's part of the gradient by the weight.
///
/// # Panics
/// If lengths differ.
pub fn add_by_weight(x: &[f32], inverse_rms: f32, grad: &[f32], sum: &mut [f32]) {
    assert!(
        x.len() == grad.len() && x.len() == sum.len(),
        "expected rows of one length"
    );
    let isa = Isa::detect();
    for_isa!(isa, add_row(x: &[f32], inverse_rms: f32, grad: &[f32], sum: &mut [f32]));
}

#[inline(always)]
fn forward_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32 {
    let mean = sum_of(x.len(), |i| x[i] * x[i]) / x.len() as f32;
    let inverse = 1.0 / (mean + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inverse * weight;
    }
    inverse
}

#[inline(always)]
fn backward_row(x: &[f32], weight: &[f32], inverse_rms: f32, grad: &[f32], by_x: &mut [f32]) {
    let (weight, grad) = (&weight[..x.len()], &grad[..x.len()]);
    let dot = sum_of(x.len(), |i| weight[i] * grad[i] * x[i]);
    let slope = dot / x.len() as f32 * inverse_rms * inverse_rms;
    for (((by_x, x), weight), grad) in by_x.iter_mut().zip(x).zip(weight).zip(grad) {
        *by_x = inverse_rms * (weight * grad - x * slope);
    }
}

#[inline(always)]
fn add_row(x: &[f32], inverse_rms: f32, grad: &[f32], sum: &mut [f32]) {
    for ((sum, x), grad) in sum.iter_mut().zip(x).zip(grad) {
        *sum += x * inverse_rms * grad;
    }
}

/// Sum of `term(0..len)` in fixed lanes.
#[inline(always)]
fn sum_of(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for i in whole..len {
        sums[i - whole] += term(i);
    }
    sum_lanes(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (1.0 + i as f32 * step).sin()).collect()
    }

    /// `sum(norm(x) * grad)` in f64.
    fn value(x: &[f32], weight: &[f32], grad: &[f32]) -> f64 {
        let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
        let inverse = 1.0 / (mean + 1e-3).sqrt();
        let terms = x.iter().zip(weight).zip(grad);
        terms
            .map(|((&x, &w), &g)| f64::from(x) * inverse * f64::from(w) * f64::from(g))
            .sum()
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for len in [1, 5, 16, 37] {
            let (x, weight, grad) = (row(len, 0.7), row(len, 0.3), row(len, 1.9));
            let mut out = vec![0.0; len];
            let inverse = forward(&x, &weight, 1e-3, &mut out);
            let dot: f64 = out
                .iter()
                .zip(&grad)
                .map(|(&o, &g)| f64::from(o) * f64::from(g))
                .sum();
            assert!((dot - value(&x, &weight, &grad)).abs() < 1e-5);
            let (mut by_x, mut by_weight) = (vec![0.0; len], vec![1.0; len]);
            backward((&x, &weight), inverse, &grad, &mut by_x);
            add_by_weight(&x, inverse, &grad, &mut by_weight);
            for i in 0..len {
                let nudged = |row: &[f32], step: f32| {
                    let mut row = row.to_vec();
                    row[i] += step;
                    row
                };
                let step = 1e-3;
                let of_x = |step| value(&nudged(&x, step), &weight, &grad);
                let of_weight = |step| value(&x, &nudged(&weight, step), &grad);
                let slope = |of: &dyn Fn(f32) -> f64| (of(step) - of(-step)) / (2.0 * f64::from(step));
                assert!((f64::from(by_x[i]) - slope(&of_x)).abs() < 2e-3, "x {i} of {len}");
                assert!(
                    (f64::from(by_weight[i]) - 1.0 - slope(&of_weight)).abs() < 2e-3,
                    "weight {i} of {len}"
                );
            }
        }
    }
}
