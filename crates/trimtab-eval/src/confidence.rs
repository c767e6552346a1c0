//! Intervals: bootstrap over prompts for means, exact ones for counts. Knows numbers, not what they measure.
//!
//! The unit of resampling is the prompt, because responses to one prompt are alike. Resample `b` draws the same
//! prompts for every quantity of a run (its coins depend on seed, `b` and the number of prompts alone), so intervals
//! of differences are paired, and a report is the same bytes each time.

use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF, Normal, StudentsT};
use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed};

/// Coverage that all intervals aim at unless told otherwise.
pub const DEFAULT_LEVEL: f64 = 0.95;

/// A closed interval; in JSON `[lo, hi]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Interval {
    /// Lower end.
    pub lo: f64,
    /// Upper end, not below the lower.
    pub hi: f64,
}

impl From<[f64; 2]> for Interval {
    fn from([lo, hi]: [f64; 2]) -> Self {
        Self { lo, hi }
    }
}

impl From<Interval> for [f64; 2] {
    fn from(interval: Interval) -> Self {
        [interval.lo, interval.hi]
    }
}

impl Interval {
    /// Whether `value` lies in it, ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.lo <= value && value <= self.hi
    }

    /// The interval moved by `offset`.
    #[must_use]
    pub fn shifted(self, offset: f64) -> Self {
        Self {
            lo: self.lo + offset,
            hi: self.hi + offset,
        }
    }
}

/// Settings of the bootstrap; a value of these and the data give one interval, always the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Seed of the run.
    pub seed: Seed,
    /// Resamples; the ends of an interval are their order statistics.
    pub num_resamples: u32,
    /// Coverage aimed at, in (0, 1).
    pub level: f64,
}

impl Bootstrap {
    /// 4000 resamples and 95%: the ends then move by about 3% of the width from seed to seed.
    pub fn of_seed(seed: Seed) -> Self {
        Self {
            seed,
            num_resamples: 4000,
            level: DEFAULT_LEVEL,
        }
    }

    /// Interval for the mean, one value a prompt: bias-corrected and accelerated (`BCa`, Efron 1987), expanded for few
    /// prompts (Hesterberg 2015).
    ///
    /// `None` where the values say nothing about spread: fewer than two, or all equal. `None` too for values that are not
    /// finite. Measured coverage at 95%: normal values 93.9% with 8 prompts, 94.2% with 16,
    /// 94.7% with 32; exponential ones 92.7%, 93.5%, 94.3% (without the expansion 88% and 87% with 8 prompts).
    pub fn mean_interval(&self, values: &[f64]) -> Option<Interval> {
        if values.len() < 2 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        if values.iter().all(|&value| value == values[0]) {
            return None;
        }
        let mean = mean_of(values);
        let means = self.resampled_means(values);
        // Resamples equal to the mean count half; clamped, since no resample below the mean gives minus infinity.
        let num_below = means.partition_point(|&resampled| resampled < mean);
        let num_up_to = means.partition_point(|&resampled| resampled <= mean);
        let count = means.len() as f64;
        let share = ((num_below + num_up_to) as f64 / (2.0 * count)).clamp(0.5 / count, 1.0 - 0.5 / count);
        let bias = standard_normal().inverse_cdf(share);
        let acceleration = acceleration(values, mean);
        let end = |probability: f64| {
            let shifted = bias + small_sample_quantile(values.len(), probability);
            let adjusted = standard_normal().cdf(bias + shifted / (1.0 - acceleration * shifted));
            quantile(&means, adjusted)
        };
        let tail = (1.0 - self.level) / 2.0;
        Some(Interval {
            lo: end(tail).min(mean),
            hi: end(1.0 - tail).max(mean),
        })
    }

    /// Interval for a mean of values in `[0, 1]`, e.g. a win rate.
    ///
    /// Where every value is 0 or 1 it is the exact one of that many successes, which has a width even if all are equal.
    /// It holds for any law on `[0, 1]` where they are, because a mean `m` makes a value of 1 no more likely than `m`.
    /// Else as [`Self::mean_interval`].
    pub fn share_interval(&self, values: &[f64]) -> Option<Interval> {
        let num_values = values.len() as u64;
        if num_values > 1 && values.iter().all(|&value| is_zero_or_one(value)) {
            let num_successes = values.iter().filter(|&&value| value == 1.0).count() as u64;
            Some(clopper_pearson(num_successes, num_values, self.level))
        } else {
            self.mean_interval(values)
        }
    }

    /// Means of the resamples in ascending order. `[num_resamples]`
    fn resampled_means(&self, values: &[f64]) -> Vec<f64> {
        let stream = SampleStream::new(self.seed, PromptKey(values.len() as u64), 0, Purpose::Bootstrap);
        let mut means: Vec<f64> = (0..u64::from(self.num_resamples.max(1)))
            .map(|resample| {
                let mut rng = stream.rng(resample);
                let sum: f64 = values
                    .iter()
                    .map(|_| values[index_below(values.len(), rng.next_u64())])
                    .sum();
                sum / values.len() as f64
            })
            .collect();
        means.sort_by(f64::total_cmp);
        means
    }
}

/// Exact interval for a probability after `num_successes` of `num_trials` (Clopper and Pearson 1934).
///
/// Covers at least `level` for every probability; `[0, 1]` for no trials.
///
/// # Panics
/// If there are more successes than trials.
pub fn clopper_pearson(num_successes: u64, num_trials: u64, level: f64) -> Interval {
    assert!(
        num_successes <= num_trials,
        "{num_successes} successes in {num_trials} trials"
    );
    let tail = (1.0 - level) / 2.0;
    let (successes, failures) = (num_successes as f64, (num_trials - num_successes) as f64);
    let beta_quantile = |a: f64, b: f64, probability: f64| {
        Beta::new(a, b)
            .expect("both counts are positive here")
            .inverse_cdf(probability)
    };
    let lo = if num_successes == 0 {
        0.0
    } else {
        beta_quantile(successes, failures + 1.0, tail)
    };
    let hi = if num_successes == num_trials {
        1.0
    } else {
        beta_quantile(successes + 1.0, failures, 1.0 - tail)
    };
    Interval { lo, hi }
}

/// Whether a value is that of a failure or a success.
pub(crate) fn is_zero_or_one(value: f64) -> bool {
    value == 0.0 || value == 1.0
}

/// Mean of a sample; NaN if it is empty.
pub(crate) fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Half of Student's interval for the mean of `values`; `None` for fewer than two.
pub(crate) fn student_half_width(values: &[f64], level: f64) -> Option<f64> {
    (values.len() > 1).then(|| {
        let mean = mean_of(values);
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let variance = squares / (values.len() as f64 - 1.0);
        student_half_width_of(variance, values.len(), level)
    })
}

/// Half of Student's interval for the mean of `num` values, at least two, whose variance was estimated to be `variance`.
pub(crate) fn student_half_width_of(variance: f64, num: usize, level: f64) -> f64 {
    let n = num as f64;
    let student = StudentsT::new(0.0, 1.0, n - 1.0).expect("there are at least two values");
    student.inverse_cdf(f64::midpoint(1.0, level)) * (variance / n).sqrt()
}

/// The quantile to ask of a bootstrap so that it is as wide as Student's interval is (Hesterberg 2015).
///
/// Resampling `n` values underestimates a variance by `(n-1)/n`, and its tails are normal where Student's are wider.
fn small_sample_quantile(num_values: usize, probability: f64) -> f64 {
    let n = num_values as f64;
    let student = StudentsT::new(0.0, 1.0, n - 1.0).expect("there are at least two values");
    (n / (n - 1.0)).sqrt() * student.inverse_cdf(probability)
}

fn standard_normal() -> Normal {
    Normal::standard()
}

/// Skewness of the mean by jackknife, over 6: for a mean, the jackknife values differ from it by `(mean - x_i)/(n-1)`.
fn acceleration(values: &[f64], mean: f64) -> f64 {
    let power_sum = |power: i32| values.iter().map(|value| (value - mean).powi(power)).sum::<f64>();
    power_sum(3) / (6.0 * power_sum(2).powf(1.5))
}

/// An index below `len` from 64 random bits; the bias is below `len / 2^64`.
pub(crate) fn index_below(len: usize, bits: u64) -> usize {
    ((u128::from(bits) * len as u128) >> 64) as usize
}

/// Quantile of sorted values, linear between the two order statistics it falls between.
pub(crate) fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let position = (probability * (sorted.len() as f64 + 1.0) - 1.0).clamp(0.0, (sorted.len() - 1) as f64);
    let idx = position.floor() as usize;
    let next = sorted[(idx + 1).min(sorted.len() - 1)];
    sorted[idx] + (next - sorted[idx]) * position.fract()
}

#[cfg(test)]
mod tests;
