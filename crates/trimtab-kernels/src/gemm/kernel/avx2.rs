//! Kernels for AVX2 with FMA: two 256-bit registers make one panel.

use std::arch::x86_64::{
    __m256i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_cvtepi32_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::float_tile::{Weight, peak, tile};
use super::{
    BLOCK, BLOCK_BYTES, FloatKernel, Int4Kernel, Int4Tile, Int8Kernel, PANEL, Peak, Sums, TileArgs,
    portable::nothing,
};
use crate::lanes::avx2::Pair;

#[target_feature(enable = "avx2,fma")]
unsafe fn float_tile<W: Weight>(args: &TileArgs<f32, W>, sums: &mut Sums<f32>) {
    // SAFETY: the caller's contract.
    unsafe { tile::<Pair, W, 6>(args, sums) };
}

pub(super) fn float_kernel<W: Weight>() -> FloatKernel<W> {
    FloatKernel {
        tile: float_tile::<W>,
        tile_rows: 24,
        tile_panels: 1,
    }
}

pub(super) const F32_PEAK: Peak = (f32_peak, 2 * 6 * PANEL);

#[target_feature(enable = "avx2,fma")]
unsafe fn f32_peak(steps: usize) {
    // SAFETY: the caller's contract.
    unsafe { peak::<Pair, 6>(steps) };
}

pub(super) const INT8: Int8Kernel = Int8Kernel {
    tile: int8_tile,
    tile_rows: 16,
    tile_panels: 1,
    enter: nothing,
    leave: nothing,
};

/// Activations are signed bytes in `-127..=127`.
#[target_feature(enable = "avx2")]
unsafe fn int8_tile(args: &TileArgs<u8, i8>, sums: &mut Sums<i32>) {
    // SAFETY: the blocks cover the tile's rows and panels once each.
    unsafe {
        for panel in 0..args.num_panels {
            let mut row = 0;
            while row + 4 <= args.rows {
                int8_block::<4>(args, row, panel, sums);
                row += 4;
            }
            if row + 2 <= args.rows {
                int8_block::<2>(args, row, panel, sums);
                row += 2;
            }
            if row < args.rows {
                int8_block::<1>(args, row, panel, sums);
            }
        }
    }
}

/// `M` rows times one panel.
///
/// `vpmaddubsw` wants one unsigned factor and saturates at 16 bits. With the weights' signs moved to the
/// activations both factors are at most 127, and two products stay below 2^15: the sum is exact.
#[inline(always)]
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
        let ones = _mm256_set1_epi16(1);
        let mut acc = [[_mm256_setzero_si256(); 2]; M];
        for k in (0..args.k_len).step_by(4) {
            let ptr = weights.add(k * PANEL).cast::<__m256i>();
            let w = [_mm256_loadu_si256(ptr), _mm256_loadu_si256(ptr.add(1))];
            for (m, acc) in acc.iter_mut().enumerate() {
                let four = acts.add(m * args.act_stride + k).cast::<i32>().read_unaligned();
                let a = _mm256_set1_epi32(four);
                for (acc, w) in acc.iter_mut().zip(w) {
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
                    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            let out = sums
                .0
                .as_mut_ptr()
                .add((row + m) * width + panel * PANEL)
                .cast::<__m256i>();
            _mm256_storeu_si256(out, acc[0]);
            _mm256_storeu_si256(out.add(1), acc[1]);
        }
    }
}

pub(super) const INT4: Int4Kernel = Int4Kernel {
    tile: int4_tile,
    tile_rows: 8,
};

#[target_feature(enable = "avx2,fma")]
unsafe fn int4_tile(tile: &Int4Tile<'_>, sums: &mut Sums<f32>) {
    tile.check();
    // SAFETY: each half of each block of rows is computed once.
    unsafe {
        for half in 0..2 {
            let mut row = 0;
            while row + 4 <= tile.rows {
                int4_rows::<4>(tile, row, half, sums);
                row += 4;
            }
            while row < tile.rows {
                int4_rows::<1>(tile, row, half, sums);
                row += 1;
            }
        }
    }
}

/// `M` rows times one half (eight outputs) of a panel. Nibbles are at most 15, so that `vpmaddubsw` cannot saturate.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn int4_rows<const M: usize>(tile: &Int4Tile<'_>, row: usize, half: usize, sums: &mut Sums<f32>) {
    /// 32-byte vectors of one half of a block.
    const VECTORS: usize = BLOCK_BYTES / 64;
    assert!((row + M) * PANEL <= sums.0.len() && row + M <= tile.rows);
    let low_nibbles = _mm256_set1_epi8(0xf);
    let ones = _mm256_set1_epi16(1);
    let mut acc = [_mm256_setzero_ps(); M];
    // SAFETY: `Int4Tile::check` compared the lengths of the slices; the stores stay within `sums` by the assertion.
    unsafe {
        let scales = tile
            .weights
            .as_ptr()
            .add(tile.num_blocks * BLOCK_BYTES)
            .cast::<half::bf16>();
        for block in 0..tile.num_blocks {
            let nibbles = tile.weights.as_ptr().add(block * BLOCK_BYTES + half * 32);
            let mut w = [_mm256_setzero_si256(); 2 * VECTORS];
            for vector in 0..VECTORS {
                let bytes = _mm256_loadu_si256(nibbles.add(vector * 64).cast::<__m256i>());
                w[vector] = _mm256_and_si256(bytes, low_nibbles);
                w[vector + VECTORS] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_nibbles);
            }
            let scale = Pair::widen(scales.add(block * PANEL + half * 8));
            for (m, acc) in acc.iter_mut().enumerate() {
                let start = *tile.block_sums.as_ptr().add((row + m) * tile.num_blocks + block);
                let acts = tile
                    .acts
                    .as_ptr()
                    .add(((row + m) * tile.num_blocks + block) * BLOCK)
                    .cast::<i32>();
                let mut product = _mm256_set1_epi32(start);
                for (group, w) in w.into_iter().enumerate() {
                    let a = _mm256_set1_epi32(acts.add(group).read_unaligned());
                    let pairs = _mm256_maddubs_epi16(w, a);
                    product = _mm256_add_epi32(product, _mm256_madd_epi16(pairs, ones));
                }
                // Rounded twice, as on machines that cannot fuse.
                *acc = _mm256_add_ps(*acc, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(product)));
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            _mm256_storeu_ps(sums.0.as_mut_ptr().add((row + m) * PANEL + half * 8), acc);
        }
    }
}
