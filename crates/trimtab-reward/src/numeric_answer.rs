//! Numeric verifier in the style of GSM8K. Knows numbers in text, not how they were derived.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};
use trimtab_base::{RewardError, RewardModel, ScoreInput};

use crate::answer_field::{FIELD, accepted_answers, after_marker, bad_answer};

/// 1 if the last number of the response equals the record's `answer`, else 0.
///
/// Where the response or the answer has a `####`, the last number after it counts, as in GSM8K (arXiv 2110.14168).
/// Numbers may have a sign, thousands separators (`1,234`), decimals and an exponent; units and currency signs
/// around them are ignored. Two numbers are equal within `tolerance * max(1, |answer|)`. A response without a
/// number is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct NumericAnswer {
    name: String,
    tolerance: f64,
}

impl NumericAnswer {
    /// Default tolerance: absolute up to 1, relative above.
    pub const DEFAULT_TOLERANCE: f64 = 1e-6;

    /// The reward under the name used in reports, with a non-negative tolerance.
    pub fn new(name: impl Into<String>, tolerance: f64) -> Self {
        assert!(tolerance >= 0.0, "tolerance must not be negative");
        Self {
            name: name.into(),
            tolerance,
        }
    }

    fn reward(&self, item_idx: usize, input: &ScoreInput) -> Result<f64, RewardError> {
        let accepted = self.accepted(item_idx, &input.record)?;
        let response = last_number(after_marker(&input.response));
        let is_correct = response.is_some_and(|got| accepted.iter().any(|&answer| self.agree(got, answer)));
        Ok(f64::from(u8::from(is_correct)))
    }

    /// The numbers that count as right for this record.
    fn accepted(&self, item_idx: usize, record: &Map<String, Value>) -> Result<Vec<f64>, RewardError> {
        let texts = accepted_answers(&self.name, item_idx, record)?;
        let numbers = texts.iter().map(|text| last_number(after_marker(text)));
        numbers.collect::<Option<_>>().ok_or_else(|| {
            let expected = "a number or text that ends in one";
            bad_answer(&self.name, item_idx, expected, &record[FIELD])
        })
    }

    fn agree(&self, got: f64, answer: f64) -> bool {
        (got - answer).abs() <= self.tolerance * answer.abs().max(1.0)
    }
}

/// The last number in `text`.
///
/// A minus sign belongs to a number unless a word or a closing bracket stands right before it, so `5-3` ends in 3.
/// Commas that do not separate groups of three separate numbers: `1,2,3` ends in 3. Values beyond f64 are skipped.
pub fn last_number(text: &str) -> Option<f64> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
            .expect("the pattern is constant")
    });
    NUMBER
        .find_iter(text)
        .filter_map(|found| {
            let (offset, digits) = without_separators(found.as_str());
            let magnitude: f64 = digits.parse().ok()?;
            let signed = if ends_in_minus(&text[..found.start() + offset]) {
                -magnitude
            } else {
                magnitude
            };
            signed.is_finite().then_some(signed)
        })
        .last()
}

/// Removes well-placed thousands separators; with commas placed otherwise, what follows the last one is the number.
/// Returns where in `number` the result begins, and its digits.
fn without_separators(number: &str) -> (usize, String) {
    let number = number.trim_end_matches(',');
    let integer_len = number.find(['.', 'e', 'E']).unwrap_or(number.len());
    let (integer, rest) = number.split_at(integer_len);
    let mut groups = integer.split(',');
    let first_len = groups.next().map_or(0, str::len);
    if !integer.contains(',') || (first_len <= 3 && groups.all(|group| group.len() == 3)) {
        return (0, integer.replace(',', "") + rest);
    }
    let offset = number.rfind(',').map_or(0, |comma| comma + 1);
    (offset, number[offset..].to_owned())
}

/// Whether a minus sign (ASCII hyphen or U+2212) ends the text before a number, perhaps before a currency sign.
fn ends_in_minus(before: &str) -> bool {
    let before = before.trim_end_matches(['$', '€', '£', '¥']);
    let Some(before_sign) = before.strip_suffix(['-', '\u{2212}']) else {
        return false;
    };
    !before_sign.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ')' | ']' | '.'))
}

impl RewardModel for NumericAnswer {
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
        self.accepted(0, record).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{answer_input, text_input};

    #[test]
    fn finds_the_last_number() {
        let check = |text: &str, expect: Option<f64>| assert_eq!(last_number(text), expect, "{text:?}");
        check("", None);
        check("no numbers", None);
        check("first 3, then 42.", Some(42.0));
        check("$1,234.50!", Some(1234.5));
        check("1,234,567 people", Some(1_234_567.0));
        check("1,2,3", Some(3.0));
        check("1,2345", Some(2345.0));
        check("1234,567", Some(567.0));
        check("42,", Some(42.0));
        check("-7", Some(-7.0));
        check("\u{2212}7", Some(-7.0));
        check("-$5", Some(-5.0));
        check("5-3", Some(3.0));
        check("(2)-3", Some(3.0));
        check("x = -3", Some(-3.0));
        check("-1,2,3", Some(3.0));
        check(".5", Some(0.5));
        check("1.5e3 m", Some(1500.0));
        check("2e-2", Some(0.02));
        check("1.2.", Some(1.2));
        check("75%", Some(75.0));
        check("7 or 1e999", Some(7.0));
    }

    #[test]
    fn judges_like_gsm8k() {
        let check = |response: &str, answer: Value, expect: f64| {
            let verifier = NumericAnswer::new("numeric", NumericAnswer::DEFAULT_TOLERANCE);
            let rewards = verifier.score(&[answer_input(response, answer.clone())]).unwrap();
            assert_eq!(rewards, [expect], "{response:?} against {answer}");
        };
        check(
            "So she earns $1,234 in total.",
            json!("She earns 2*617=1234\n#### 1,234"),
            1.0,
        );
        check("#### 42\nThat took 3 steps", json!(42), 0.0);
        check("The result is #### 42", json!("42"), 1.0);
        check("about 41.99", json!(42), 0.0);
        check("42.0", json!(42), 1.0);
        check("I do not know", json!(42), 0.0);
        check("0.3333333", json!(0.333_333_3), 1.0);
        check("12", json!([11, 12]), 1.0);
    }

    #[test]
    fn the_tolerance_is_absolute_below_one_and_relative_above() {
        let judge = |tolerance: f64, response: &str, answer: f64| {
            NumericAnswer::new("numeric", tolerance)
                .score(&[answer_input(response, json!(answer))])
                .unwrap()[0]
        };
        assert_eq!(judge(0.01, "0.005", 0.0), 1.0);
        assert_eq!(judge(0.01, "0.02", 0.0), 0.0);
        assert_eq!(judge(0.01, "1009", 1000.0), 1.0);
        assert_eq!(judge(0.01, "1011", 1000.0), 0.0);
        assert_eq!(judge(0.0, "1000.0001", 1000.0), 0.0);
    }

    #[test]
    fn an_answer_without_a_number_names_the_item() {
        let verifier = NumericAnswer::new("numeric", 0.0);
        let error = verifier
            .score(&[answer_input("1", json!(1)), answer_input("1", json!("one"))])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "reward numeric: item 1 has answer = \"one\"; expected a number or text that ends in one"
        );
        let error = verifier.score(&[text_input("1")]).unwrap_err();
        assert!(
            matches!(error, RewardError::MissingField { item_idx: 0, .. }),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn reads_back_what_was_written_with_separators(number in -999_999_999_i64..999_999_999) {
            let digits = number.unsigned_abs().to_string();
            let grouped: Vec<&str> = digits.as_bytes().rchunks(3).rev()
                .map(|group| std::str::from_utf8(group).unwrap()).collect();
            let sign = if number < 0 { "-" } else { "" };
            let text = format!("answer: {sign}{}.", grouped.join(","));
            prop_assert_eq!(last_number(&text), Some(number as f64));
        }
    }
}
