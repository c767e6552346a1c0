//! Layers with 4-bit weights in blocks of 32 inputs and activations of 8 bits.
//!
//! Made for decoding few rows at a time, when the time of a step is that of reading the weights. A block's sum is an
//! exact integer; blocks are added in `f32` in rising order, each as `sum + scale * block`, rounded twice on every
//! instruction set, so that results agree to the last bit everywhere.

use half::bf16;

use super::float::store_rows;
use super::kernel::{BLOCK, BLOCK_BYTES, Int4Kernel, Int4Tile, Sums, int4_kernel, int4_panel_bytes};
use super::quantise::{Planes, nearest_levels, negated_block_sums, quantise_row};
use super::split::Split;
use super::{GemmScratch, PANEL};
use crate::aligned::AlignedBytes;
use crate::isa::Isa;
use crate::pool::{DisjointSlice, Pool};

/// Weights as panels of blocks; see [`int4_panel_bytes`] for the layout.
#[derive(Debug)]
pub(super) struct PackedInt4 {
    isa: Isa,
    in_len: usize,
    out_len: usize,
    num_blocks: usize,
    weights: AlignedBytes,
}

/// What is subtracted from a stored nibble to get a level in `-8..=7`.
pub(super) const NIBBLE_OFFSET: i32 = 8;
/// Panels packed by one task.
const PACK_PANELS: usize = 4;
/// Rows of activations of one task.
const MAX_TASK_ROWS: usize = 64;

/// One call's quantised input and where its output goes.
struct Call<'a> {
    acts: &'a [u8],
    act_stride: usize,
    row_scales: &'a [f32],
    block_sums: &'a [i32],
    bias: &'a [f32],
    output: DisjointSlice<'a, f32>,
}

impl PackedInt4 {
    pub(super) fn pack(
        isa: Isa,
        pool: &Pool,
        in_len: usize,
        out_len: usize,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        let num_blocks = in_len.div_ceil(BLOCK);
        let panel_bytes = int4_panel_bytes(num_blocks);
        let len = out_len.div_ceil(PANEL) * panel_bytes;
        let mut weights = AlignedBytes::zeroed::<u8>(len);
        pool.run_chunks_mut(
            &mut weights.as_mut_slice()[..len],
            PACK_PANELS * panel_bytes,
            |task_idx, panels| {
                let mut row = vec![0.0; num_blocks * BLOCK];
                let first_out = task_idx * PACK_PANELS * PANEL;
                for out_idx in first_out..out_len.min(first_out + PACK_PANELS * PANEL) {
                    fill(out_idx, &mut row[..in_len]);
                    let local = out_idx - first_out;
                    let panel = &mut panels[local / PANEL * panel_bytes..][..panel_bytes];
                    place(isa, &row, local % PANEL, panel);
                }
            },
        );
        Self {
            isa,
            in_len,
            out_len,
            num_blocks,
            weights,
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.weights.size_bytes()
    }

    pub(super) fn dequantize_row(&self, out_idx: usize, row: &mut [f32]) {
        let panel_bytes = int4_panel_bytes(self.num_blocks);
        let panel = &self.weights.as_slice::<u8>()[out_idx / PANEL * panel_bytes..][..panel_bytes];
        let (nibbles, scales) = panel.split_at(self.num_blocks * BLOCK_BYTES);
        let lane = out_idx % PANEL;
        let blocks = row.chunks_mut(BLOCK).zip(nibbles.chunks_exact(BLOCK_BYTES));
        for ((values, nibbles), scales) in blocks.zip(scales.chunks_exact(2 * PANEL)) {
            let scale = bf16::from_le_bytes([scales[2 * lane], scales[2 * lane + 1]]).to_f32();
            for (k, value) in values.iter_mut().enumerate() {
                let (byte, shift) = nibble_at(lane, k);
                let nibble = nibbles[byte] >> shift & 0xf;
                *value = (i32::from(nibble) - NIBBLE_OFFSET) as f32 * scale;
            }
        }
    }

    /// `input`: `[rows, in_len]`, `bias`: padded to whole panels, `output`: `[rows, out_len]`.
    pub(super) fn forward(
        &self,
        pool: &Pool,
        input: &[f32],
        bias: &[f32],
        output: &mut [f32],
        scratch: &mut GemmScratch,
    ) {
        let rows = input.len() / self.in_len;
        self.quantise(input, rows, scratch);
        let call = Call {
            acts: scratch.quantised.as_slice(),
            act_stride: self.num_blocks * BLOCK,
            row_scales: &scratch.row_scales,
            block_sums: &scratch.block_sums,
            bias,
            output: DisjointSlice::new(output),
        };
        let kernel = int4_kernel(self.isa);
        let panels = (self.out_len.div_ceil(PANEL), int4_panel_bytes(self.num_blocks));
        let split = Split::new((rows, MAX_TASK_ROWS), panels, 1, pool.num_threads());
        pool.run(split.num_tasks(), &|task_idx| {
            self.run_task(&split, task_idx, kernel, &call);
        });
    }

    /// On the calling thread: rows are few where this precision is used.
    fn quantise(&self, input: &[f32], rows: usize, scratch: &mut GemmScratch) {
        let stride = self.num_blocks * BLOCK;
        scratch.quantised.grow::<u8>(rows * stride);
        scratch.row_scales.resize(rows, 0.0);
        scratch.block_sums.resize(rows * self.num_blocks, 0);
        let levels = scratch.quantised.as_mut_slice::<u8>().chunks_exact_mut(stride);
        let sums = scratch.block_sums.chunks_exact_mut(self.num_blocks);
        let rows = input
            .chunks_exact(self.in_len)
            .zip(levels)
            .zip(sums)
            .zip(&mut scratch.row_scales);
        for (((row, levels), sums), scale) in rows {
            *scale = quantise_row(self.isa, row, Planes::One, 0, levels);
            negated_block_sums(self.isa, levels, sums);
        }
    }

    fn run_task(&self, split: &Split, task_idx: usize, kernel: Int4Kernel, call: &Call<'_>) {
        let (rows, panels) = split.task(task_idx);
        let panel_bytes = int4_panel_bytes(self.num_blocks);
        let mut sums = Sums::new();
        for panel in panels {
            let weights = &self.weights.as_slice::<u8>()[panel * panel_bytes..(panel + 1) * panel_bytes];
            for row in rows.clone().step_by(kernel.tile_rows) {
                let tile_rows = row..rows.end.min(row + kernel.tile_rows);
                let acts = &call.acts[row * call.act_stride..tile_rows.end * call.act_stride];
                let block_sums = &call.block_sums[row * self.num_blocks..tile_rows.end * self.num_blocks];
                let tile = Int4Tile {
                    rows: tile_rows.len(),
                    num_blocks: self.num_blocks,
                    acts,
                    block_sums,
                    weights,
                };
                // SAFETY: the instruction set was checked when the weights were packed; the slices have the lengths
                // that the tile promises.
                unsafe { (kernel.tile)(&tile, &mut sums) };
                let row_scales = &call.row_scales[tile_rows.clone()];
                for (sums, scale) in sums.0.as_chunks_mut::<PANEL>().0.iter_mut().zip(row_scales) {
                    for sum in sums {
                        *sum *= scale;
                    }
                }
                store_rows(
                    &sums,
                    tile_rows,
                    panel..panel + 1,
                    call.bias,
                    (&call.output, self.out_len),
                );
            }
        }
    }
}

/// Rounds one output's weights (whole blocks) and puts them into its lane of a panel.
fn place(isa: Isa, row: &[f32], lane: usize, panel: &mut [u8]) {
    let (nibbles, scales) = panel.split_at_mut(row.len() / BLOCK * BLOCK_BYTES);
    let blocks = row
        .as_chunks::<BLOCK>()
        .0
        .iter()
        .zip(nibbles.chunks_exact_mut(BLOCK_BYTES));
    for ((values, nibbles), scales) in blocks.zip(scales.chunks_exact_mut(2 * PANEL)) {
        let (scale, levels) = nearest_levels(isa, values);
        scales[2 * lane..2 * lane + 2].copy_from_slice(&scale.to_le_bytes());
        for (k, level) in levels.into_iter().enumerate() {
            let (byte, shift) = nibble_at(lane, k);
            nibbles[byte] |= ((level + NIBBLE_OFFSET) as u8) << shift;
        }
    }
}

/// Byte within a block and shift within the byte of input `k` for output `lane`: 64-byte vectors of 16 outputs x 4
/// inputs as in the 8-bit layout, the first four in the low nibbles, the last four in the high ones.
fn nibble_at(lane: usize, k: usize) -> (usize, u32) {
    let group = k / 4;
    (group % 4 * 64 + lane * 4 + k % 4, if group < 4 { 0 } else { 4 })
}
