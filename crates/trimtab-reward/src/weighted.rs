//! Weighted sum of rewards. Knows rewards through their trait only.

use serde_json::{Map, Value};
use trimtab_base::{RewardError, RewardModel, ScoreInput};

/// One reward of a [`WeightedSum`].
pub struct WeightedTerm {
    /// Factor of the reward, finite, of any sign.
    pub weight: f64,
    /// The reward.
    pub reward: Box<dyn RewardModel>,
}

/// Rewards of a batch with what each term contributed.
#[derive(Debug, Clone, PartialEq)]
pub struct TermRewards {
    /// Weighted sums. `[batch]`
    pub totals: Vec<f64>,
    /// Each term's own reward before its weight, in the term's unit. `[terms][batch]`
    pub terms: Vec<Vec<f64>>,
}

/// `sum_i w_i r_i(x, y)`: the linear mix of CD sec 3.2 "several rewards" applied to whole responses.
///
/// A term that is NaN or infinite makes the sum NaN, whatever its weight, so that the caller refuses it.
pub struct WeightedSum {
    name: String,
    unit: String,
    terms: Vec<WeightedTerm>,
}

impl WeightedSum {
    /// The sum of `terms` in order, under the name used in reports.
    pub fn new(name: impl Into<String>, terms: Vec<WeightedTerm>) -> Self {
        let unit = match terms.as_slice() {
            [only] if only.weight == 1.0 => only.reward.unit().to_owned(),
            terms => terms.iter().map(described).collect::<Vec<_>>().join(" + "),
        };
        Self {
            name: name.into(),
            unit,
            terms,
        }
    }

    /// The terms in order.
    pub fn terms(&self) -> &[WeightedTerm] {
        &self.terms
    }

    /// Sums and single terms of a batch.
    pub fn score_terms(&self, batch: &[ScoreInput]) -> Result<TermRewards, RewardError> {
        let terms = self
            .terms
            .iter()
            .map(|term| checked_score(term, batch))
            .collect::<Result<Vec<_>, _>>()?;
        let total = |item_idx: usize| {
            let sum: f64 = self
                .terms
                .iter()
                .zip(&terms)
                .map(|(term, rewards)| term.weight * rewards[item_idx])
                .sum();
            if sum.is_finite() { sum } else { f64::NAN }
        };
        Ok(TermRewards {
            totals: (0..batch.len()).map(total).collect(),
            terms,
        })
    }
}

fn described(term: &WeightedTerm) -> String {
    format!("{} x [{}]", term.weight, term.reward.unit())
}

fn checked_score(term: &WeightedTerm, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
    let rewards = term.reward.score(batch)?;
    if rewards.len() == batch.len() {
        return Ok(rewards);
    }
    Err(RewardError::WrongCount {
        reward: term.reward.name().to_owned(),
        expected: batch.len(),
        got: rewards.len(),
    })
}

impl RewardModel for WeightedSum {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        &self.unit
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        Ok(self.score_terms(batch)?.totals)
    }

    fn check_record(&self, record: &Map<String, Value>) -> Result<(), RewardError> {
        self.terms
            .iter()
            .try_for_each(|term| term.reward.check_record(record))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::tokens_input;

    /// Answers the same values for every batch.
    struct Fixed(Vec<f64>);

    impl RewardModel for Fixed {
        fn name(&self) -> &'static str {
            "fixed"
        }

        fn unit(&self) -> &'static str {
            "points"
        }

        fn score(&self, _batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
            Ok(self.0.clone())
        }
    }

    fn sum(terms: &[(f64, &[f64])]) -> WeightedSum {
        let term = |(weight, rewards): &(f64, &[f64])| WeightedTerm {
            weight: *weight,
            reward: Box::new(Fixed(rewards.to_vec())),
        };
        WeightedSum::new("sum", terms.iter().map(term).collect())
    }

    fn batch(len: usize) -> Vec<ScoreInput> {
        (0..len).map(tokens_input).collect()
    }

    #[test]
    fn reports_totals_and_terms() {
        let mixed = sum(&[(0.5, &[2.0, 4.0]), (-1.0, &[1.0, 3.0])]);
        let scored = mixed.score_terms(&batch(2)).unwrap();
        assert_eq!(scored.totals, [0.0, -1.0]);
        assert_eq!(scored.terms, [[2.0, 4.0], [1.0, 3.0]]);
        assert_eq!(mixed.unit(), "0.5 x [points] + -1 x [points]");
        assert_eq!(sum(&[(1.0, &[])]).unit(), "points");
    }

    #[test]
    fn a_bad_term_spoils_its_item_only() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let rewards = sum(&[(0.0, &[bad, 1.0]), (1.0, &[1.0, 1.0])])
                .score(&batch(2))
                .unwrap();
            assert!(rewards[0].is_nan() && rewards[1] == 1.0, "{bad}: {rewards:?}");
        }
    }

    #[test]
    fn a_wrong_count_is_refused() {
        let error = sum(&[(1.0, &[1.0])]).score(&batch(2)).unwrap_err();
        assert!(
            matches!(
                error,
                RewardError::WrongCount {
                    expected: 2,
                    got: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn is_linear_in_the_weights(
            weights in prop::collection::vec(-5.0_f64..5.0, 1..4), scale in -3.0_f64..3.0,
            rewards in prop::collection::vec(-9.0_f64..9.0, 3),
        ) {
            let terms = |factor: f64| weights.iter().map(|&w| (w * factor, rewards.as_slice())).collect::<Vec<_>>();
            let plain = sum(&terms(1.0)).score(&batch(3)).unwrap();
            let scaled = sum(&terms(scale)).score(&batch(3)).unwrap();
            let weight: f64 = weights.iter().sum();
            for ((plain, scaled), reward) in plain.iter().zip(&scaled).zip(&rewards) {
                prop_assert!((plain - weight * reward).abs() < 1e-9);
                prop_assert!((scaled - scale * plain).abs() < 1e-9);
            }
        }
    }
}
