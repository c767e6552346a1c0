//! The float tile, written once over sixteen-lane registers.
//!
//! Each output is `fma(a[k], w[k], sum)` for `k` rising from 0, starting from zero, in every shape of tile. That is
//! the whole argument for batch invariance, so no kernel may split `k`.

use super::{PANEL, Sums, TileArgs};
use crate::aligned::Plain;
use crate::lanes::Lanes;

/// A stored float format.
pub(in super::super) trait Weight: Plain + Default + Send + Sync + 'static {
    unsafe fn load<L: Lanes>(ptr: *const Self) -> L;
    fn from_f32(value: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(ptr: *const Self) -> L {
        // SAFETY: passed on.
        unsafe { L::load_f32(ptr) }
    }

    fn from_f32(value: f32) -> Self {
        value
    }

    fn to_f32(self) -> f32 {
        self
    }
}

impl Weight for half::bf16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(ptr: *const Self) -> L {
        // SAFETY: passed on.
        unsafe { L::load_bf16(ptr) }
    }

    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
}

/// One tile of up to four panels; `BIG` is the number of rows that fill the registers with two panels (with one,
/// if `BIG` is below 8).
///
/// # Safety
/// That of [`super::TileFn`].
#[inline(always)]
pub(super) unsafe fn tile<L: Lanes, W: Weight, const BIG: usize>(
    args: &TileArgs<f32, W>,
    sums: &mut Sums<f32>,
) {
    // SAFETY: the blocks below cover the tile's rows and panels once each.
    unsafe {
        match args.num_panels {
            1 => rows::<L, W, BIG, 1>(args, 0, sums),
            2 => rows::<L, W, BIG, 2>(args, 0, sums),
            4 if args.rows <= 4 => rows::<L, W, 4, 4>(args, 0, sums),
            num_panels => {
                for panel in 0..num_panels {
                    rows::<L, W, BIG, 1>(args, panel, sums);
                }
            }
        }
    }
}

/// All rows of `P` panels from `panel` on, in blocks as large as the registers allow.
#[inline(always)]
unsafe fn rows<L: Lanes, W: Weight, const BIG: usize, const P: usize>(
    args: &TileArgs<f32, W>,
    panel: usize,
    sums: &mut Sums<f32>,
) {
    let mut row = 0;
    // SAFETY: `row` plus the block's rows stays within `args.rows`.
    unsafe {
        while row + BIG <= args.rows {
            block::<L, W, BIG, P>(args, row, panel, sums);
            row += BIG;
        }
        if BIG > 8 && row + 8 <= args.rows {
            block::<L, W, 8, P>(args, row, panel, sums);
            row += 8;
        }
        if BIG > 4 && row + 4 <= args.rows {
            block::<L, W, 4, P>(args, row, panel, sums);
            row += 4;
        }
        if row + 2 <= args.rows {
            block::<L, W, 2, P>(args, row, panel, sums);
            row += 2;
        }
        if row < args.rows {
            block::<L, W, 1, P>(args, row, panel, sums);
        }
    }
}

/// `M` rows from `row` on times `P` panels from `panel` on.
#[inline(always)]
unsafe fn block<L: Lanes, W: Weight, const M: usize, const P: usize>(
    args: &TileArgs<f32, W>,
    row: usize,
    panel: usize,
    sums: &mut Sums<f32>,
) {
    let width = args.num_panels * PANEL;
    assert!((row + M) * width <= sums.0.len());
    // SAFETY: offsets stay within the operands described by `args`; the stores within `sums` by the assertion.
    unsafe {
        let acts = args.acts.add(row * args.act_stride);
        let weights = args.weights.add(panel * args.panel_stride);
        let mut acc = [[L::splat(0.0); P]; M];
        for k in 0..args.k_len {
            let mut w = [L::splat(0.0); P];
            for (p, w) in w.iter_mut().enumerate() {
                *w = W::load(weights.add(p * args.panel_stride + k * PANEL));
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let a = L::splat(*acts.add(m * args.act_stride + k));
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = acc.mul_add(a, w);
                }
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            for (p, acc) in acc.into_iter().enumerate() {
                acc.store(sums.0.as_mut_ptr().add((row + m) * width + (panel + p) * PANEL));
            }
        }
    }
}

/// `steps` times `N` independent multiply-adds: as fast as the instruction goes.
///
/// # Safety
/// The instruction set of `L` is available.
#[inline(always)]
pub(super) unsafe fn peak<L: Lanes, const N: usize>(steps: usize) {
    // SAFETY: the caller's contract; the stores go to an array of that size.
    unsafe {
        let factor = L::splat(std::hint::black_box(0.5));
        let mut acc = [L::splat(std::hint::black_box(1.0)); N];
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = acc.mul_add(*acc, factor);
            }
        }
        let mut out = [0.0; PANEL];
        for acc in acc {
            acc.store(out.as_mut_ptr());
            std::hint::black_box(&out);
        }
    }
}
