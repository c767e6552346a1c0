//! Whether the response is JSON. Knows syntax only, no schema.

use serde::de::IgnoredAny;
use trimtab_base::{RewardError, RewardModel, ScoreInput};

/// 1 if the whole response, apart from surrounding white space, is one JSON value (RFC 8259), else 0.
///
/// Any value counts, a bare number or string too, nested however deep (`serde_json`'s limit of 128 does not hold where
/// the value is skipped rather than built). Text around the value, a Markdown fence for instance, makes it 0.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonValidity {
    name: String,
}

impl JsonValidity {
    /// The reward under the name used in reports.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

impl RewardModel for JsonValidity {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &'static str {
        "1 if valid JSON else 0"
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        let is_valid = |input: &ScoreInput| serde_json::from_str::<IgnoredAny>(&input.response).is_ok();
        Ok(batch
            .iter()
            .map(|input| f64::from(u8::from(is_valid(input))))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::text_input;

    #[test]
    fn accepts_exactly_rfc_8259() {
        let check = |text: &str, expect: f64| {
            let rewards = JsonValidity::new("json").score(&[text_input(text)]).unwrap();
            assert_eq!(rewards, [expect], "{text:?}");
        };
        check(r#"{"a": [1, 2.5e3, null, true, "x"]}"#, 1.0);
        check(" \n[]\t", 1.0);
        check("42", 1.0);
        check("", 0.0);
        check("{'a': 1}", 0.0);
        check("[1,]", 0.0);
        check("{} {}", 0.0);
        check("NaN", 0.0);
        check("```json\n{}\n```", 0.0);
    }

    #[test]
    fn deep_nesting_is_judged_and_does_not_overflow_the_stack() {
        let depth = 1_000_000;
        let rewards = JsonValidity::new("json")
            .score(&[text_input(&"[".repeat(depth))])
            .unwrap();
        assert_eq!(rewards, [0.0]);
        let nested = "[".repeat(depth) + &"]".repeat(depth);
        let rewards = JsonValidity::new("json").score(&[text_input(&nested)]).unwrap();
        assert_eq!(rewards, [1.0]);
    }
}
