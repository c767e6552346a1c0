//! Kernels for AVX-512: fused multiply-add on floats, VNNI dot products on bytes.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16, _mm512_storeu_si512,
};

use super::float_tile::{Weight, peak, tile};
use super::{
    BLOCK, BLOCK_BYTES, FloatKernel, Int4Kernel, Int4Tile, Int8Kernel, PANEL, Peak, Sums, TileArgs,
    portable::nothing,
};
use crate::lanes::Lanes;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn float_tile<W: Weight>(args: &TileArgs<f32, W>, sums: &mut Sums<f32>) {
    // SAFETY: the caller's contract.
    unsafe { tile::<__m512, W, 12>(args, sums) };
}

pub(super) fn float_kernel<W: Weight>(rows: usize) -> FloatKernel<W> {
    // Few rows leave registers for more panels, which hides the latency of the sums.
    let (tile_rows, tile_panels) = if rows <= 4 { (4, 4) } else { (24, 2) };
    FloatKernel {
        tile: float_tile::<W>,
        tile_rows,
        tile_panels,
    }
}

/// Independent chains of a peak measurement: more than latency times instructions per cycle.
const PEAK_CHAINS: usize = 12;

pub(super) const F32_PEAK: Peak = (f32_peak, 2 * PEAK_CHAINS * PANEL);
pub(super) const INT8_PEAK: Peak = (int8_peak, 2 * PEAK_CHAINS * PANEL * 4);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn f32_peak(steps: usize) {
    // SAFETY: the caller's contract.
    unsafe { peak::<__m512, PEAK_CHAINS>(steps) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn int8_peak(steps: usize) {
    let factor = _mm512_set1_epi32(std::hint::black_box(1));
    let mut acc = [_mm512_set1_epi32(std::hint::black_box(1)); PEAK_CHAINS];
    for _ in 0..steps {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, *acc, factor);
        }
    }
    std::hint::black_box(acc);
}

pub(super) const INT8: Int8Kernel = Int8Kernel {
    tile: int8_tile,
    tile_rows: 24,
    tile_panels: 2,
    enter: nothing,
    leave: nothing,
};

/// Activations are bytes shifted by 128, as `vpdpbusd` wants its first factor unsigned.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn int8_tile(args: &TileArgs<u8, i8>, sums: &mut Sums<i32>) {
    let mut panel = 0;
    // SAFETY: the blocks cover the tile's rows and panels once each.
    unsafe {
        if args.rows > 1 {
            while panel + 2 <= args.num_panels {
                int8_rows::<2>(args, panel, sums);
                panel += 2;
            }
        }
        while panel < args.num_panels {
            int8_rows::<1>(args, panel, sums);
            panel += 1;
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn int8_rows<const P: usize>(args: &TileArgs<u8, i8>, panel: usize, sums: &mut Sums<i32>) {
    let mut row = 0;
    // SAFETY: `row` plus the block's rows stays within `args.rows`.
    unsafe {
        while row + 12 <= args.rows {
            int8_block::<12, P, 1>(args, row, panel, sums);
            row += 12;
        }
        if row + 8 <= args.rows {
            int8_block::<8, P, 1>(args, row, panel, sums);
            row += 8;
        }
        if row + 4 <= args.rows {
            int8_block::<4, P, 1>(args, row, panel, sums);
            row += 4;
        }
        if row + 2 <= args.rows {
            int8_block::<2, P, 2>(args, row, panel, sums);
            row += 2;
        }
        if row < args.rows {
            int8_block::<1, P, 4>(args, row, panel, sums);
        }
    }
}

/// `M` rows times `P` panels. `U` sums per output run side by side, for small blocks whose one chain of dependent
/// sums would wait for itself; integers add up the same in any order.
#[inline(always)]
unsafe fn int8_block<const M: usize, const P: usize, const U: usize>(
    args: &TileArgs<u8, i8>,
    row: usize,
    panel: usize,
    sums: &mut Sums<i32>,
) {
    let width = args.num_panels * PANEL;
    assert!((row + M) * width <= sums.0.len() && args.k_len.is_multiple_of(4 * U));
    // SAFETY: offsets stay within the operands described by `args`, the stores within `sums` by the assertion;
    // prefetches may point anywhere.
    unsafe {
        let acts = args.acts.add(row * args.act_stride);
        let weights = args.weights.add(panel * args.panel_stride);
        let mut acc = [[[_mm512_setzero_si512(); U]; P]; M];
        let prefetch = args.prefetch && row == 0;
        let ahead_bytes = P * args.panel_stride;
        let mut k = 0;
        while k < args.k_len {
            for u in 0..U {
                let k = k + 4 * u;
                let mut w = [_mm512_setzero_si512(); P];
                for (p, w) in w.iter_mut().enumerate() {
                    let ptr = weights.add(p * args.panel_stride + k * PANEL);
                    *w = _mm512_loadu_si512(ptr.cast::<__m512i>());
                    if prefetch {
                        _mm_prefetch::<_MM_HINT_T1>(ptr.wrapping_add(ahead_bytes));
                    }
                }
                for (m, acc) in acc.iter_mut().enumerate() {
                    let four = acts.add(m * args.act_stride + k).cast::<i32>().read_unaligned();
                    let a = _mm512_set1_epi32(four);
                    for (acc, w) in acc.iter_mut().zip(w) {
                        acc[u] = _mm512_dpbusd_epi32(acc[u], a, w);
                    }
                }
            }
            k += 4 * U;
        }
        for (m, acc) in acc.into_iter().enumerate() {
            for (p, acc) in acc.into_iter().enumerate() {
                let sum = acc
                    .into_iter()
                    .reduce(|x, y| _mm512_add_epi32(x, y))
                    .expect("U is positive");
                let out = sums.0.as_mut_ptr().add((row + m) * width + (panel + p) * PANEL);
                _mm512_storeu_si512(out.cast::<__m512i>(), sum);
            }
        }
    }
}

pub(super) const INT4: Int4Kernel = Int4Kernel {
    tile: int4_tile,
    tile_rows: 8,
};

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn int4_tile(tile: &Int4Tile<'_>, sums: &mut Sums<f32>) {
    tile.check();
    let mut row = 0;
    // SAFETY: `row` plus the block's rows stays within the tile.
    unsafe {
        while row + 8 <= tile.rows {
            int4_rows::<8>(tile, row, sums);
            row += 8;
        }
        if row + 4 <= tile.rows {
            int4_rows::<4>(tile, row, sums);
            row += 4;
        }
        if row + 2 <= tile.rows {
            int4_rows::<2>(tile, row, sums);
            row += 2;
        }
        if row < tile.rows {
            int4_rows::<1>(tile, row, sums);
        }
    }
}

/// `M` rows times one panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn int4_rows<const M: usize>(tile: &Int4Tile<'_>, row: usize, sums: &mut Sums<f32>) {
    /// 64-byte vectors of a block.
    const VECTORS: usize = BLOCK_BYTES / 64;
    assert!((row + M) * PANEL <= sums.0.len() && row + M <= tile.rows);
    let low_nibbles = _mm512_set1_epi8(0xf);
    let ahead_bytes = tile.weights.len();
    let mut acc = [_mm512_setzero_ps(); M];
    // SAFETY: `Int4Tile::check` compared the lengths of the slices; the stores stay within `sums` by the assertion;
    // prefetches may point anywhere.
    unsafe {
        let scales = tile
            .weights
            .as_ptr()
            .add(tile.num_blocks * BLOCK_BYTES)
            .cast::<half::bf16>();
        for block in 0..tile.num_blocks {
            let nibbles = tile.weights.as_ptr().add(block * BLOCK_BYTES);
            let mut w = [_mm512_setzero_si512(); 2 * VECTORS];
            for vector in 0..VECTORS {
                let ptr = nibbles.add(vector * 64);
                let bytes = _mm512_loadu_si512(ptr.cast::<__m512i>());
                w[vector] = _mm512_and_si512(bytes, low_nibbles);
                w[vector + VECTORS] = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low_nibbles);
                if row == 0 {
                    _mm_prefetch::<_MM_HINT_T1>(ptr.cast::<i8>().wrapping_add(ahead_bytes));
                }
            }
            let scale = <__m512 as Lanes>::load_bf16(scales.add(block * PANEL));
            for (m, acc) in acc.iter_mut().enumerate() {
                let start = *tile.block_sums.as_ptr().add((row + m) * tile.num_blocks + block);
                let acts = tile
                    .acts
                    .as_ptr()
                    .add(((row + m) * tile.num_blocks + block) * BLOCK)
                    .cast::<i32>();
                let mut products = [_mm512_set1_epi32(start), _mm512_setzero_si512()];
                for (group, w) in w.into_iter().enumerate() {
                    let a = _mm512_set1_epi32(acts.add(group).read_unaligned());
                    products[group % 2] = _mm512_dpbusd_epi32(products[group % 2], w, a);
                }
                let product = _mm512_cvtepi32_ps(_mm512_add_epi32(products[0], products[1]));
                // Rounded twice, as on machines that cannot fuse.
                *acc = _mm512_add_ps(*acc, _mm512_mul_ps(scale, product));
            }
        }
        for (m, acc) in acc.into_iter().enumerate() {
            acc.store(sums.0.as_mut_ptr().add((row + m) * PANEL));
        }
    }
}
