//! Sixteen `f32` lanes, for kernels written once and compiled for several instruction sets.
//!
//! Only what the compiler does not find by itself is here: fused products, and loads of narrower formats.
#![allow(
    clippy::cast_ptr_alignment,
    reason = "the loads and stores behind these pointers are unaligned ones"
)]

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;

/// Sixteen `f32` lanes in the registers of one instruction set.
///
/// Every function is unsafe because it may compile to instructions that the machine lacks.
pub(crate) trait Lanes: Copy {
    unsafe fn splat(value: f32) -> Self;
    /// Sixteen readable values; no alignment.
    unsafe fn load_f32(ptr: *const f32) -> Self;
    /// Sixteen readable values, widened; no alignment.
    unsafe fn load_bf16(ptr: *const half::bf16) -> Self;
    /// Sixteen readable values, widened; no alignment.
    unsafe fn load_f16(ptr: *const half::f16) -> Self;
    /// `self + factor * weight`, fused where the target can.
    unsafe fn mul_add(self, factor: Self, weight: Self) -> Self;
    /// Sixteen writable values; no alignment.
    unsafe fn store(self, ptr: *mut f32);
}
