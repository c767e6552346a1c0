//! Layers with float weights.

use super::PANEL;
use super::aligned::AlignedBytes;
use super::isa::Isa;
use super::kernel::{FloatKernel, Sums, TileArgs, Weight, float_kernel};
use super::split::Split;
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
/// Weights of a task below which it is not worth its claim.
const MIN_TASK_BYTES: usize = 32 << 10;

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
        let num_panels = self.out_len.div_ceil(PANEL);
        let kernel = float_kernel::<W>(self.isa, rows);
        let num_row_blocks = rows.div_ceil(MAX_TASK_ROWS);
        let min_panels = MIN_TASK_BYTES / (self.in_len * PANEL * size_of::<W>());
        let split = Split {
            rows,
            num_panels,
            rows_per_task: MAX_TASK_ROWS,
            panels_per_task: Split::panels_per_task(
                pool.num_threads(),
                num_row_blocks,
                num_panels,
                min_panels,
                kernel.tile_panels,
            ),
        };
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
                self.store(&sums, (row, num_rows), (panel, num_panels), bias, output);
            }
        }
    }

    /// Copies a tile to the output and adds the bias.
    fn store(
        &self,
        sums: &Sums<f32>,
        (row, num_rows): (usize, usize),
        (panel, num_panels): (usize, usize),
        bias: &[f32],
        output: &DisjointSlice<'_, f32>,
    ) {
        let first_out = panel * PANEL;
        let end_out = ((panel + num_panels) * PANEL).min(self.out_len);
        for (row_idx, sums) in sums.0.chunks_exact(num_panels * PANEL).take(num_rows).enumerate() {
            let start = (row + row_idx) * self.out_len;
            // SAFETY: tasks cover disjoint blocks of rows and outputs, and this thread holds one range at a time.
            let out = unsafe { output.range(start + first_out..start + end_out) };
            for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&bias[first_out..end_out]) {
                *out = sum + bias;
            }
        }
    }
}
