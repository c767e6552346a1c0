//! Gated activations of feed-forward layers. Knows rows of gates and ups, no models.
//!
//! Both are `gate * sigmoid(g(gate)) * up` with one exponential; results are the same to the last bit in every batch,
//! on every number of threads and on every instruction set.

use crate::exp::exp;
use crate::isa::{Isa, for_isa};
use crate::pool::Pool;

#[cfg(test)]
mod tests;

/// Elements of a task: some microseconds of work.
const TASK_LEN: usize = 4 << 10;

/// `out = silu(gate) * up` with `silu(x) = x / (1 + e^-x)` (`SwiGLU`).
///
/// `silu` is within 5e-7 relative for gates above -88 and within 1e-36 below. NaN and an infinite negative gate give
/// NaN, as the formula does in IEEE 754.
///
/// # Shapes
/// `gate_up`: `[rows, 2 * ffn_len]`, gates first; `out`: `[rows, ffn_len]`.
///
/// # Panics
/// If the lengths are not those of whole rows.
pub fn silu_mul(pool: &Pool, gate_up: &[f32], ffn_len: usize, out: &mut [f32]) {
    let isa = Isa::detect();
    run(pool, gate_up, ffn_len, out, |gate, up, out| {
        for_isa!(isa, silu_mul_slice(gate: &[f32], up: &[f32], out: &mut [f32]));
    });
}

/// `out = gelu(gate) * up` with `gelu(x) = x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2` (`GeGLU`).
///
/// `gelu` is within 5e-7 absolute, and within 5e-7 relative for gates above -1; below, where `gelu` vanishes, the
/// relative error grows with the exponent that is rounded. NaN and an infinite negative gate give NaN.
///
/// # Shapes
/// `gate_up`: `[rows, 2 * ffn_len]`, gates first; `out`: `[rows, ffn_len]`.
///
/// # Panics
/// If the lengths are not those of whole rows.
pub fn gelu_tanh_mul(pool: &Pool, gate_up: &[f32], ffn_len: usize, out: &mut [f32]) {
    let isa = Isa::detect();
    run(pool, gate_up, ffn_len, out, |gate, up, out| {
        for_isa!(isa, gelu_tanh_mul_slice(gate: &[f32], up: &[f32], out: &mut [f32]));
    });
}

/// `silu(x) = x / (1 + e^-x)` in place, as accurate as in [`silu_mul`], for layers without a gate.
pub fn silu(pool: &Pool, values: &mut [f32]) {
    let isa = Isa::detect();
    pool.run_chunks_mut(values, TASK_LEN, |_, values| {
        for_isa!(isa, silu_slice(values: &mut [f32]));
    });
}

/// Calls `apply(gate, up, out)` on matching parts of rows.
fn run(
    pool: &Pool,
    gate_up: &[f32],
    ffn_len: usize,
    out: &mut [f32],
    apply: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) {
    assert!(
        ffn_len > 0 && out.len().is_multiple_of(ffn_len),
        "expected whole output rows of {ffn_len}"
    );
    assert_eq!(
        gate_up.len(),
        2 * out.len(),
        "expected a gate and an up value for each output"
    );
    let rows_per_task = (TASK_LEN / ffn_len).max(1);
    pool.run_chunks_mut(out, rows_per_task * ffn_len, |chunk_idx, out| {
        let rows = gate_up[2 * chunk_idx * rows_per_task * ffn_len..].chunks_exact(2 * ffn_len);
        for (row, out) in rows.zip(out.chunks_exact_mut(ffn_len)) {
            let (gate, up) = row.split_at(ffn_len);
            apply(gate, up, out);
        }
    });
}

#[inline(always)]
fn silu_mul_slice(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

#[inline(always)]
fn silu_slice(values: &mut [f32]) {
    for value in values {
        *value /= 1.0 + exp(-*value);
    }
}

/// `sqrt(2 / pi)`, twice: `(1 + tanh(u)) / 2 = 1 / (1 + e^-2u)`.
const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;

#[inline(always)]
fn gelu_tanh_mul_slice(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        let inner = TWICE_SQRT_2_OVER_PI * (gate + 0.044_715 * (gate * gate * gate));
        *out = gate / (1.0 + exp(-inner)) * up;
    }
}
