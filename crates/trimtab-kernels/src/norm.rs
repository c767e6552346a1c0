//! Root-mean-square normalisation of rows. Knows rows and a weight per column, no models.
//!
//! `out[r][i] = x[r][i] * weight[i] / sqrt(mean_j x[r][j]^2 + eps)` with the mean in f64: a row's result is the same
//! to the last bit in every batch, on every number of threads and on every instruction set.

use crate::LANES;
use crate::isa::{Isa, for_isa};
use crate::pool::{DisjointSlice, Pool};

#[cfg(test)]
mod tests;

/// Elements of a task: some microseconds of work.
const TASK_LEN: usize = 8 << 10;

/// `out = rms_norm(input)`, row by row.
///
/// A row with a value that is not finite becomes NaN where IEEE 754 says so and touches no other row.
///
/// # Shapes
/// `input`, `out`: `[rows, weight.len()]`.
///
/// # Panics
/// If the lengths differ or are not those of whole rows.
pub fn rms_norm(pool: &Pool, input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!(input.len(), out.len(), "expected as many outputs as inputs");
    let isa = Isa::detect();
    pool.run_chunks_mut(out, chunk_len(input.len(), weight.len()), |chunk_idx, out| {
        let start = chunk_idx * chunk_len(input.len(), weight.len());
        let input = &input[start..start + out.len()];
        for_isa!(isa, norm_rows(input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));
    });
}

/// `residual += delta`, then `out = rms_norm(residual)`, row by row.
///
/// # Shapes
/// `residual`, `delta`, `out`: `[rows, weight.len()]`.
///
/// # Panics
/// As [`rms_norm`].
pub fn add_rms_norm(
    pool: &Pool,
    residual: &mut [f32],
    delta: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    assert_eq!(
        residual.len(),
        delta.len(),
        "expected as many deltas as residuals"
    );
    assert_eq!(residual.len(), out.len(), "expected as many outputs as residuals");
    let isa = Isa::detect();
    let chunk_len = chunk_len(residual.len(), weight.len());
    let residual = DisjointSlice::new(residual);
    pool.run_chunks_mut(out, chunk_len, |chunk_idx, out| {
        let start = chunk_idx * chunk_len;
        // SAFETY: chunks of different indices do not overlap, and each index is called once.
        let residual = unsafe { residual.range(start..start + out.len()) };
        let delta = &delta[start..start + out.len()];
        for_isa!(isa, add_rows(residual: &mut [f32], delta: &[f32]));
        let input = &*residual;
        for_isa!(isa, norm_rows(input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));
    });
}

/// Elements of a chunk: whole rows, so that the chunk is worth a task.
fn chunk_len(len: usize, row_len: usize) -> usize {
    assert!(
        row_len > 0 && len.is_multiple_of(row_len),
        "expected whole rows of {row_len}, got {len} values"
    );
    (TASK_LEN / row_len).max(1) * row_len
}

#[inline(always)]
fn add_rows(residual: &mut [f32], delta: &[f32]) {
    for (value, delta) in residual.iter_mut().zip(delta) {
        *value += delta;
    }
}

#[inline(always)]
fn norm_rows(input: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    for (row, out) in input
        .chunks_exact(weight.len())
        .zip(out.chunks_exact_mut(weight.len()))
    {
        let mean_square = sum_of_squares(row) / row.len() as f64;
        let scale = (1.0 / (mean_square + f64::from(eps)).sqrt()) as f32;
        for ((out, value), weight) in out.iter_mut().zip(row).zip(weight) {
            *out = value * scale * weight;
        }
    }
}

/// In f64 lanes, which are added in one fixed order.
#[inline(always)]
fn sum_of_squares(row: &[f32]) -> f64 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut sums = [0.0_f64; LANES];
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(value) * f64::from(value);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
