//! Exact-answer verifier. Knows text equality, not meaning.

use serde_json::{Map, Value};
use trimtab_base::{RewardError, RewardModel, ScoreInput};

use crate::answer_field::{accepted_answers, after_marker};

/// 1 if the response's answer equals the record's `answer` as text, else 0.
///
/// The answer is what follows the last `####`, or the whole text without that marker, on both sides. White space
/// at the ends is ignored and runs of it count as one space; everything else, case too, must agree. The record's
/// `answer` may be a list; then equality with any entry counts.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactAnswer {
    name: String,
}

impl ExactAnswer {
    /// The reward under the name used in reports.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    fn reward(&self, item_idx: usize, input: &ScoreInput) -> Result<f64, RewardError> {
        let response: Vec<&str> = after_marker(&input.response).split_whitespace().collect();
        let accepted = accepted_answers(&self.name, item_idx, &input.record)?;
        let is_correct = accepted.iter().any(|answer| {
            after_marker(answer)
                .split_whitespace()
                .eq(response.iter().copied())
        });
        Ok(f64::from(u8::from(is_correct)))
    }
}

impl RewardModel for ExactAnswer {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &'static str {
        "1 if correct else 0"
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        batch
            .iter()
            .enumerate()
            .map(|(item_idx, input)| self.reward(item_idx, input))
            .collect()
    }

    fn check_record(&self, record: &Map<String, Value>) -> Result<(), RewardError> {
        accepted_answers(&self.name, 0, record).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{answer_input, text_input};

    #[test]
    fn compares_the_final_answer_as_text() {
        let check = |response: &str, answer: Value, expect: f64| {
            let rewards = ExactAnswer::new("answer")
                .score(&[answer_input(response, answer.clone())])
                .unwrap();
            assert_eq!(rewards, [expect], "{response:?} against {answer}");
        };
        check("Paris", json!("Paris"), 1.0);
        check("  Paris\n", json!("Paris"), 1.0);
        check("paris", json!("Paris"), 0.0);
        check("New\n York", json!("New York"), 1.0);
        check("NewYork", json!("New York"), 0.0);
        check("It is Paris", json!("Paris"), 0.0);
        check("Thinking...\n#### Paris", json!("Paris"), 1.0);
        check("42", json!("6 * 7 = 42\n#### 42"), 1.0);
        check("42", json!(42), 1.0);
        check("true", json!(true), 1.0);
        check("b", json!(["a", "b"]), 1.0);
        check("c", json!(["a", "b"]), 0.0);
    }

    #[test]
    fn a_missing_or_unusable_answer_names_the_item() {
        let verifier = ExactAnswer::new("answer");
        let error = verifier
            .score(&[answer_input("x", json!("x")), text_input("x")])
            .unwrap_err();
        assert!(
            matches!(error, RewardError::MissingField { item_idx: 1, .. }),
            "{error}"
        );
        for unusable in [json!(null), json!({"value": 1}), json!([]), json!([null])] {
            let error = verifier
                .score(&[answer_input("x", unusable.clone())])
                .unwrap_err();
            assert!(
                matches!(error, RewardError::BadField { item_idx: 0, .. }),
                "{unusable}: {error}"
            );
            let record = answer_input("x", unusable.clone()).record;
            assert!(verifier.check_record(&record).is_err(), "{unusable}");
        }
    }
}
