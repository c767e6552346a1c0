//! One 512-bit register.

use std::arch::x86_64::{
    __m256i, __m512, _mm256_loadu_si256, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

use super::Lanes;

impl Lanes for __m512 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: AVX-512 is available by the caller's contract.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_f32(ptr: *const f32) -> Self {
        // SAFETY: as above, and sixteen values are readable.
        unsafe { _mm512_loadu_ps(ptr) }
    }

    #[inline(always)]
    unsafe fn load_bf16(ptr: *const half::bf16) -> Self {
        // SAFETY: as above, and sixteen values are readable.
        unsafe {
            let bits = _mm256_loadu_si256(ptr.cast::<__m256i>());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(ptr: *const half::f16) -> Self {
        // SAFETY: as above, and sixteen values are readable.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(ptr.cast::<__m256i>())) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, weight: Self) -> Self {
        // SAFETY: AVX-512 is available by the caller's contract.
        unsafe { _mm512_fmadd_ps(factor, weight, self) }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: as above, and sixteen values are writable.
        unsafe { _mm512_storeu_ps(ptr, self) };
    }
}
