//! Operations on one row of next-token logits. Knows floats and indices, no tokens, texts or sampling policies.
//!
//! Each is a pure function of the row: sums run over fixed blocks of fixed lanes, single blocks in f32 and their
//! totals in f64, so that results are the same to the last bit on every instruction set and any thread may run them.

mod guided;
mod sample;
mod top_k;

#[cfg(test)]
mod tests;

pub use guided::sample_guided_row;
pub use sample::{KL_ROUNDING_NATS, SampledRow, sample_row};
pub use top_k::top_k_row;

use crate::LANES;
use crate::exp::{exp, sum_lanes};
use crate::isa::{Isa, for_isa};

/// Entries whose exponentials are added in f32: few enough that the sum is within 5e-7 relative.
const BLOCK: usize = 256;

/// Index of the largest logit, the lowest of several; `None` if the row has NaN or positive infinity, or nothing
/// finite.
pub fn argmax_row(logits: &[f32]) -> Option<u32> {
    let max = finite_max(logits)?;
    let (blocks, rest) = logits.as_chunks::<BLOCK>();
    // Counting does not stop early, so that it is vectorised.
    let holds_max =
        |block: &[f32; BLOCK]| block.iter().map(|&logit| u32::from(logit == max)).sum::<u32>() > 0;
    let block_idx = blocks.iter().position(holds_max).unwrap_or(blocks.len());
    let block = blocks.get(block_idx).map_or(rest, |block| block);
    let idx = block
        .iter()
        .position(|&logit| logit == max)
        .expect("the maximum is in the row");
    Some((block_idx * BLOCK + idx) as u32)
}

/// `ln(sum_i e^logit_i)` within 1e-6; negative infinity for an empty row or one that is all negative infinity, NaN
/// or positive infinity if the row has NaN or positive infinity.
pub fn log_sum_exp_row(logits: &[f32]) -> f64 {
    match finite_max(logits) {
        Some(max) => {
            let isa = Isa::detect();
            let sum = for_isa!(isa, sum_of_exp(logits: &[f32], max: f32) -> f64);
            f64::from(max) + sum.ln()
        }
        None if logits.iter().any(|logit| logit.is_nan()) => f64::NAN,
        None => logits
            .iter()
            .fold(f64::NEG_INFINITY, |max, &logit| max.max(f64::from(logit))),
    }
}

/// The largest logit; `None` if the row has NaN or positive infinity, or nothing finite.
fn finite_max(logits: &[f32]) -> Option<f32> {
    let isa = Isa::detect();
    let (max, is_usable) = for_isa!(isa, max_and_usable(logits: &[f32]) -> (f32, bool));
    (is_usable && max > f32::NEG_INFINITY).then_some(max)
}

/// The largest logit, and true if none is NaN or positive infinity.
#[inline(always)]
fn max_and_usable(logits: &[f32]) -> (f32, bool) {
    let (mut maxes, mut num_unusable) = ([f32::NEG_INFINITY; LANES], 0);
    for block in logits.chunks(BLOCK) {
        // Two loops over a block in cache: in one the compiler finds no vectors.
        num_unusable += block
            .iter()
            .map(|&logit| u32::from(!is_usable(logit)))
            .sum::<u32>();
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for (max, &logit) in maxes.iter_mut().zip(chunk) {
                *max = if logit > *max { logit } else { *max };
            }
        }
        for (max, &logit) in maxes.iter_mut().zip(rest) {
            *max = if logit > *max { logit } else { *max };
        }
    }
    (
        maxes.into_iter().fold(f32::NEG_INFINITY, f32::max),
        num_unusable == 0,
    )
}

/// False for NaN and positive infinity.
#[inline(always)]
fn is_usable(logit: f32) -> bool {
    logit < f32::INFINITY
}

#[inline(always)]
fn sum_of_exp(logits: &[f32], max: f32) -> f64 {
    let (blocks, rest) = logits.as_chunks::<BLOCK>();
    let mut total = 0.0;
    for block in blocks {
        total += f64::from(block_sum(block, |logit| exp(logit - max)));
    }
    total + f64::from(block_sum(rest, |logit| exp(logit - max)))
}

/// Sum of `term(logit)` over at most [`BLOCK`] logits, in lanes that are added in a fixed order.
#[inline(always)]
fn block_sum(block: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = block.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, &logit) in sums.iter_mut().zip(chunk) {
            *sum += term(logit);
        }
    }
    for (sum, &logit) in sums.iter_mut().zip(rest) {
        *sum += term(logit);
    }
    sum_lanes(sums)
}
