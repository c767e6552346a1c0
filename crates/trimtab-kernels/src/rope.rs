//! Rotary position embedding of query and key rows. Knows frequencies and positions, no model's configuration.
//!
//! Angles, sines and cosines are computed in f64, so that positions of any size are exact, and kept per position:
//! every layer and every head of a row uses the same ones.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::isa::{Isa, for_isa};
use crate::pool::Pool;

#[cfg(test)]
mod tests;

/// Positions per page of the table.
const PAGE_LEN: u32 = 64;
/// Elements of a task: some microseconds of work.
const TASK_LEN: usize = 8 << 10;

/// Cosines of a position, then its sines, for [`PAGE_LEN`] positions one after the other.
type Page = Box<[f32]>;
type Pages = BTreeMap<u32, Page>;

/// Cosines and sines of the positions seen so far, for one set of frequencies.
#[derive(Debug)]
pub struct RopeTable {
    /// Radians per position. `[head_dim / 2]`
    inv_freq: Vec<f64>,
    attention_factor: f64,
    /// Grows by whole pages as positions are first used.
    pages: RwLock<Pages>,
}

impl RopeTable {
    /// A table for `inv_freq.len()` pairs of dimensions, `inv_freq` in radians per position; cosines and sines are
    /// multiplied by `attention_factor`.
    pub fn new(inv_freq: &[f64], attention_factor: f64) -> Self {
        Self {
            inv_freq: inv_freq.to_vec(),
            attention_factor,
            pages: RwLock::default(),
        }
    }

    /// The pages, among them those of `positions`.
    fn pages_with(&self, positions: &[u32]) -> RwLockReadGuard<'_, Pages> {
        let missing: Vec<u32> = {
            let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
            let page_idx = positions.iter().map(|position| position / PAGE_LEN);
            page_idx
                .filter(|page_idx| !pages.contains_key(page_idx))
                .collect()
        };
        if !missing.is_empty() {
            let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
            for page_idx in missing {
                pages.entry(page_idx).or_insert_with(|| self.page(page_idx));
            }
        }
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, page_idx: u32) -> Page {
        let mut page = Vec::with_capacity(PAGE_LEN as usize * 2 * self.inv_freq.len());
        for offset in 0..PAGE_LEN {
            let position = f64::from(page_idx) * f64::from(PAGE_LEN) + f64::from(offset);
            let angles = self.inv_freq.iter().map(|frequency| position * frequency);
            page.extend(
                angles
                    .clone()
                    .map(|angle| (angle.cos() * self.attention_factor) as f32),
            );
            page.extend(angles.map(|angle| (angle.sin() * self.attention_factor) as f32));
        }
        page.into_boxed_slice()
    }
}

/// Rotates each head of each row by the angles of the row's position: with `h = head_dim / 2` dimension `i < h` is
/// paired with `i + h` (the order of published Llama, Qwen and Gemma checkpoints).
///
/// # Shapes
/// `rows`: `[positions.len(), row_len]`; the first `num_heads * head_dim` values of a row are its heads, the rest
/// stays as it is.
///
/// # Panics
/// If the lengths contradict each other or `table` is for heads of another width.
pub fn apply_rope(
    pool: &Pool,
    rows: &mut [f32],
    row_len: usize,
    num_heads: usize,
    head_dim: usize,
    positions: &[u32],
    table: &RopeTable,
) {
    assert_eq!(
        head_dim,
        2 * table.inv_freq.len(),
        "expected heads as wide as the table's"
    );
    assert!(
        num_heads * head_dim <= row_len,
        "expected the heads to fit a row of {row_len}"
    );
    assert_eq!(
        rows.len(),
        positions.len() * row_len,
        "expected a row for each position"
    );
    if rows.is_empty() {
        return;
    }
    let isa = Isa::detect();
    let pages = table.pages_with(positions);
    let rows_per_task = (TASK_LEN / row_len).max(1);
    pool.run_chunks_mut(rows, rows_per_task * row_len, |chunk_idx, rows| {
        let positions = &positions[chunk_idx * rows_per_task..];
        for (row, &position) in rows.chunks_exact_mut(row_len).zip(positions) {
            let start = (position % PAGE_LEN) as usize * head_dim;
            let cos_sin = &pages[&(position / PAGE_LEN)][start..start + head_dim];
            let heads = &mut row[..num_heads * head_dim];
            for_isa!(isa, rotate_heads(heads: &mut [f32], cos_sin: &[f32]));
        }
    });
}

/// `heads`: `[num_heads, head_dim]`, `cos_sin`: cosines of the pairs, then sines. `[head_dim]`
#[inline(always)]
fn rotate_heads(heads: &mut [f32], cos_sin: &[f32]) {
    let half = cos_sin.len() / 2;
    let (cos, sin) = cos_sin.split_at(half);
    for head in heads.chunks_exact_mut(cos_sin.len()) {
        let (first, second) = head.split_at_mut(half);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
