//! Layers with 8-bit weights and activations rounded on the fly.

use std::ops::Range;

use super::kernel::{Int8Kernel, K_STEP, ROW_PADDING, Sums, TileArgs, act_offset, int8_kernels};
use super::quantise::{Planes, ScaleArgs, quantise_row, scale_tile};
use super::split::Split;
use super::{GemmScratch, PANEL};
use crate::aligned::AlignedBytes;
use crate::isa::Isa;
use crate::pool::{DisjointSlice, Pool};

/// Weights as `[panels, k / 4, PANEL, 4]` bytes, zero beyond the last input and output.
#[derive(Debug)]
pub(super) struct PackedInt8 {
    isa: Isa,
    in_len: usize,
    out_len: usize,
    /// `in_len` rounded up to whole blocks.
    k_len: usize,
    weights: AlignedBytes,
    /// One per output, padded to whole panels.
    out_scales: Vec<f32>,
    /// `-offset * sum of weights` per output: what the shift of the activations adds to a sum, negated.
    corrections: Vec<i32>,
}

/// Panels packed by one task.
const PACK_PANELS: usize = 4;
/// Rows of activations of one task.
const MAX_TASK_ROWS: usize = 64;
/// Panels of the widest tile of any kernel.
const MAX_TILE_PANELS: usize = 4;
/// Values below which one thread rounds all rows: another would take longer to join than to help.
const MIN_PARALLEL_VALUES: usize = 16 << 10;

/// One call's quantised input and where its output goes.
struct Call<'a> {
    acts: &'a [u8],
    act_stride: usize,
    row_scales: &'a [f32],
    planes: Planes,
    bias: &'a [f32],
    output: DisjointSlice<'a, f32>,
}

/// Rows (planes counted apart) and panels of one tile.
struct Tile {
    rows: Range<usize>,
    panels: Range<usize>,
}

impl PackedInt8 {
    pub(super) fn pack(
        isa: Isa,
        pool: &Pool,
        in_len: usize,
        out_len: usize,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        let k_len = in_len.next_multiple_of(K_STEP);
        let padded_out = out_len.next_multiple_of(PANEL);
        let panel_len = k_len * PANEL;
        let len = padded_out * k_len;
        let mut weights = AlignedBytes::zeroed::<i8>(len);
        let mut per_output = vec![(0.0_f32, 0_i32); padded_out];
        pool.run_chunk_pairs_mut(
            (&mut weights.as_mut_slice::<i8>()[..len], PACK_PANELS * panel_len),
            (&mut per_output, PACK_PANELS * PANEL),
            |task_idx, panels, per_output| {
                let mut row = vec![0.0; in_len];
                let mut levels = vec![0; k_len];
                let first_out = task_idx * PACK_PANELS * PANEL;
                for out_idx in first_out..out_len.min(first_out + per_output.len()) {
                    fill(out_idx, &mut row);
                    let local = out_idx - first_out;
                    let scale = quantise_row(isa, &row, Planes::One, 0, &mut levels);
                    let panel = &mut panels[local / PANEL * panel_len..][..panel_len];
                    let sum = place(&levels, local % PANEL, panel);
                    per_output[local] = (scale, -act_offset(isa) * sum);
                }
            },
        );
        let (out_scales, corrections) = per_output.into_iter().unzip();
        Self {
            isa,
            in_len,
            out_len,
            k_len,
            weights,
            out_scales,
            corrections,
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.weights.size_bytes() + size_of_val(&*self.out_scales) + size_of_val(&*self.corrections)
    }

    pub(super) fn dequantize_row(&self, out_idx: usize, row: &mut [f32]) {
        let panel = &self.weights.as_slice::<i8>()[out_idx / PANEL * self.k_len * PANEL..];
        let scale = self.out_scales[out_idx];
        let lane = out_idx % PANEL * 4;
        for (values, block) in row.chunks_mut(4).zip(panel.chunks_exact(4 * PANEL)) {
            for (value, &level) in values.iter_mut().zip(&block[lane..lane + 4]) {
                *value = f32::from(level) * scale;
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
        (scratch, is_wide): (&mut GemmScratch, bool),
    ) {
        let planes = if is_wide { Planes::Two } else { Planes::One };
        self.quantise(pool, input, planes, scratch);
        let call = Call {
            acts: scratch.quantised.as_slice(),
            act_stride: self.act_stride(),
            row_scales: &scratch.row_scales,
            planes,
            bias,
            output: DisjointSlice::new(output),
        };
        let rows = call.row_scales.len() * planes.count();
        let panels = (self.out_len.div_ceil(PANEL), self.k_len * PANEL);
        let split = Split::new((rows, MAX_TASK_ROWS), panels, MAX_TILE_PANELS, pool.num_threads());
        pool.run(split.num_tasks(), &|task_idx| {
            self.run_task(&split, task_idx, &call);
        });
    }

    /// Bytes between rows of activations. Rows a multiple of 1024 bytes apart would fall into few cache sets, so
    /// such rows are spread by a line.
    fn act_stride(&self) -> usize {
        if self.k_len.is_multiple_of(1024) {
            self.k_len + 64
        } else {
            self.k_len
        }
    }

    fn quantise(&self, pool: &Pool, input: &[f32], planes: Planes, scratch: &mut GemmScratch) {
        let rows = input.len() / self.in_len;
        let row_bytes = self.act_stride() * planes.count();
        // Tiles of the last rows read on to the next multiple of the padding; what is there does not matter.
        scratch.quantised.grow::<u8>((rows + ROW_PADDING) * row_bytes);
        scratch.row_scales.resize(rows, 0.0);
        let num_chunks = if input.len() < MIN_PARALLEL_VALUES {
            1
        } else {
            (pool.num_threads() * 2).min(rows)
        };
        let chunk_rows = rows.div_ceil(num_chunks);
        pool.run_chunk_pairs_mut(
            (
                &mut scratch.quantised.as_mut_slice()[..rows * row_bytes],
                chunk_rows * row_bytes,
            ),
            (&mut scratch.row_scales, chunk_rows),
            |chunk_idx, levels, scales| {
                let input = &input[chunk_idx * chunk_rows * self.in_len..];
                let rows = input
                    .chunks_exact(self.in_len)
                    .zip(levels.chunks_exact_mut(row_bytes));
                for ((row, levels), scale) in rows.zip(scales) {
                    *scale = quantise_row(self.isa, row, planes, act_offset(self.isa), levels);
                }
            },
        );
    }

    fn run_task(&self, split: &Split, task_idx: usize, call: &Call<'_>) {
        let (rows, panels) = split.task(task_idx);
        // Two buffers: a tile is computed while the sums of the one before are scaled, so that a processor that
        // looks far enough ahead does both at once.
        let mut buffers = [Sums::new(), Sums::new()];
        let mut current = 0;
        let mut pending: Option<Tile> = None;
        let mut first_row = rows.start;
        for (num_rows, kernel) in int8_kernels(self.isa, rows.len()) {
            if num_rows == 0 {
                continue;
            }
            let rows = first_row..first_row + num_rows;
            first_row = rows.end;
            // SAFETY: the instruction set was checked when the weights were packed.
            unsafe { (kernel.enter)() };
            for panel in panels.clone().step_by(kernel.tile_panels) {
                let panels = panel..panels.end.min(panel + kernel.tile_panels);
                for row in rows.clone().step_by(kernel.tile_rows) {
                    let tile = Tile {
                        rows: row..rows.end.min(row + kernel.tile_rows),
                        panels: panels.clone(),
                    };
                    self.multiply(kernel, &tile, row == rows.start, call, &mut buffers[current]);
                    current = 1 - current;
                    if let Some(tile) = pending.replace(tile) {
                        self.scale(&tile, call, &buffers[current]);
                    }
                }
            }
            // SAFETY: as above.
            unsafe { (kernel.leave)() };
        }
        if let Some(tile) = pending {
            self.scale(&tile, call, &buffers[1 - current]);
        }
    }

    fn multiply(
        &self,
        kernel: Int8Kernel,
        tile: &Tile,
        prefetch: bool,
        call: &Call<'_>,
        sums: &mut Sums<i32>,
    ) {
        let panel_len = self.k_len * PANEL;
        let weights =
            &self.weights.as_slice::<i8>()[tile.panels.start * panel_len..tile.panels.end * panel_len];
        let padded_end = tile.rows.start + tile.rows.len().next_multiple_of(ROW_PADDING);
        let acts = &call.acts[tile.rows.start * call.act_stride..padded_end * call.act_stride];
        let args = TileArgs {
            rows: tile.rows.len(),
            num_panels: tile.panels.len(),
            acts: acts.as_ptr(),
            act_stride: call.act_stride,
            weights: weights.as_ptr(),
            panel_stride: panel_len,
            k_len: self.k_len,
            prefetch,
        };
        // SAFETY: the instruction set was checked when the weights were packed; the slices above cover the panels
        // and the padded rows of the tile, which is within the kernel's limits.
        unsafe { (kernel.tile)(&args, sums) };
    }

    fn scale(&self, tile: &Tile, call: &Call<'_>, sums: &Sums<i32>) {
        let outputs = tile.panels.start * PANEL..tile.panels.end * PANEL;
        let num_planes = call.planes.count();
        let rows = tile.rows.start / num_planes..tile.rows.end / num_planes;
        let args = ScaleArgs {
            sums,
            planes: call.planes,
            corrections: &self.corrections[outputs.clone()],
            out_scales: &self.out_scales[outputs.clone()],
            bias: &call.bias[outputs.clone()],
            row_scales: &call.row_scales[rows.clone()],
            output: &call.output,
            out_len: self.out_len,
            first_row: rows.start,
            first_out: outputs.start,
        };
        // SAFETY: tasks cover disjoint blocks of rows and outputs.
        unsafe { scale_tile(self.isa, &args) };
    }
}

/// Puts one output's levels into its lane of a panel and returns their sum.
fn place(levels: &[u8], lane: usize, panel: &mut [i8]) -> i32 {
    let mut sum = 0;
    for (block, levels) in panel.chunks_exact_mut(4 * PANEL).zip(levels.chunks_exact(4)) {
        for (weight, level) in block[lane * 4..lane * 4 + 4].iter_mut().zip(levels) {
            *weight = level.cast_signed();
            sum += i32::from(*weight);
        }
    }
    sum
}
