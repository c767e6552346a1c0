//! Rotation of one head's vector by tables of its position, and back.

use crate::isa::{Isa, for_isa};

/// `out = (first cos - second sin, second cos + first sin)` for the halves of `x`.
///
/// # Panics
/// If lengths are not `x.len() / 2` (tables) and `x.len()`.
pub fn forward(x: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]) {
    check(x, cos, sin, out);
    let isa = Isa::detect();
    for_isa!(isa, forward_row(x: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]));
}

/// Gradient by `x` of [`forward`].
///
/// # Panics
/// As [`forward`].
pub fn backward(grad: &[f32], cos: &[f32], sin: &[f32], by_x: &mut [f32]) {
    check(grad, cos, sin, by_x);
    let isa = Isa::detect();
    for_isa!(isa, backward_row(grad: &[f32], cos: &[f32], sin: &[f32], by_x: &mut [f32]));
}

fn check(x: &[f32], cos: &[f32], sin: &[f32], out: &[f32]) {
    let lens = [2 * cos.len(), 2 * sin.len(), out.len()];
    assert_eq!(lens, [x.len(); 3], "expected tables of half a head");
}

#[inline(always)]
fn forward_row(x: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]) {
    rotate(x, out, |i| (cos[i], sin[i]), cos.len());
}

#[inline(always)]
fn backward_row(grad: &[f32], cos: &[f32], sin: &[f32], by_x: &mut [f32]) {
    rotate(grad, by_x, |i| (cos[i], -sin[i]), cos.len());
}

#[inline(always)]
fn rotate(x: &[f32], out: &mut [f32], table: impl Fn(usize) -> (f32, f32), half: usize) {
    let (first, second) = x.split_at(half);
    let (out_first, out_second) = out.split_at_mut(half);
    for i in 0..half {
        let (cos, sin) = table(i);
        out_first[i] = first[i] * cos - second[i] * sin;
        out_second[i] = second[i] * cos + first[i] * sin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backward_is_the_transpose() {
        let (cos, sin) = ([0.5, 1.5, -0.25], [2.0, -1.0, 0.75]);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for i in 0..6 {
            for j in 0..6 {
                let (mut x, mut grad) = ([0.0; 6], [0.0; 6]);
                (x[i], grad[j]) = (1.0, 1.0);
                let (mut out, mut by_x) = ([0.0; 6], [0.0; 6]);
                forward(&x, &cos, &sin, &mut out);
                backward(&grad, &cos, &sin, &mut by_x);
                assert_eq!(dot(&out, &grad), dot(&x, &by_x), "{i} {j}");
            }
        }
        let mut out = [0.0; 6];
        forward(&[1.0, 0.0, 0.0, 3.0, 0.0, 0.0], &cos, &sin, &mut out);
        assert_eq!(out, [0.5 - 6.0, 0.0, 0.0, 1.5 + 2.0, 0.0, 0.0]);
    }
}
