//! An array that the compiler maps to registers.

use super::Lanes;
use crate::LANES;

/// Sixteen lanes that the compiler maps to whatever registers the target has.
#[derive(Clone, Copy)]
pub(crate) struct Array([f32; LANES]);

impl Lanes for Array {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load_f32(ptr: *const f32) -> Self {
        // SAFETY: sixteen values are readable by the caller's contract.
        Self(unsafe { ptr.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bf16(ptr: *const half::bf16) -> Self {
        // SAFETY: sixteen values are readable by the caller's contract; `bf16` is transparent over `u16`.
        let bits = unsafe { ptr.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(|b| f32::from_bits(u32::from(b) << 16)))
    }

    #[inline(always)]
    unsafe fn load_f16(ptr: *const half::f16) -> Self {
        // SAFETY: sixteen values are readable by the caller's contract; `f16` is transparent over `u16`.
        let bits = unsafe { ptr.cast::<[u16; LANES]>().read_unaligned() };
        Self(bits.map(widen_f16))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, weight: Self) -> Self {
        let mut sums = self.0;
        for ((sum, a), w) in sums.iter_mut().zip(factor.0).zip(weight.0) {
            // Without the instruction a fused product is a slow library call, so targets that lack it round twice.
            *sum = if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
                a.mul_add(w, *sum)
            } else {
                a * w + *sum
            };
        }
        Self(sums)
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: sixteen values are writable by the caller's contract.
        unsafe { ptr.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }
}

/// The value of the bits of an `f16`, without branches or calls.
#[inline(always)]
fn widen_f16(bits: u16) -> f32 {
    /// Exponents of `f32` and `f16` are shifted by 127 and 15.
    const EXPONENT_SHIFT: f32 = 5.192_297e33;
    let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    // As bits of an `f32` the magnitude is 2^112 times too small, subnormal numbers included.
    let finite = f32::from_bits(magnitude << 13) * EXPONENT_SHIFT;
    let not_finite = f32::from_bits((magnitude << 13) | 0x7f80_0000);
    let value = if magnitude < 0x7c00 { finite } else { not_finite };
    f32::from_bits(value.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_to_its_value() {
        for bits in 0..=u16::MAX {
            let (got, expected) = (widen_f16(bits), half::f16::from_bits(bits).to_f32_const());
            assert!(
                got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()),
                "{bits:#x}"
            );
        }
    }
}
