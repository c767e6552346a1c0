//! Layers with float weights.

use std::ops::Range;

use super::PANEL;
use super::kernel::{FloatKernel, Sums, TileArgs, Weight, float_kernel};
use super::split::Split;
use crate::aligned::AlignedBytes;
use crate::isa::Isa;
use crate::pool::{DisjointSlice, Pool};

/// Weights as `[panels, in_len, PANEL]`, zero beyond the last output.
#[derive(Debug)]
pub(super) struct PackedFloat<W> {
    isa: Isa,
    in_len: usize,
    out_len: usize,
    weights: AlignedBytes,
    _weight: std::marker::PhantomData<W>,
}

/// Panels packed by one task.
const PACK_PANELS: usize = 4;
/// Rows of activations of one task; with the weights of a tile they stay in the second-level cache.
const MAX_TASK_ROWS: usize = 96;

impl<W: Weight> PackedFloat<W> {
    pub(super) fn pack(
        isa: Isa,
        pool: &Pool,
        in_len: usize,
        out_len: usize,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Self {
        let panel_len = in_len * PANEL;
        let len = out_len.div_ceil(PANEL) * panel_len;
        let mut weights = AlignedBytes::zeroed::<W>(len);
        pool.run_chunks_mut(
            &mut weights.as_mut_slice::<W>()[..len],
            PACK_PANELS * panel_len,
            |task_idx, panels| {
                let mut row = vec![0.0; in_len];
                let first_out = task_idx * PACK_PANELS * PANEL;
                for out_idx in first_out..out_len.min(first_out + PACK_PANELS * PANEL) {
                    fill(out_idx, &mut row);
                    let (panel, lane) = ((out_idx - first_out) / PANEL, (out_idx - first_out) % PANEL);
                    let panel = &mut panels[panel * panel_len..(panel + 1) * panel_len];
                    for (weights, &value) in panel.chunks_exact_mut(PANEL).zip(&row) {
                        weights[lane] = W::from_f32(value);
                    }
                }
            },
        );
        Self {
            isa,
            in_len,
            out_len,
            weights,
            _weight: std::marker::PhantomData,
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.weights.size_bytes()
    }

    pub(super) fn copy_row(&self, out_idx: usize, row: &mut [f32]) {
        let start = out_idx / PANEL * self.in_len * PANEL + out_idx % PANEL;
        let weights = self.weights.as_slice::<W>()[start..].iter().step_by(PANEL);
        row.iter_mut()
            .zip(weights)
            .for_each(|(value, weight)| *value = weight.to_f32());
    }

    /// `input`: `[rows, in_len]`, `bias`: padded to whole panels, `output`: `[rows, out_len]`.
    pub(super) fn forward(&self, pool: &Pool, input: &[f32], bias: &[f32], output: &mut [f32]) {
        let rows = input.len() / self.in_len;
        let kernel = float_kernel::<W>(self.isa, rows);
        let panels = (self.out_len.div_ceil(PANEL), self.in_len * PANEL * size_of::<W>());
        let split = Split::new(
            (rows, MAX_TASK_ROWS),
            panels,
            kernel.tile_panels,
            pool.num_threads(),
        );
        let output = DisjointSlice::new(output);
        pool.run(split.num_tasks(), &|task_idx| {
            self.run_task(&split, task_idx, kernel, input, bias, &output);
        });
    }

    fn run_task(
        &self,
        split: &Split,
        task_idx: usize,
        kernel: FloatKernel<W>,
        input: &[f32],
        bias: &[f32],
        output: &DisjointSlice<'_, f32>,
    ) {
        let (rows, panels) = split.task(task_idx);
        let panel_len = self.in_len * PANEL;
        let mut sums = Sums::new();
        for panel in panels.clone().step_by(kernel.tile_panels) {
            let num_panels = kernel.tile_panels.min(panels.end - panel);
            let weights = &self.weights.as_slice::<W>()[panel * panel_len..(panel + num_panels) * panel_len];
            for row in rows.clone().step_by(kernel.tile_rows) {
                let num_rows = kernel.tile_rows.min(rows.end - row);
                let acts = &input[row * self.in_len..(row + num_rows) * self.in_len];
                let args = TileArgs {
                    rows: num_rows,
                    num_panels,
                    acts: acts.as_ptr(),
                    act_stride: self.in_len,
                    weights: weights.as_ptr(),
                    panel_stride: panel_len,
                    k_len: self.in_len,
                    prefetch: row == rows.start,
                };
                // SAFETY: the instruction set was checked when the weights were packed; the slices above cover the
                // rows and panels of the tile, which is within the kernel's limits.
                unsafe { (kernel.tile)(&args, &mut sums) };
                let tile_rows = row..row + num_rows;
                store_rows(
                    &sums,
                    tile_rows,
                    panel..panel + num_panels,
                    bias,
                    (output, self.out_len),
                );
            }
        }
    }
}

/// Copies a tile of sums to the output, `[all rows, out_len]`, and adds the bias.
pub(super) fn store_rows(
    sums: &Sums<f32>,
    rows: Range<usize>,
    panels: Range<usize>,
    bias: &[f32],
    (output, out_len): (&DisjointSlice<'_, f32>, usize),
) {
    let outputs = panels.start * PANEL..out_len.min(panels.end * PANEL);
    let bias = &bias[outputs.clone()];
    for (row, sums) in rows.zip(sums.0.chunks_exact(panels.len() * PANEL)) {
        let start = row * out_len;
        // SAFETY: tasks cover disjoint blocks of rows and outputs, and this thread holds one range at a time.
        let out = unsafe { output.range(start + outputs.start..start + outputs.end) };
        for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
            *out = sum + bias;
        }
    }
}
