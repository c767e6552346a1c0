//! Two 256-bit registers, with FMA and F16C.

use std::arch::x86_64::{
    __m128i, __m256, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps,
};

use super::Lanes;

/// Lanes 0 to 7 and 8 to 15.
#[derive(Clone, Copy)]
pub(crate) struct Pair(__m256, __m256);

impl Pair {
    /// Eight readable values; no alignment.
    #[inline(always)]
    pub(crate) unsafe fn widen(ptr: *const half::bf16) -> __m256 {
        // SAFETY: AVX2 is available and the values are readable by the caller's contract.
        unsafe {
            let bits = _mm_loadu_si128(ptr.cast::<__m128i>());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
        }
    }
}

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
        unsafe { Self(Self::widen(ptr), Self::widen(ptr.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_f16(ptr: *const half::f16) -> Self {
        // SAFETY: as above, and sixteen values are readable; F16C comes with AVX2 in `Isa::Avx2`.
        unsafe {
            let low = _mm_loadu_si128(ptr.cast::<__m128i>());
            let high = _mm_loadu_si128(ptr.add(8).cast::<__m128i>());
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
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
