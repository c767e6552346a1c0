//! The decoder's layers on the CPU as single operations with gradients written out. Knows no weights' names.
//!
//! As tensor operations a layer of a small model spends more time on reading and writing intermediate results than on
//! its products. Here each part is one pass over its rows on all threads, and the tape keeps only what its backward
//! reads. Every function gives `None` for tensors that are elsewhere; the tensor operations beside the caller are then
//! the way, and in tests the reference. Results do not depend on the number of threads: rows are independent, and sums
//! over rows are taken in blocks of fixed size.

mod attention;
mod gated;
mod linear;
mod norm;
mod tape;

#[cfg(test)]
mod tests;

pub(super) use attention::{Geometry, attention};
pub(super) use gated::gated;
pub(super) use linear::linear;
pub(super) use norm::rms_norm;

/// Rows that one task takes.
const TASK_ROWS: usize = 64;
