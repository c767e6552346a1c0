//! The protocol of external scorers: JSON lines. Knows text only, no transport.
//!
//! A request has one line per item, each a JSON object:
//!
//! ```json
//! {"prompt": "What is 6 x 7?", "response": "42", "record": {"answer": 42}}
//! ```
//!
//! `record` holds the fields of the prompt's record besides the prompt. The answer has one line per item in the
//! same order, each a JSON object with a number `reward`; other keys are ignored, blank lines too:
//!
//! ```json
//! {"reward": 1.0}
//! ```
//!
//! `null`, a missing `reward`, text or a literal `NaN` are refused with the item's number.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trimtab_base::{RewardError, ScoreInput};

#[derive(Serialize)]
struct RequestLine<'a> {
    prompt: &'a str,
    response: &'a str,
    record: &'a Map<String, Value>,
}

#[derive(Deserialize)]
struct AnswerLine {
    reward: f64,
}

/// The request for `batch`, every line ended.
pub(crate) fn encode(batch: &[ScoreInput]) -> String {
    let line = |input: &ScoreInput| {
        let request = RequestLine {
            prompt: &input.prompt,
            response: &input.response,
            record: &input.record,
        };
        serde_json::to_string(&request).expect("strings and JSON values always serialise") + "\n"
    };
    batch.iter().map(line).collect()
}

/// The rewards in an answer to `expected` items, the first of which is `first_item_idx` of the caller's batch.
pub(crate) fn decode(
    reward: &str,
    first_item_idx: usize,
    expected: usize,
    answer: &str,
) -> Result<Vec<f64>, RewardError> {
    let lines: Vec<&str> = answer.lines().filter(|line| !line.trim().is_empty()).collect();
    // Counted first: with a line too many or too few, every item number after it would mislead.
    if lines.len() != expected {
        return Err(RewardError::WrongCount {
            reward: reward.to_owned(),
            expected,
            got: lines.len(),
        });
    }
    let parse = |(line_idx, line): (usize, &&str)| match serde_json::from_str::<AnswerLine>(line) {
        Ok(AnswerLine { reward }) => Ok(reward),
        Err(_) => Err(RewardError::BadReward {
            reward: reward.to_owned(),
            item_idx: first_item_idx + line_idx,
            got: line.chars().take(200).collect(),
        }),
    };
    lines.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::answer_input;

    #[test]
    fn a_request_line_is_the_documented_object() {
        let text = encode(&[
            answer_input("two\nlines \"quoted\"", json!(42)),
            answer_input("", json!("x")),
        ]);
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                json!({"prompt": "prompt", "response": "two\nlines \"quoted\"", "record": {"answer": 42}}),
                json!({"prompt": "prompt", "response": "", "record": {"answer": "x"}}),
            ]
        );
    }

    #[test]
    fn answers_are_numbers_in_order() {
        let check =
            |answer: &str, expect: &[f64]| assert_eq!(decode("r", 0, expect.len(), answer).unwrap(), expect);
        check("{\"reward\": 1}\n{\"reward\": -2.5e1}\n", &[1.0, -25.0]);
        check("\n{\"reward\": 0, \"why\": \"short\"}\r\n\n", &[0.0]);
        check("", &[]);
    }

    #[test]
    fn anything_but_a_number_names_the_item() {
        for bad in [
            "{\"reward\": null}",
            "{\"reward\": \"1\"}",
            "{\"reward\": NaN}",
            "{\"reward\": 1e999}",
            "{}",
            "3",
            "oops",
        ] {
            let error = decode("r", 10, 2, &format!("{{\"reward\": 1}}\n{bad}")).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("reward r: item 11: expected a number as reward, got {bad}")
            );
        }
    }

    #[test]
    fn a_wrong_count_is_refused() {
        for answer in [
            "",
            "{\"reward\": 1}",
            "{\"reward\": 1}\n{\"reward\": 1}\n{\"reward\": 1}",
        ] {
            let error = decode("r", 0, 2, answer).unwrap_err();
            assert!(
                matches!(error, RewardError::WrongCount { expected: 2, .. }),
                "{error}"
            );
        }
    }
}
