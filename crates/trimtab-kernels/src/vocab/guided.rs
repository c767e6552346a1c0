//! One draw from a tempered softmax that is tilted token by token, with its drift from the untilted one at temperature 1.

use super::sample::{SampledRow, Sums, invert, without_rounding};
use super::{BLOCK, LANES, is_usable};
use crate::exp::{exp, sum_lanes};
use crate::isa::{Isa, for_isa};

#[cfg(test)]
mod tests;

/// How a row's policy comes from its logits `x`: `e^(t x + tilt - peak)`, at most 1 and 1 somewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    /// The largest logit.
    max: f32,
    /// Largest `t x + tilt`.
    peak: f32,
    /// Inverse temperature `t`.
    inverse_temperature: f32,
}

/// Draws from `softmax(inverse_temperature * logits + tilt)` by inverting its cumulative sum at `coin` in `[0, 1)`.
///
/// The divergence is that from `softmax(logits)`. Accuracy is that of [`super::sample_row`] while tilts are below 16 in
/// size; beyond, the rounding of tilts in f32 comes on top. `None` if the logits have NaN or positive infinity or
/// nothing finite, a tilt is not finite, or `inverse_temperature` is not positive and finite.
///
/// # Shapes
/// `logits`: `[vocab]`, `tilt`: `[vocab]`.
///
/// # Panics
/// If there is not one tilt for each logit.
pub fn sample_guided_row(
    logits: &[f32],
    tilt: &[f32],
    inverse_temperature: f32,
    coin: f64,
) -> Option<SampledRow> {
    assert_eq!(logits.len(), tilt.len(), "expected one tilt for each logit");
    if !(inverse_temperature > 0.0 && inverse_temperature < f32::INFINITY) {
        return None;
    }
    let isa = Isa::detect();
    let shape = shape(isa, logits, tilt, inverse_temperature)?;
    let sums = guided_sums(isa, logits, tilt, shape);
    let token_idx = invert(logits.len(), coin * sums.policy, &sums.policy_blocks, |idx| {
        exp(exponent(logits[idx], tilt[idx], shape))
    });
    let (log_policy, log_reference) = (sums.policy.ln(), sums.reference.ln());
    let logit = f64::from(logits[token_idx]);
    let above = logit - f64::from(shape.max);
    let tilted = f64::from(inverse_temperature) * logit + f64::from(tilt[token_idx]) - f64::from(shape.peak);
    Some(SampledRow {
        token_idx: token_idx as u32,
        log_prob: tilted - log_policy,
        reference_log_prob: above - log_reference,
        kl_nats: without_rounding(sums.weighted / sums.policy - log_policy + log_reference),
    })
}

#[inline(always)]
fn exponent(logit: f32, tilt: f32, shape: Shape) -> f32 {
    logit * shape.inverse_temperature + tilt - shape.peak
}

/// `None` if the logits have NaN or positive infinity or nothing finite, or a tilt is not finite.
fn shape(isa: Isa, logits: &[f32], tilt: &[f32], inverse_temperature: f32) -> Option<Shape> {
    let (shape, num_unusable) = for_isa!(
        isa,
        shape_and_unusable(logits: &[f32], tilt: &[f32], inverse_temperature: f32) -> (Shape, u32)
    );
    (num_unusable == 0 && shape.max.is_finite() && shape.peak.is_finite()).then_some(shape)
}

/// The largest values, and how many logits and tilts cannot be used.
#[inline(always)]
fn shape_and_unusable(logits: &[f32], tilt: &[f32], inverse_temperature: f32) -> (Shape, u32) {
    let (mut maxes, mut peaks) = ([f32::NEG_INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let mut num_unusable = 0;
    for (logits, tilt) in logits.chunks(BLOCK).zip(tilt.chunks(BLOCK)) {
        // Loops over a block in cache, each of which the compiler vectorises.
        num_unusable += logits
            .iter()
            .map(|&logit| u32::from(!is_usable(logit)))
            .sum::<u32>();
        num_unusable += tilt.iter().map(|tilt| u32::from(!tilt.is_finite())).sum::<u32>();
        let mut exponents = [f32::NEG_INFINITY; BLOCK];
        for ((exponent, logit), tilt) in exponents.iter_mut().zip(logits).zip(tilt) {
            *exponent = logit * inverse_temperature + tilt;
        }
        raise(&mut peaks, &exponents);
        raise(&mut maxes, logits);
    }
    let most = |lanes: [f32; LANES]| lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let shape = Shape {
        max: most(maxes),
        peak: most(peaks),
        inverse_temperature,
    };
    (shape, num_unusable)
}

/// Raises each lane to the largest of the values that fall on it.
#[inline(always)]
fn raise(lanes: &mut [f32; LANES], values: &[f32]) {
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = if value > *lane { value } else { *lane };
    }
}

/// The sums of a row; `weighted` is that of `e^s (s - x)` with `s` the exponent and `x` a logit less the largest.
fn guided_sums(isa: Isa, logits: &[f32], tilt: &[f32], shape: Shape) -> Sums {
    for_isa!(isa, sums_of_blocks(logits: &[f32], tilt: &[f32], shape: Shape) -> Sums)
}

#[inline(always)]
fn sums_of_blocks(logits: &[f32], tilt: &[f32], shape: Shape) -> Sums {
    let mut sums = Sums {
        policy_blocks: Vec::with_capacity(logits.len().div_ceil(BLOCK)),
        ..Sums::default()
    };
    for (logits, tilt) in logits.chunks(BLOCK).zip(tilt.chunks(BLOCK)) {
        let [policy, reference, weighted] = block_sums(logits, tilt, shape);
        sums.reference += f64::from(reference);
        sums.policy += f64::from(policy);
        sums.weighted += f64::from(weighted);
        sums.policy_blocks.push(policy);
    }
    sums
}

/// The sums of at most [`BLOCK`] logits: of the policy's terms, of the reference's, and the weighted one.
#[inline(always)]
fn block_sums(logits: &[f32], tilt: &[f32], shape: Shape) -> [f32; 3] {
    let mut lanes = [[0.0; LANES]; 3];
    let (logit_chunks, logit_rest) = logits.as_chunks::<LANES>();
    let (tilt_chunks, tilt_rest) = tilt.as_chunks::<LANES>();
    for (logits, tilt) in logit_chunks.iter().zip(tilt_chunks) {
        add_terms(logits, tilt, shape, &mut lanes);
    }
    add_terms(logit_rest, tilt_rest, shape, &mut lanes);
    lanes.map(sum_lanes)
}

#[inline(always)]
fn add_terms(logits: &[f32], tilt: &[f32], shape: Shape, lanes: &mut [[f32; LANES]; 3]) {
    let [policy, reference, weighted] = lanes;
    for lane in 0..logits.len().min(LANES) {
        let s = exponent(logits[lane], tilt[lane], shape);
        let x = logits[lane] - shape.max;
        let term = exp(s);
        policy[lane] += term;
        reference[lane] += exp(x);
        // An impossible token has a term of 0 and a factor that is no number.
        weighted[lane] += if term > 0.0 { term * (s - x) } else { 0.0 };
    }
}
