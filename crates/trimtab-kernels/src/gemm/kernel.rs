//! Tile kernels, one file per instruction set, behind two function types.
//!
//! A tile is `rows x panels` outputs over the whole input length, left in a small buffer; scaling, bias and the
//! copy to the output are the caller's. So a kernel is a loop over `k` and nothing else.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float_tile;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

pub(super) use float_tile::Weight;

use super::PANEL;
use crate::isa::Isa;

/// Sums of one tile, `[rows, panels * PANEL]`.
#[repr(C, align(64))]
pub(super) struct Sums<T>(pub(super) [T; MAX_TILE]);

/// Elements of the largest tile of any kernel.
pub(super) const MAX_TILE: usize = 32 * 2 * PANEL;

impl<T: Copy + Default> Sums<T> {
    pub(super) fn new() -> Self {
        Self([T::default(); MAX_TILE])
    }
}

/// Operands of one tile: `A` is an activation, `W` a weight.
pub(super) struct TileArgs<A, W> {
    pub(super) rows: usize,
    pub(super) num_panels: usize,
    /// First activation of the first row.
    pub(super) acts: *const A,
    /// Elements between rows of activations.
    pub(super) act_stride: usize,
    /// First weight of the first panel.
    pub(super) weights: *const W,
    /// Elements between panels.
    pub(super) panel_stride: usize,
    /// Input length; a multiple of [`K_STEP`] for integers.
    pub(super) k_len: usize,
    /// Ask for the weights that follow this tile's while computing it: true in the first tile of a run of rows.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only x86-64 kernels prefetch so far")
    )]
    pub(super) prefetch: bool,
}

/// Computes one tile.
///
/// # Safety
/// The instruction set is available; `rows` and `num_panels` are within the kernel's limits; for each row,
/// `act_stride` elements can be read (for each of `rows` rounded up to 16 in AMX); weights of all panels can be
/// read; `Sums` receives `[rows, num_panels * PANEL]` values.
pub(super) type TileFn<A, W, S> = unsafe fn(&TileArgs<A, W>, &mut Sums<S>);

/// Integer weights are stored in blocks of this many inputs, the depth of an AMX tile.
pub(super) const K_STEP: usize = 64;

/// An integer kernel and what it expects.
#[derive(Clone, Copy)]
pub(super) struct Int8Kernel {
    pub(super) tile: TileFn<u8, i8, i32>,
    /// Rows of the largest tile with `tile_panels` panels.
    pub(super) tile_rows: usize,
    pub(super) tile_panels: usize,
    /// Brackets a task: AMX configures its tiles and releases them.
    pub(super) enter: unsafe fn(),
    pub(super) leave: unsafe fn(),
}

/// A float kernel and its largest tile.
#[derive(Clone, Copy)]
pub(super) struct FloatKernel<W> {
    pub(super) tile: TileFn<f32, W, f32>,
    pub(super) tile_rows: usize,
    pub(super) tile_panels: usize,
}

/// The kernel for `rows` rows.
pub(super) fn float_kernel<W: Weight>(isa: Isa, rows: usize) -> FloatKernel<W> {
    let _ = rows;
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => avx512::float_kernel::<W>(rows),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::float_kernel::<W>(),
        _ => portable::float_kernel::<W>(),
    }
}

/// Rows from which tiles, computed in whole groups of 16, pay off over VNNI: up to 12 rows the time is that of
/// reading the weights, which VNNI does better.
#[cfg(target_arch = "x86_64")]
const MIN_AMX_ROWS: usize = 13;
/// The same for rows left over after whole groups of 32, when the weights are in cache already.
#[cfg(target_arch = "x86_64")]
const MIN_AMX_REST: usize = 3;

/// The kernels for `rows` rows: the first takes the given number of leading rows, the second the rest.
pub(super) fn int8_kernels(isa: Isa, rows: usize) -> [(usize, Int8Kernel); 2] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => {
            let num_whole = rows / 32 * 32;
            match rows - num_whole {
                rest if rest > amx::TILE_ROWS => [(rows, amx::INT8), (0, amx::INT8)],
                rest if rest
                    >= (if num_whole == 0 {
                        MIN_AMX_ROWS
                    } else {
                        MIN_AMX_REST
                    }) =>
                {
                    [(num_whole, amx::INT8), (rest, amx::INT8_FEW_ROWS)]
                }
                rest => [(num_whole, amx::INT8), (rest, avx512::INT8)],
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => [(rows, avx512::INT8), (0, avx512::INT8)],
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => [(rows, avx2::INT8), (0, avx2::INT8)],
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => [(rows, neon::INT8), (0, neon::INT8)],
        _ => [(rows, portable::INT8), (0, portable::INT8)],
    }
}

/// What is added to quantised activations in memory: VNNI and AMX paths want them unsigned.
pub(super) fn act_offset(isa: Isa) -> i32 {
    if matches!(isa, Isa::Avx512Vnni | Isa::Amx) {
        128
    } else {
        0
    }
}

/// Rows of quantised activations are padded to a multiple of this.
pub(super) const ROW_PADDING: usize = 16;

/// Inputs per block of 4-bit weights.
pub(super) const BLOCK: usize = 32;
/// Bytes of one block of a panel: two weights per byte.
pub(super) const BLOCK_BYTES: usize = BLOCK * PANEL / 2;

/// Bytes of a panel of 4-bit weights: its blocks, then one bf16 scale per block and output, then padding to a line.
pub(super) fn int4_panel_bytes(num_blocks: usize) -> usize {
    (num_blocks * (BLOCK_BYTES + 2 * PANEL)).next_multiple_of(64)
}

/// Operands of a tile of one panel of 4-bit weights.
pub(super) struct Int4Tile<'a> {
    pub(super) rows: usize,
    pub(super) num_blocks: usize,
    /// Signed bytes, `[rows, num_blocks * BLOCK]`.
    pub(super) acts: &'a [u8],
    /// `[rows, num_blocks]`: what a block's product starts from, to undo the offset of the nibbles.
    pub(super) block_sums: &'a [i32],
    /// One panel.
    pub(super) weights: &'a [u8],
}

impl Int4Tile<'_> {
    /// Panics unless the slices have the promised lengths: what the kernels rely on.
    fn check(&self) {
        assert_eq!(self.acts.len(), self.rows * self.num_blocks * BLOCK);
        assert_eq!(self.block_sums.len(), self.rows * self.num_blocks);
        assert_eq!(self.weights.len(), int4_panel_bytes(self.num_blocks));
    }
}

/// A kernel for 4-bit weights; `Sums` receives `[rows, PANEL]` values, to be multiplied by the rows' scales. Unsafe
/// because the instruction set must be available and `rows` at most `tile_rows`.
#[derive(Clone, Copy)]
pub(super) struct Int4Kernel {
    pub(super) tile: unsafe fn(&Int4Tile<'_>, &mut Sums<f32>),
    pub(super) tile_rows: usize,
}

/// The kernel for 4-bit weights.
pub(super) fn int4_kernel(isa: Isa) -> Int4Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => avx512::INT4,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::INT4,
        _ => portable::INT4,
    }
}

/// A loop of independent instructions and the operations of one of its steps, a multiply-add being two.
pub(super) type Peak = (unsafe fn(usize), usize);

/// The fastest byte products of an instruction set.
pub(super) fn int8_peak(isa: Isa) -> Peak {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => amx::INT8_PEAK,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => avx512::INT8_PEAK,
        _ => (int8_tile_peak, 2 * PEAK_ROWS * PANEL * PEAK_K),
    }
}

/// The fastest float products of an instruction set.
pub(super) fn f32_peak(isa: Isa) -> Peak {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512Vnni => avx512::F32_PEAK,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::F32_PEAK,
        _ => portable::F32_PEAK,
    }
}

/// Rows and inputs of the tile that stands for the peak of paths without a dot product instruction of their own.
const PEAK_ROWS: usize = 4;
const PEAK_K: usize = K_STEP;

/// The kernel itself on operands in the first-level cache.
unsafe fn int8_tile_peak(steps: usize) {
    let acts = [1_u8; PEAK_ROWS * PEAK_K];
    let weights = [1_i8; PANEL * PEAK_K];
    let mut sums = Sums::new();
    let [(_, kernel), _] = int8_kernels(Isa::detect(), PEAK_ROWS);
    for _ in 0..steps {
        let args = TileArgs {
            rows: PEAK_ROWS,
            num_panels: 1,
            acts: std::hint::black_box(&acts).as_ptr(),
            act_stride: PEAK_K,
            weights: std::hint::black_box(&weights).as_ptr(),
            panel_stride: PANEL * PEAK_K,
            k_len: PEAK_K,
            prefetch: false,
        };
        // SAFETY: the arrays hold one panel and `PEAK_ROWS` rows; this path is not AMX and reads no padding.
        unsafe { (kernel.tile)(&args, &mut sums) };
    }
    std::hint::black_box(&sums);
}
