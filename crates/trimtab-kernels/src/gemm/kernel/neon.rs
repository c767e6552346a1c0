//! The byte kernel for `AArch64` with dot products; floats use the portable kernel, which compiles to NEON there.

use std::arch::aarch64::{int8x16_t, int32x4_t, vdupq_n_s32, vld1q_s8, vreinterpretq_s8_s32, vst1q_s32};
use std::arch::asm;

use super::portable::nothing;
use super::{Int8Kernel, PANEL, Sums, TileArgs};

pub(super) const INT8: Int8Kernel = Int8Kernel {
    tile: int8_tile,
    tile_rows: 16,
    tile_panels: 1,
    enter: nothing,
    leave: nothing,
};

/// Activations are signed bytes.
#[target_feature(enable = "neon,dotprod")]
unsafe fn int8_tile(args: &TileArgs<u8, i8>, sums: &mut Sums<i32>) {
    // SAFETY: the blocks cover the tile's rows and panels once each.
    unsafe {
        for panel in 0..args.num_panels {
            let mut row = 0;
            while row + 4 <= args.rows {
                int8_block::<4>(args, row, panel, sums);
                row += 4;
            }
            while row < args.rows {
                int8_block::<1>(args, row, panel, sums);
                row += 1;
            }
        }
    }
}

/// `M` rows times one panel: four registers of four outputs.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn int8_block<const M: usize>(
    args: &TileArgs<u8, i8>,
    row: usize,
    panel: usize,
    sums: &mut Sums<i32>,
) {
    let width = args.num_panels * PANEL;
    assert!((row + M) * width <= sums.0.len());
    // SAFETY: offsets stay within the operands described by `args`, the stores within `sums` by the assertion.
    unsafe {
        let acts = args.acts.add(row * args.act_stride);
        let weights = args.weights.add(panel * args.panel_stride);
        let mut acc = [[vdupq_n_s32(0); 4]; M];
        for k in (0..args.k_len).step_by(4) {
            let ptr = weights.add(k * PANEL);
            let w = [
                vld1q_s8(ptr),
                vld1q_s8(ptr.add(16)),
                vld1q_s8(ptr.add(32)),
                vld1q_s8(ptr.add(48)),
            ];
            for (m, acc) in acc.iter_mut().enumerate() {
                let four = acts.add(m * args.act_stride + k).cast::<i32>().read_unaligned();
                let a = vreinterpretq_s8_s32(vdupq_n_s32(four));
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = dot(*acc, w, a);
                }
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            let out = sums.0.as_mut_ptr().add((row + m) * width + panel * PANEL);
            for (quarter, acc) in acc.into_iter().enumerate() {
                vst1q_s32(out.add(4 * quarter), acc);
            }
        }
    }
}

/// `sdot`: the intrinsic is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot(mut sum: int32x4_t, left: int8x16_t, right: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes its registers only; the extension is enabled.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) left, in(vreg) right,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}
