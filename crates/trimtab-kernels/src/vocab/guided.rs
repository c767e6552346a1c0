//! One draw from a tempered softmax that is tilted token by token, with its drift from the untilted one at temperature 1.

use super::sample::{SampledRow, Sums, invert, without_rounding};
use super::{BLOCK, LANES, block_sum, finite_max};
use crate::exp::exp;
use crate::isa::{Isa, for_isa};

#[cfg(test)]
mod tests;

/// How a row's policy comes from its logits `x`: `e^(t (x - max) + tilt - peak)`, at most 1 and 1 somewhere.
#[derive(Clone, Copy)]
struct Shape {
    /// The largest logit.
    max: f32,
    /// Largest `t (x - max) + tilt`.
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
    let max = finite_max(logits)?;
    let isa = Isa::detect();
    let peak = peak(isa, logits, tilt, max, inverse_temperature)?;
    let shape = Shape {
        max,
        peak,
        inverse_temperature,
    };
    let sums = guided_sums(isa, logits, tilt, shape);
    let token_idx = invert(logits.len(), coin * sums.policy, &sums.policy_blocks, |idx| {
        exp(exponent(logits[idx], tilt[idx], shape))
    });
    let (log_policy, log_reference) = (sums.policy.ln(), sums.reference.ln());
    let above = f64::from(logits[token_idx]) - f64::from(max);
    let tilted = f64::from(inverse_temperature) * above + f64::from(tilt[token_idx]) - f64::from(peak);
    Some(SampledRow {
        token_idx: token_idx as u32,
        log_prob: tilted - log_policy,
        reference_log_prob: above - log_reference,
        kl_nats: without_rounding(sums.weighted / sums.policy - log_policy + log_reference),
    })
}

#[inline(always)]
fn exponent(logit: f32, tilt: f32, shape: Shape) -> f32 {
    (logit - shape.max) * shape.inverse_temperature + tilt - shape.peak
}

/// Largest exponent before the peak is taken off; `None` if a tilt is not finite or nothing is.
fn peak(isa: Isa, logits: &[f32], tilt: &[f32], max: f32, inverse_temperature: f32) -> Option<f32> {
    let (peak, is_usable) = for_isa!(
        isa,
        peak_and_usable(logits: &[f32], tilt: &[f32], max: f32, inverse_temperature: f32) -> (f32, bool)
    );
    (is_usable && peak.is_finite()).then_some(peak)
}

/// The largest `t (x - max) + tilt`, and true if every tilt is finite.
#[inline(always)]
fn peak_and_usable(logits: &[f32], tilt: &[f32], max: f32, inverse_temperature: f32) -> (f32, bool) {
    let (mut peaks, mut num_unusable) = ([f32::NEG_INFINITY; LANES], 0);
    for (logits, tilt) in logits.chunks(BLOCK).zip(tilt.chunks(BLOCK)) {
        num_unusable += tilt.iter().map(|tilt| u32::from(!tilt.is_finite())).sum::<u32>();
        let mut exponents = [f32::NEG_INFINITY; BLOCK];
        for ((exponent, logit), tilt) in exponents.iter_mut().zip(logits).zip(tilt) {
            *exponent = (logit - max) * inverse_temperature + tilt;
        }
        let (chunks, _) = exponents.as_chunks::<LANES>();
        for chunk in chunks {
            for (peak, &exponent) in peaks.iter_mut().zip(chunk) {
                *peak = if exponent > *peak { exponent } else { *peak };
            }
        }
    }
    let peak = peaks.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (peak, num_unusable == 0)
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
        // Loops over a block in the first-level cache, each of which the compiler vectorises.
        let mut exponents = [0.0; BLOCK];
        for ((slot, &logit), &tilt) in exponents.iter_mut().zip(logits).zip(tilt) {
            *slot = exponent(logit, tilt, shape);
        }
        let mut policy_terms = [0.0; BLOCK];
        for (term, &exponent) in policy_terms.iter_mut().zip(&exponents[..logits.len()]) {
            *term = exp(exponent);
        }
        let mut weighted_terms = [0.0; BLOCK];
        for (((weighted, &term), &exponent), &logit) in weighted_terms
            .iter_mut()
            .zip(&policy_terms)
            .zip(&exponents)
            .zip(logits)
        {
            // An impossible token has a term of 0 and a factor that is no number.
            *weighted = if term > 0.0 {
                term * (exponent - (logit - shape.max))
            } else {
                0.0
            };
        }
        let policy = block_sum(&policy_terms, |term| term);
        sums.reference += f64::from(block_sum(logits, |logit| exp(logit - shape.max)));
        sums.policy += f64::from(policy);
        sums.weighted += f64::from(block_sum(&weighted_terms, |term| term));
        sums.policy_blocks.push(policy);
    }
    sums
}
