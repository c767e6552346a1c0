//! The exponential function on `f32` lanes, the same to the last bit on every instruction set.
//!
//! Bodies that call it are compiled by `for_isa!` and vectorised by the compiler: it has no branches and no calls,
//! and no fused multiply-adds, which not every machine has. It does not know what the values mean.

use crate::LANES;

/// `1.5 * 2^23`: adding and subtracting it rounds a float below `2^22` to the nearest integer, ties to even.
const ROUND_TO_INTEGER: f32 = 12_582_912.0;
/// `ln 2` in two parts, the first with few enough bits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Below, the result is zero: it would be a subnormal number.
pub(crate) const MIN_ARGUMENT: f32 = -87.336_54;
/// Above, the result is infinite; the largest float is reached only at 88.72.
pub(crate) const MAX_ARGUMENT: f32 = 88.376_26;
/// Minimax polynomial of `(e^r - 1 - r) / r^2` on `[-ln 2 / 2, ln 2 / 2]`, highest power first (Cephes `expf`).
const POLYNOMIAL: [f32; 6] = [
    1.987_569_1e-4,
    1.398_199_9e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    0.166_666_66,
    0.5,
];

/// `e^x` within 2e-7 relative, 0 below [`MIN_ARGUMENT`], infinity above [`MAX_ARGUMENT`], NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let shifted = x * std::f32::consts::LOG2_E + ROUND_TO_INTEGER;
    let exponent = shifted - ROUND_TO_INTEGER;
    let rest = (x - exponent * LN_2_HIGH) - exponent * LN_2_LOW;
    let mut sum = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        sum = sum * rest + coefficient;
    }
    let mantissa = (sum * (rest * rest) + rest) + 1.0;
    // The low bits of `shifted` are the exponent; the rest of them leaves the word.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    let result = mantissa * power;
    let result = if x < MIN_ARGUMENT { 0.0 } else { result };
    if x > MAX_ARGUMENT { f32::INFINITY } else { result }
}

/// Sum of all lanes, always in the same order: halves are added until one is left.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seventh_float_is_near_the_exact_value() {
        let (mut worst, mut at) = (0.0_f64, 0.0);
        for bits in (0..0x42b0_0000_u32).step_by(701) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                if x < MIN_ARGUMENT {
                    continue;
                }
                let exact = f64::from(x).exp();
                let error = ((f64::from(exp(x)) - exact) / exact).abs();
                if error > worst {
                    (worst, at) = (error, x);
                }
            }
        }
        assert!(worst < 2e-7, "relative error {worst} at {at}");
    }

    #[test]
    fn ends_are_as_documented() {
        let check = |x: f32, expect: f32| assert_eq!(exp(x), expect, "exp({x})");
        check(0.0, 1.0);
        check(-0.0, 1.0);
        check(f32::NEG_INFINITY, 0.0);
        check(f32::INFINITY, f32::INFINITY);
        check(f32::MIN, 0.0);
        check(f32::MAX, f32::INFINITY);
        check(-87.34, 0.0);
        check(88.4, f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(MAX_ARGUMENT).is_finite() && exp(MIN_ARGUMENT) > 0.0);
    }

    #[test]
    fn lanes_add_up_in_halves() {
        let mut lanes = [0.0; LANES];
        lanes[0] = 1e8;
        lanes[8] = -1e8;
        lanes[3] = 0.25;
        assert_eq!(sum_lanes(lanes), 0.25);
    }
}
