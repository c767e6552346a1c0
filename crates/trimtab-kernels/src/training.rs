//! Rows of training's elementwise layers: forward, and gradients as one pass each. Knows rows, no tape and no threads.
//!
//! Results are the same to the last bit on every instruction set: sums keep `LANES` partial sums, and
//! no product is fused with an addition.

pub mod adamw;
pub mod gated;
pub mod norm;
pub mod rotation;
pub mod scores;
