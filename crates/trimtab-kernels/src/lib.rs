//! CPU kernels of the decode path: the only crate with `unsafe`.
//!
//! It knows slices, shapes and threads; it does not know models, tokens, files or decoding.
#![allow(
    unsafe_code,
    reason = "SIMD intrinsics and the thread pool live here and nowhere else"
)]
#![allow(
    clippy::inline_always,
    reason = "one generic body is compiled for several instruction sets, which works only if it is inlined"
)]

pub mod activation;
mod aligned;
pub mod attention;
mod exp;
pub mod gemm;
mod isa;
pub mod kv_cache;
mod lanes;
pub mod mapping;
pub mod memory;
pub mod norm;
pub mod pool;
pub mod product;
pub mod rope;
pub mod softmax;
pub mod training;
pub mod vocab;

/// `f32` lanes that loops over rows are written for: one 512-bit register, two of 256 bits, four of 128.
///
/// Sums keep this many partial sums on every machine, so that their order never depends on it.
const LANES: usize = 16;
