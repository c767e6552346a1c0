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
