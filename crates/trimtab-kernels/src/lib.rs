//! CPU kernels of the decode path: the only crate with `unsafe`.
//!
//! It knows slices, shapes and threads; it does not know models, tokens, files or decoding.
#![allow(
    unsafe_code,
    reason = "SIMD intrinsics and the thread pool live here and nowhere else"
)]

pub mod gemm;
pub mod mapping;
pub mod pool;
