//! Principal components of many rows by subspace iteration. Knows rows of floats, no tokens.
//!
//! Of a covariance of a few hundred to a few thousand columns the leading dozens of directions are wanted: a block of
//! vectors is multiplied and made orthonormal again, with the products on the crate's own kernels. A library of linear
//! algebra would be compiled for this one call.

use trimtab_kernels::gemm::{GemmScratch, Linear, Precision};
use trimtab_kernels::pool::Pool;

use crate::layer::dot;

/// Pseudo-random numbers in `[-1, 1)` (SplitMix64): starting vectors and weights that only have to be no special ones.
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// Rows at a time: long products, little memory.
const CHUNK_LEN: usize = 2048;
/// Directions iterated beyond those wanted, which makes the last of these converge.
const NUM_SPARE: usize = 8;
/// Rounds of the iteration; each shrinks what is not wanted by the ratio of its variance to that of what is.
const NUM_ROUNDS: usize = 40;
/// A direction of which less than this share is left beside the earlier ones is rounding.
const MIN_SHARE: f64 = 1e-5;

/// The rows' coordinates along their `num_components` directions of most variance, about their mean, the widest
/// first. Where the rows have fewer directions, the rest are 0. `[num_rows, num_components]`
///
/// `row_source(row_idx, row)` writes a row of `row_len`; it is called once for each row in each of three passes. The
/// result is a function of the rows alone, to the last bit.
pub(crate) fn principal_projection(
    row_source: &mut dyn FnMut(usize, &mut [f32]),
    num_rows: usize,
    row_len: usize,
    num_components: usize,
) -> Vec<f32> {
    let mut rows = CentredRows::new(row_source, num_rows, row_len);
    // One thread: the caller's pool is not asked for, and this takes seconds once for a model.
    let pool = Pool::new(1);
    let covariance = rows.covariance(&pool);
    let directions = leading_directions(&pool, &covariance, row_len, num_components);
    let layer = pack(&pool, row_len, &directions);
    let mut projected = Vec::with_capacity(num_rows * num_components);
    rows.for_each_chunk(|chunk| {
        let start = projected.len();
        projected.resize(start + chunk.len() / row_len * num_components, 0.0);
        layer.forward(&pool, chunk, &mut projected[start..], &mut GemmScratch::default());
    });
    projected
}

/// Rows less their mean, read in chunks.
struct CentredRows<'a> {
    source: &'a mut dyn FnMut(usize, &mut [f32]),
    num_rows: usize,
    row_len: usize,
    /// `[row_len]`
    mean: Vec<f32>,
}

impl<'a> CentredRows<'a> {
    fn new(source: &'a mut dyn FnMut(usize, &mut [f32]), num_rows: usize, row_len: usize) -> Self {
        let mut sums = vec![0.0_f64; row_len];
        let mut row = vec![0.0; row_len];
        for row_idx in 0..num_rows {
            source(row_idx, &mut row);
            for (sum, &value) in sums.iter_mut().zip(&row) {
                *sum += f64::from(value);
            }
        }
        let mean = sums
            .into_iter()
            .map(|sum| (sum / num_rows as f64) as f32)
            .collect();
        Self {
            source,
            num_rows,
            row_len,
            mean,
        }
    }

    /// Calls `visit` with `[at most CHUNK_LEN, row_len]` values, in order.
    fn for_each_chunk(&mut self, mut visit: impl FnMut(&[f32])) {
        let mut chunk = Vec::new();
        for start in (0..self.num_rows).step_by(CHUNK_LEN) {
            let len = CHUNK_LEN.min(self.num_rows - start);
            chunk.resize(len * self.row_len, 0.0);
            for (offset, row) in chunk.chunks_exact_mut(self.row_len).enumerate() {
                (self.source)(start + offset, row);
                for (value, mean) in row.iter_mut().zip(&self.mean) {
                    *value -= mean;
                }
            }
            visit(&chunk);
        }
    }

    /// Mean of the rows' outer squares. `[row_len, row_len]`
    fn covariance(&mut self, pool: &Pool) -> Vec<f64> {
        let (row_len, num_rows) = (self.row_len, self.num_rows as f64);
        let mut total = vec![0.0_f64; row_len * row_len];
        let mut products = vec![0.0; row_len * row_len];
        self.for_each_chunk(|chunk| {
            let columns = transposed(chunk, row_len); // [row_len, chunk]
            let layer = pack(pool, chunk.len() / row_len, &columns);
            layer.forward(pool, &columns, &mut products, &mut GemmScratch::default());
            for (total, &product) in total.iter_mut().zip(&products) {
                *total += f64::from(product) / num_rows;
            }
        });
        total
    }
}

/// Orthonormal directions of most variance, the widest first, by iterating a block of vectors.
/// `covariance`: `[len, len]`; result `[num_components, len]`
fn leading_directions(pool: &Pool, covariance: &[f64], len: usize, num_components: usize) -> Vec<f32> {
    let covariance: Vec<f32> = covariance.iter().map(|&value| value as f32).collect();
    let layer = pack(pool, len, &covariance);
    let num_vectors = (num_components + NUM_SPARE).min(len);
    let mut draws = Draws::new(0);
    let mut block: Vec<f32> = (0..num_vectors * len).map(|_| draws.next() as f32).collect();
    orthonormalise(&mut block, len);
    let mut next = vec![0.0; block.len()];
    for _ in 0..NUM_ROUNDS {
        // The covariance is its own transpose, so that its rows are what the vectors are multiplied by.
        layer.forward(pool, &block, &mut next, &mut GemmScratch::default());
        std::mem::swap(&mut block, &mut next);
        orthonormalise(&mut block, len);
    }
    block.truncate(num_components * len);
    block
}

/// Gram-Schmidt on the rows, twice each against rounding; a row that the earlier ones span becomes 0.
fn orthonormalise(block: &mut [f32], len: usize) {
    let num_vectors = block.len() / len;
    for idx in 0..num_vectors {
        let (earlier, rest) = block.split_at_mut(idx * len);
        let mut vector: Vec<f64> = rest[..len].iter().map(|&value| f64::from(value)).collect();
        let norm_before = norm(&vector);
        for _ in 0..2 {
            for other in earlier.chunks_exact(len) {
                let along = dot(other, &vector);
                for (value, &other) in vector.iter_mut().zip(other) {
                    *value -= along * f64::from(other);
                }
            }
        }
        let norm_left = norm(&vector);
        let scale = if norm_left > MIN_SHARE * norm_before {
            norm_left.recip()
        } else {
            0.0
        };
        for (slot, value) in rest.iter_mut().zip(&vector) {
            *slot = (value * scale) as f32;
        }
    }
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Columns as rows. `[rows, row_len]` to `[row_len, rows]`
fn transposed(rows: &[f32], row_len: usize) -> Vec<f32> {
    let num_rows = rows.len() / row_len;
    let mut columns = vec![0.0; rows.len()];
    for (row_idx, row) in rows.chunks_exact(row_len).enumerate() {
        for (column_idx, &value) in row.iter().enumerate() {
            columns[column_idx * num_rows + row_idx] = value;
        }
    }
    columns
}

/// A layer of the rows of `weights` `[out_len, in_len]`.
fn pack(pool: &Pool, in_len: usize, weights: &[f32]) -> Linear {
    let fill = |out_idx: usize, row: &mut [f32]| row.copy_from_slice(&weights[out_idx * in_len..][..in_len]);
    Linear::pack(pool, Precision::F32, in_len, weights.len() / in_len, &fill, None)
}
