//! Rounding rows to 8 bits and scaling integer sums back, identically on every instruction set.
//!
//! Both are plain loops over fixed sixteen-lane blocks that are compiled once per instruction set; Rust never fuses
//! or reorders their float operations, so the results agree to the last bit.

use half::bf16;

use super::PANEL;
use super::int4::NIBBLE_OFFSET;
use super::kernel::{BLOCK, Sums};
use crate::isa::{Isa, for_isa};
use crate::pool::DisjointSlice;

/// Largest magnitude of a quantised value; -128 is unused so that signs can be flipped freely.
const MAX_INT8: f32 = 127.0;
/// Units of the low plane per unit of the high plane.
const PLANE_RATIO: f32 = 128.0;
/// Adding and subtracting 1.5 * 2^23 rounds a float below 2^22 to the nearest integer, ties to even.
const ROUND_TO_INTEGER: f32 = 12_582_912.0;
/// Bits of infinity: the bits of every magnitude that is not finite are at or above.
const INFINITY_BITS: u32 = 0x7f80_0000;

/// How a row is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planes {
    /// One byte per value.
    One,
    /// Two bytes per value, `128 * high + low`, each plane a row of its own.
    Two,
}

impl Planes {
    pub(super) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    fn max_level(self) -> f32 {
        match self {
            Self::One => MAX_INT8,
            Self::Two => MAX_INT8 * PLANE_RATIO,
        }
    }
}

/// Rounds `row` to `planes` rows of bytes of equal length in `levels`, each value shifted by `offset`; bytes beyond
/// the row become zero levels. Returns the scale: `value ~ scale * level`.
///
/// A row whose largest magnitude is below about 4e-37 counts as zero, with scale 0. A row with a value that is not
/// finite gets the scale NaN and arbitrary levels.
pub(super) fn quantise_row(isa: Isa, row: &[f32], planes: Planes, offset: i32, levels: &mut [u8]) -> f32 {
    for_isa!(isa, quantise_row_generic(row: &[f32], planes: Planes, offset: i32, levels: &mut [u8]) -> f32)
}

#[inline(always)]
fn quantise_row_generic(row: &[f32], planes: Planes, offset: i32, levels: &mut [u8]) -> f32 {
    let max_bits = row
        .iter()
        .fold(0, |max, value| (value.to_bits() & 0x7fff_ffff).max(max));
    let max_magnitude = f32::from_bits(max_bits);
    let (inverse, scale) = match planes.max_level() / max_magnitude {
        _ if max_bits >= INFINITY_BITS => (0.0, f32::NAN),
        inverse if inverse.is_finite() => (inverse, max_magnitude / planes.max_level()),
        _ => (0.0, 0.0),
    };
    let zero = offset as u8;
    match planes {
        Planes::One => {
            let (used, padding) = levels.split_at_mut(row.len());
            for (level, value) in used.iter_mut().zip(row) {
                *level = (integer(value * inverse) + offset) as u8;
            }
            padding.fill(zero);
        }
        Planes::Two => {
            let (high, low) = levels.split_at_mut(levels.len() / 2);
            let (high, high_padding) = high.split_at_mut(row.len());
            let (low, low_padding) = low.split_at_mut(row.len());
            for ((high, low), value) in high.iter_mut().zip(low).zip(row) {
                let level = round(value * inverse);
                let high_level = round(level * (1.0 / PLANE_RATIO));
                *high = (integer(high_level) + offset) as u8;
                *low = (integer(level - high_level * PLANE_RATIO) + offset) as u8;
            }
            high_padding.fill(zero);
            low_padding.fill(zero);
        }
    }
    scale
}

/// For each block of signed levels what undoes the offset of the nibbles it is multiplied with.
pub(super) fn negated_block_sums(isa: Isa, levels: &[u8], sums: &mut [i32]) {
    for_isa!(isa, negated_block_sums_generic(levels: &[u8], sums: &mut [i32]));
}

#[inline(always)]
fn negated_block_sums_generic(levels: &[u8], sums: &mut [i32]) {
    for (sum, block) in sums.iter_mut().zip(levels.as_chunks::<BLOCK>().0) {
        *sum = -NIBBLE_OFFSET
            * block
                .iter()
                .map(|level| i32::from(level.cast_signed()))
                .sum::<i32>();
    }
}

/// Magnitudes of the level that the largest weight of a block may become; the best is searched among them.
const TOP_LEVELS: [f32; 9] = [6.4, 6.7, 7.0, 7.3, 7.6, 7.8, 8.0, 8.3, 8.6];

/// A scale and levels in `-8..=7` near a block of weights: levels are tried for some scales of either sign, each with
/// the scale that is best for them in the sense of least squares. A block with a value that is not finite gets the
/// scale NaN.
pub(super) fn nearest_levels(isa: Isa, values: &[f32; BLOCK]) -> (bf16, [i32; BLOCK]) {
    for_isa!(isa, nearest_levels_generic(values: &[f32; BLOCK]) -> (bf16, [i32; BLOCK]))
}

#[inline(always)]
fn nearest_levels_generic(values: &[f32; BLOCK]) -> (bf16, [i32; BLOCK]) {
    if !values.iter().all(|value| value.is_finite()) {
        return (bf16::NAN, [0; BLOCK]);
    }
    let larger = |max: f32, value: f32| if value.abs() > max.abs() { value } else { max };
    let largest = values.iter().copied().fold(0.0, larger);
    let mut best = (0.0, bf16::ZERO, [0; BLOCK]);
    for top_level in TOP_LEVELS {
        // There is one more negative level than positive ones, so the largest weight becomes negative.
        let inverse = -top_level / largest;
        if !inverse.is_finite() {
            continue;
        }
        let mut levels = [0; BLOCK];
        let (mut product, mut square) = (0.0, 0.0);
        for (level, value) in levels.iter_mut().zip(values) {
            let rounded = round((value * inverse).clamp(-8.0, 7.0));
            *level = integer(rounded);
            product += value * rounded;
            square += rounded * rounded;
        }
        // With the scale `product / square` the squared error is the weights' own square minus this.
        let explained = product * product / square;
        if explained > best.0 {
            best = (explained, bf16::from_f32(product / square), levels);
        }
    }
    (best.1, best.2)
}

/// To the nearest integer, ties to even; for magnitudes below 2^22.
#[inline(always)]
fn round(value: f32) -> f32 {
    (value + ROUND_TO_INTEGER) - ROUND_TO_INTEGER
}

/// [`round`] as an integer, without the checks of `as`.
#[inline(always)]
fn integer(value: f32) -> i32 {
    (value + ROUND_TO_INTEGER).to_bits().cast_signed() - ROUND_TO_INTEGER.to_bits().cast_signed()
}

/// A tile of integer sums and where its outputs go.
pub(super) struct ScaleArgs<'a> {
    /// `[rows * planes, panels * PANEL]`.
    pub(super) sums: &'a Sums<i32>,
    pub(super) planes: Planes,
    /// Added to the sums: undoes the shift of the activations. This and the next two cover the tile's panels.
    pub(super) corrections: &'a [i32],
    pub(super) out_scales: &'a [f32],
    pub(super) bias: &'a [f32],
    /// One per row of the tile, planes counted once.
    pub(super) row_scales: &'a [f32],
    /// `[all rows, out_len]`.
    pub(super) output: &'a DisjointSlice<'a, f32>,
    pub(super) out_len: usize,
    /// Place of the tile in the output.
    pub(super) first_row: usize,
    pub(super) first_out: usize,
}

/// Writes `sum as f32 * (row_scale * out_scale) + bias` for each sum of a tile.
///
/// # Safety
/// No other thread touches the tile's part of the output.
pub(super) unsafe fn scale_tile(isa: Isa, args: &ScaleArgs<'_>) {
    for_isa!(isa, scale_tile_generic(args: &ScaleArgs<'_>));
}

#[inline(always)]
fn scale_tile_generic(args: &ScaleArgs<'_>) {
    match args.planes {
        Planes::One => scale_panels::<1>(args),
        Planes::Two => scale_panels::<2>(args),
    }
}

#[inline(always)]
fn scale_panels<const NUM_PLANES: usize>(args: &ScaleArgs<'_>) {
    let width = args.out_scales.len();
    assert!(args.row_scales.len() * NUM_PLANES * width <= args.sums.0.len());
    let panels = blocks(args.corrections)
        .zip(blocks(args.out_scales))
        .zip(blocks(args.bias));
    for (panel, ((corrections, out_scales), bias)) in panels.enumerate() {
        let per_output = (*corrections, *out_scales, *bias);
        let first_out = args.first_out + panel * PANEL;
        let used = PANEL.min(args.out_len - first_out);
        // One loop for whole panels, so that values go from registers to the output.
        if used == PANEL {
            for row in 0..args.row_scales.len() {
                let values = scaled::<NUM_PLANES>(args, row, panel * PANEL, per_output);
                // SAFETY: see `output_at`.
                unsafe {
                    output_at(args, row, first_out, PANEL)
                        .cast::<[f32; PANEL]>()
                        .write_unaligned(values);
                }
            }
        } else {
            for row in 0..args.row_scales.len() {
                let values = scaled::<NUM_PLANES>(args, row, panel * PANEL, per_output);
                // SAFETY: see `output_at`.
                unsafe {
                    output_at(args, row, first_out, used).copy_from_nonoverlapping(values.as_ptr(), used);
                }
            }
        }
    }
}

/// `len` outputs of a row of the tile: in bounds, and by the contract of [`scale_tile`] this thread's alone.
#[inline(always)]
fn output_at(args: &ScaleArgs<'_>, row: usize, first_out: usize, len: usize) -> *mut f32 {
    args.output
        .checked_ptr((args.first_row + row) * args.out_len + first_out, len)
}

/// The outputs of one row and panel, of which the panel's first column in the tile is `column`.
#[inline(always)]
fn scaled<const NUM_PLANES: usize>(
    args: &ScaleArgs<'_>,
    row: usize,
    column: usize,
    (corrections, out_scales, bias): ([i32; PANEL], [f32; PANEL], [f32; PANEL]),
) -> [f32; PANEL] {
    let width = args.out_scales.len();
    let sums = |plane: usize| {
        let start = (row * NUM_PLANES + plane) * width + column;
        // SAFETY: `scale_panels` asserts that all rows and columns of the tile lie inside the buffer.
        unsafe {
            args.sums
                .0
                .as_ptr()
                .add(start)
                .cast::<[i32; PANEL]>()
                .read_unaligned()
        }
    };
    let (high, low) = (sums(0), sums(NUM_PLANES - 1));
    let row_scale = args.row_scales[row];
    let mut values = [0.0; PANEL];
    for lane in 0..PANEL {
        let mut sum = (high[lane] + corrections[lane]) as f32;
        if NUM_PLANES == 2 {
            sum = sum * PLANE_RATIO + (low[lane] + corrections[lane]) as f32;
        }
        values[lane] = sum * (row_scale * out_scales[lane]) + bias[lane];
    }
    values
}

fn blocks<T>(values: &[T]) -> impl Iterator<Item = &[T; PANEL]> {
    values.as_chunks::<PANEL>().0.iter()
}

#[cfg(test)]
mod tests;
