//! Kernels for AVX2 with FMA: two 256-bit registers make one panel.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi32, _mm256_castsi256_ps,
    _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
    _mm256_sign_epi8, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::float_tile::{Lanes, Weight, peak, tile};
use super::{FloatKernel, Int8Kernel, PANEL, Peak, Sums, TileArgs, portable::nothing};

#[derive(Clone, Copy)]
struct Pair(__m256, __m256);

impl Lanes for Pair {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: AVX2 and FMA are available by the caller's contract, here and below.
        let lanes = unsafe { _mm256_set1_ps(value) };
        Self(lanes, lanes)
    }

    #[inline(always)]
    unsafe fn load_f32(ptr: *const f32) -> Self {
        // SAFETY: as above, and sixteen values are readable.
        unsafe { Self(_mm256_loadu_ps(ptr), _mm256_loadu_ps(ptr.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(ptr: *const half::bf16) -> Self {
        // SAFETY: as above, and sixteen values are readable.
        unsafe {
            let widen = |ptr: *const half::bf16| {
                let bits = _mm_loadu_si128(ptr.cast::<__m128i>());
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
            };
            Self(widen(ptr), widen(ptr.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, weight: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            Self(
                _mm256_fmadd_ps(factor.0, weight.0, self.0),
                _mm256_fmadd_ps(factor.1, weight.1, self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: as above, and sixteen values are writable.
        unsafe {
            _mm256_storeu_ps(ptr, self.0);
            _mm256_storeu_ps(ptr.add(8), self.1);
        }
    }
}

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
