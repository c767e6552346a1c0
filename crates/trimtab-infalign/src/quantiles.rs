//! Calibrated rewards from samples of the reference: which share of its responses to the same prompt a reward beats.
//! Knows the rewards of one prompt, not what was sampled or scored.

use crate::error::InfalignError;

/// The rewards of `K >= 1` reference responses to one prompt, for calibration.
///
/// Everything it answers but [`Self::interpolated`] depends on comparisons of rewards alone, so that any strictly
/// increasing map of the reward changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceQuantiles {
    /// Ascending. `[num_samples]`
    sorted: Vec<f64>,
    /// Distinct rewards, ascending. `[num_classes]`
    distinct: Vec<f64>,
    /// Calibrated reward of each distinct one. `[num_classes]`
    calibrated: Vec<f64>,
}

impl ReferenceQuantiles {
    /// Of the rewards of independent responses of the reference.
    ///
    /// # Errors
    /// [`InfalignError::Empty`] or [`InfalignError::NotFinite`].
    pub fn new(rewards: &[f64]) -> Result<Self, InfalignError> {
        if rewards.is_empty() {
            return Err(InfalignError::Empty {
                what: "reference rewards",
            });
        }
        if let Some(idx) = rewards.iter().position(|reward| !reward.is_finite()) {
            return Err(InfalignError::NotFinite {
                what: "reference reward",
                idx,
                value: rewards[idx],
            });
        }
        // Adding zero turns -0 into 0, which `total_cmp` would otherwise put below it.
        let mut sorted: Vec<f64> = rewards.iter().map(|reward| reward + 0.0).collect();
        sorted.sort_by(f64::total_cmp);
        let mut distinct = sorted.clone();
        distinct.dedup();
        let calibrated = distinct
            .iter()
            .map(|&reward| share_beaten(&sorted, reward))
            .collect();
        Ok(Self {
            sorted,
            distinct,
            calibrated,
        })
    }

    /// `C(x, y) = 1/K sum_i (1[r > r_i] + 1/2 1[r = r_i])`, the share of the reference's responses that the reward beats,
    /// ties half; in `[0, 1]`. The estimator of InfAlign-CTRL (B4); unbiased. A NaN beats nothing.
    ///
    /// For a response that is itself one of the samples, this is the share with itself as a tie, so that the mean over
    /// the samples is exactly 1/2; [`Self::calibrated_left_out`] leaves it out.
    pub fn calibrated_reward(&self, reward: f64) -> f64 {
        share_beaten(&self.sorted, reward)
    }

    /// The calibrated reward of one of the samples among the other `K - 1`: unbiased for a response that was drawn with
    /// them. `None` with a single sample.
    pub fn calibrated_left_out(&self, sample_reward: f64) -> Option<f64> {
        let num_samples = self.sorted.len() as f64;
        let share = share_beaten(&self.sorted, sample_reward);
        (num_samples > 1.0).then(|| ((share * num_samples - 0.5) / (num_samples - 1.0)).clamp(0.0, 1.0))
    }

    /// The calibrated reward with steps replaced by lines between the distinct rewards of the samples, so that rewards
    /// between two samples are told apart; beyond them as far as one sample's half step.
    ///
    /// Differs from the estimator of InfAlign-CTRL, and is **not** invariant to increasing maps of the reward within a
    /// step: use it where a smooth signal matters more than that, and say so.
    pub fn interpolated(&self, reward: f64) -> f64 {
        let (first, last) = (0, self.distinct.len() - 1);
        if self.is_degenerate() || !reward.is_finite() {
            return self.calibrated_reward(reward);
        }
        let next = self.distinct.partition_point(|&known| known <= reward);
        if next == 0 {
            return outside(
                self.distinct[first] - reward,
                self.mean_gap(),
                self.calibrated[first],
            );
        }
        if next > last {
            let beaten = 1.0 - self.calibrated[last];
            return 1.0 - outside(reward - self.distinct[last], self.mean_gap(), beaten);
        }
        let (from, to) = (self.distinct[next - 1], self.distinct[next]);
        let share = (reward - from) / (to - from);
        self.calibrated[next - 1] + share * (self.calibrated[next] - self.calibrated[next - 1])
    }

    /// Standard error of the calibrated reward of a response whose true calibrated reward is `u`: `sqrt(u (1-u) / K)`
    /// (B4, without ties).
    pub fn standard_error(&self, u: f64) -> f64 {
        estimator_standard_error(u, self.num_samples())
    }

    /// Whether all samples have one reward. Then the prompt teaches nothing: every response of that reward has 1/2.
    pub fn is_degenerate(&self) -> bool {
        self.distinct.len() == 1
    }

    /// Number of samples `K`.
    pub fn num_samples(&self) -> usize {
        self.sorted.len()
    }

    /// Number of different rewards among the samples.
    pub fn num_distinct(&self) -> usize {
        self.distinct.len()
    }

    /// The rewards, ascending. `[num_samples]`
    pub fn sorted_rewards(&self) -> &[f64] {
        &self.sorted
    }

    /// Mean distance of neighbouring distinct rewards.
    fn mean_gap(&self) -> f64 {
        let last = self.distinct.len() - 1;
        (self.distinct[last] - self.distinct[0]) / last as f64
    }
}

/// Standard error of a calibrated reward estimated from `num_samples` draws where its true value is `u`:
/// `sqrt(u (1-u) / K)` (B4).
pub fn estimator_standard_error(u: f64, num_samples: usize) -> f64 {
    (u * (1.0 - u) / num_samples as f64).max(0.0).sqrt()
}

/// Root of the mean square error of calibrated rewards over the reference's own responses, without ties:
/// `sqrt(1 / (6 K))` (B4); 0.041 for 100 samples.
pub fn estimator_rmse(num_samples: usize) -> f64 {
    (6.0 * num_samples as f64).recip().sqrt()
}

fn share_beaten(sorted: &[f64], reward: f64) -> f64 {
    let num_below = sorted.partition_point(|&known| known < reward);
    let num_up_to = sorted.partition_point(|&known| known <= reward);
    (num_below + num_up_to) as f64 / (2 * sorted.len()) as f64
}

/// What is left of `at_end` at a distance beyond the last sample: it fades over the mean gap of two samples.
fn outside(distance: f64, mean_gap: f64, at_end: f64) -> f64 {
    at_end * (1.0 - distance / mean_gap).max(0.0)
}

#[cfg(test)]
mod tests;
