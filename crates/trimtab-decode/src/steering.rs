//! The prefix scorers of a request and how they are mixed. Knows names, weights and places, no values and no model.
//!
//! Several rewards are mixed at request time as a weighted sum of their values, weights of any sign (CD section 5,
//! experiment 4). A floor keeps one value from falling: the smallest additional weight on that term that holds it.

use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// Where the value of a prefix comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueSource {
    /// A head on the generator's own hidden states: comes with the row.
    Row {
        /// Place among the scorers that the engine was given.
        scorer: usize,
    },
    /// Asked of the caller as [`crate::Need::Values`], e.g. a scorer with weights and a tokenizer of its own.
    Asked,
}

/// One scorer in the mix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SteeringTerm {
    /// What reports call it.
    pub name: String,
    /// Its weight `w_i`, finite, of any sign.
    pub weight: f64,
    /// Where its values come from.
    pub source: ValueSource,
}

/// Keeps the value of one term at or above a bound by adding to its weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Place among the terms.
    pub term: usize,
    /// Least value, in the term's unit.
    pub at_least: f64,
}

/// The scorers of a request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steering {
    /// The terms, in the order of every list of values.
    pub terms: Vec<SteeringTerm>,
    /// The constraint, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
}

impl Steering {
    /// One term of weight 1 whose values come with the row.
    pub fn single(name: &str) -> Self {
        Self {
            terms: vec![SteeringTerm {
                name: name.to_owned(),
                weight: 1.0,
                source: ValueSource::Row { scorer: 0 },
            }],
            floor: None,
        }
    }

    /// The weighted sum of one value a term. `[terms]`
    pub fn mixed(&self, values: &[f64]) -> f64 {
        self.terms
            .iter()
            .zip(values)
            .map(|(term, value)| term.weight * value)
            .sum()
    }

    /// Whether some value has to be asked of the caller.
    pub fn asks_caller(&self) -> bool {
        self.terms.iter().any(|term| term.source == ValueSource::Asked)
    }

    /// What a steered method asks of its inputs: a mix that it can follow, and not an empty one.
    pub(crate) fn require(&self, method: &'static str) -> Result<(), DecodeError> {
        if self.terms.is_empty() {
            return Err(DecodeError::NoScorer { method });
        }
        self.validate()
    }

    /// Refuses a mix that no method can follow.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] for a weight or a floor that is not finite, or a floor on a term that is not there.
    pub fn validate(&self) -> Result<(), DecodeError> {
        for term in &self.terms {
            if !term.weight.is_finite() {
                let setting = format!("weight of scorer {}", term.name);
                return Err(DecodeError::invalid(&setting, "a finite number", &term.weight));
            }
        }
        match self.floor {
            Some(floor) if floor.term >= self.terms.len() => {
                let expected = format!("the place of one of {} scorers, from 0", self.terms.len());
                Err(DecodeError::invalid("floor term", &expected, &floor.term))
            }
            Some(floor) if !floor.at_least.is_finite() => Err(DecodeError::invalid(
                "floor",
                "a finite number, in the scorer's unit",
                &floor.at_least,
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steering(weights: &[f64], floor: Option<Floor>) -> Steering {
        let term = |&weight: &f64| SteeringTerm {
            name: "length".to_owned(),
            weight,
            source: ValueSource::Asked,
        };
        Steering {
            terms: weights.iter().map(term).collect(),
            floor,
        }
    }

    #[test]
    fn values_are_mixed_by_weights_of_any_sign() {
        assert_eq!(steering(&[2.0, -0.5], None).mixed(&[3.0, 4.0]), 4.0);
        assert!(steering(&[1.0], None).asks_caller() && !Steering::single("length").asks_caller());
    }

    #[test]
    fn mixes_that_cannot_be_followed_are_refused() {
        let floor = |term, at_least| Some(Floor { term, at_least });
        let check = |weights: &[f64], floor: Option<Floor>, expect: Option<&str>| {
            let error = steering(weights, floor)
                .validate()
                .err()
                .map(|error| error.to_string());
            assert_eq!(error.as_deref(), expect);
        };
        check(&[1.0, -2.0], floor(1, 0.5), None);
        check(
            &[f64::INFINITY],
            None,
            Some("weight of scorer length: expected a finite number, got inf"),
        );
        check(
            &[1.0],
            floor(1, 0.5),
            Some("floor term: expected the place of one of 1 scorers, from 0, got 1"),
        );
        check(
            &[1.0],
            floor(0, f64::NAN),
            Some("floor: expected a finite number, in the scorer's unit, got NaN"),
        );
    }

    #[test]
    fn steering_in_a_file_is_read_strictly_and_written_back() {
        let text = r#"{"terms":[{"name":"a","weight":-0.5,"source":{"row":{"scorer":1}}},{"name":"b","weight":1.0,"source":"asked"}],"floor":{"term":1,"at_least":2.0}}"#;
        let steering: Steering = serde_json::from_str(text).expect("it reads");
        assert_eq!(serde_json::to_string(&steering).ok().as_deref(), Some(text));
        assert!(serde_json::from_str::<Steering>(r#"{"terms":[],"flor":null}"#).is_err());
    }
}
