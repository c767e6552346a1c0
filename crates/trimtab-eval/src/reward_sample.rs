//! Rewards of independent responses to one prompt, grouped into classes of equal reward. Knows no prompt, no method.

use crate::error::{EvalError, all_finite};

/// Responses with the same reward. Best-of-N cannot tell them apart, so all its laws are laws of classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardClass {
    /// The reward.
    pub reward: f64,
    /// How many responses have a smaller reward.
    pub num_below: u64,
    /// How many responses have this reward, at least 1.
    pub count: u64,
}

impl RewardClass {
    /// How many responses have this reward or a smaller one.
    pub fn num_up_to(&self) -> u64 {
        self.num_below + self.count
    }
}

/// The rewards of `M >= 1` independent responses to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardSample {
    classes: Vec<RewardClass>,
    len: u64,
}

impl RewardSample {
    /// Groups rewards into classes.
    ///
    /// # Errors
    /// [`EvalError::Empty`] or [`EvalError::NotFinite`].
    pub fn try_new(rewards: &[f64]) -> Result<Self, EvalError> {
        all_finite("reward", rewards)?;
        // Adding zero turns -0 into 0, which `total_cmp` would otherwise put below it.
        let mut sorted: Vec<f64> = rewards.iter().map(|reward| reward + 0.0).collect();
        sorted.sort_by(f64::total_cmp);
        let mut classes: Vec<RewardClass> = Vec::new();
        for (num_below, &reward) in sorted.iter().enumerate() {
            match classes.last_mut() {
                Some(class) if class.reward == reward => class.count += 1,
                _ => classes.push(RewardClass {
                    reward,
                    num_below: num_below as u64,
                    count: 1,
                }),
            }
        }
        Ok(Self {
            classes,
            len: sorted.len() as u64,
        })
    }

    /// Classes in order of reward, smallest first.
    pub fn classes(&self) -> &[RewardClass] {
        &self.classes
    }

    /// Number of responses `M`.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The sample of the negated rewards, whose best are the worst of this one.
    #[must_use]
    pub fn negated(&self) -> Self {
        let negate = |class: &RewardClass| RewardClass {
            reward: 0.0 - class.reward,
            num_below: self.len - class.num_up_to(),
            count: class.count,
        };
        Self {
            classes: self.classes.iter().rev().map(negate).collect(),
            len: self.len,
        }
    }

    /// Mean reward.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self
            .classes
            .iter()
            .map(|class| class.reward * class.count as f64)
            .sum();
        sum / self.len as f64
    }

    /// Share of responses a reward beats, ties half: its calibrated reward in `[0, 1]`.
    pub fn share_beaten_by(&self, reward: f64) -> f64 {
        let (below, up_to) = self.counts_around(reward);
        (below + up_to) as f64 / (2 * self.len) as f64
    }

    /// How many responses have a smaller reward, and how many a reward up to this one.
    pub(crate) fn counts_around(&self, reward: f64) -> (u64, u64) {
        let below = self.classes.partition_point(|class| class.reward < reward);
        match self.classes.get(below) {
            Some(class) if class.reward == reward => (class.num_below, class.num_up_to()),
            Some(class) => (class.num_below, class.num_below),
            None => (self.len, self.len),
        }
    }
}

/// `C(num_marked, size) / C(num_all, size)`: the probability that a random subset of that size is all marked.
///
/// A product of ratios, because the binomials themselves overflow. Zero if `size > num_marked`.
pub(crate) fn prob_all_marked(num_marked: u64, num_all: u64, size: u64) -> f64 {
    assert!(
        num_marked <= num_all && size <= num_all,
        "a subset of {size} out of {num_all}"
    );
    if size > num_marked {
        return 0.0;
    }
    (0..size)
        .map(|idx| (num_marked - idx) as f64 / (num_all - idx) as f64)
        .product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rewards_are_one_class() {
        let sample = RewardSample::try_new(&[2.0, -0.0, 1.0, 0.0, 2.0, 2.0]).unwrap();
        let seen: Vec<_> = sample
            .classes()
            .iter()
            .map(|c| (c.reward, c.num_below, c.count))
            .collect();
        assert_eq!(seen, [(0.0, 0, 2), (1.0, 2, 1), (2.0, 3, 3)]);
        assert_eq!(sample.mean(), 7.0 / 6.0);
    }

    #[test]
    fn negated_rewards_are_the_same_classes_from_above() {
        let rewards = [2.0, -1.0, 0.0, 0.0, 2.0, 2.0];
        let negated = RewardSample::try_new(&rewards.map(|reward| -reward)).unwrap();
        assert_eq!(RewardSample::try_new(&rewards).unwrap().negated(), negated);
    }

    #[test]
    fn shares_beaten_count_ties_half() {
        let sample = RewardSample::try_new(&[0.0, 1.0, 1.0, 3.0]).unwrap();
        let check = |reward: f64, expect: f64| assert_eq!(sample.share_beaten_by(reward), expect, "{reward}");
        check(-1.0, 0.0);
        check(0.0, 0.125);
        check(1.0, 0.5);
        check(2.0, 0.75);
        check(3.0, 0.875);
        check(9.0, 1.0);
    }

    #[test]
    fn missing_and_infinite_rewards_are_refused() {
        assert!(matches!(RewardSample::try_new(&[]), Err(EvalError::Empty { .. })));
        let error = RewardSample::try_new(&[1.0, f64::NAN]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "reward number 1 is NaN, expected a finite number"
        );
    }

    #[test]
    fn subsets_are_counted() {
        // C(4,2)/C(6,2) = 6/15.
        assert!((prob_all_marked(4, 6, 2) - 0.4).abs() < 1e-15);
        assert_eq!(prob_all_marked(1, 6, 2), 0.0);
        assert_eq!(prob_all_marked(6, 6, 6), 1.0);
    }
}
