//! Kernels in plain Rust: the reference that every other path must equal.

use super::float_tile::{Weight, peak, tile};
use super::{BLOCK, BLOCK_BYTES, FloatKernel, Int4Kernel, Int4Tile, Int8Kernel, PANEL, Peak, Sums, TileArgs};
use crate::lanes::portable::Array;

unsafe fn float_tile<W: Weight>(args: &TileArgs<f32, W>, sums: &mut Sums<f32>) {
    // SAFETY: the caller's contract is that of `tile`; plain Rust needs no instruction set.
    unsafe { tile::<Array, W, 4>(args, sums) };
}

pub(super) fn float_kernel<W: Weight>() -> FloatKernel<W> {
    FloatKernel {
        tile: float_tile::<W>,
        tile_rows: 16,
        tile_panels: 1,
    }
}

pub(super) const F32_PEAK: Peak = (f32_peak, 2 * 2 * PANEL);

unsafe fn f32_peak(steps: usize) {
    // SAFETY: plain Rust needs no instruction set.
    unsafe { peak::<Array, 2>(steps) };
}

pub(super) const INT8: Int8Kernel = Int8Kernel {
    tile: int8_tile,
    tile_rows: 16,
    tile_panels: 1,
    enter: nothing,
    leave: nothing,
};

/// Brackets a task where nothing has to be set up.
pub(super) unsafe fn nothing() {}

/// Activations are signed bytes here: this path has no instruction that wants them shifted.
unsafe fn int8_tile(args: &TileArgs<u8, i8>, sums: &mut Sums<i32>) {
    let width = args.num_panels * PANEL;
    for row in 0..args.rows {
        // SAFETY: `k_len` activations are readable for each row by the caller's contract.
        let acts = unsafe { std::slice::from_raw_parts(args.acts.add(row * args.act_stride), args.k_len) };
        for panel in 0..args.num_panels {
            // SAFETY: a panel holds `k_len * PANEL` weights by the caller's contract.
            let weights = unsafe {
                std::slice::from_raw_parts(args.weights.add(panel * args.panel_stride), args.k_len * PANEL)
            };
            let start = row * width + panel * PANEL;
            let out: &mut [i32] = &mut sums.0[start..start + PANEL];
            out.copy_from_slice(&dot(acts, weights));
        }
    }
}

fn dot(acts: &[u8], weights: &[i8]) -> [i32; PANEL] {
    let mut sums = [0_i32; PANEL];
    for (acts, weights) in acts.chunks_exact(4).zip(weights.chunks_exact(4 * PANEL)) {
        for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(4)) {
            for (&act, &weight) in acts.iter().zip(weights) {
                *sum += i32::from(act.cast_signed()) * i32::from(weight);
            }
        }
    }
    sums
}

pub(super) const INT4: Int4Kernel = Int4Kernel {
    tile: int4_tile,
    tile_rows: 16,
};

unsafe fn int4_tile(tile: &Int4Tile<'_>, sums: &mut Sums<f32>) {
    tile.check();
    let rows = tile
        .acts
        .chunks_exact(tile.num_blocks * BLOCK)
        .zip(tile.block_sums.chunks_exact(tile.num_blocks));
    for ((acts, block_sums), sums) in rows.zip(sums.0.as_chunks_mut::<PANEL>().0) {
        let (nibbles, scales) = tile.weights.split_at(tile.num_blocks * BLOCK_BYTES);
        *sums = [0.0; PANEL];
        let blocks = acts
            .as_chunks::<BLOCK>()
            .0
            .iter()
            .zip(nibbles.as_chunks::<BLOCK_BYTES>().0);
        for (((acts, nibbles), &start), scales) in blocks
            .zip(block_sums)
            .zip(scales.as_chunks::<2>().0.chunks(PANEL))
        {
            let products = int4_dot(acts, nibbles, start);
            for ((sum, product), &scale) in sums.iter_mut().zip(products).zip(scales) {
                *sum += half::bf16::from_le_bytes(scale).to_f32() * product as f32;
            }
        }
    }
}

fn int4_dot(acts: &[u8; BLOCK], nibbles: &[u8; BLOCK_BYTES], start: i32) -> [i32; PANEL] {
    let mut sums = [start; PANEL];
    let (low, high) = acts.split_at(BLOCK / 2);
    for ((low, high), vector) in low
        .chunks_exact(4)
        .zip(high.chunks_exact(4))
        .zip(nibbles.chunks_exact(64))
    {
        for (sum, bytes) in sums.iter_mut().zip(vector.chunks_exact(4)) {
            for ((&low, &high), &byte) in low.iter().zip(high).zip(bytes) {
                *sum += i32::from(low.cast_signed()) * i32::from(byte & 0xf);
                *sum += i32::from(high.cast_signed()) * i32::from(byte >> 4);
            }
        }
    }
    sums
}
