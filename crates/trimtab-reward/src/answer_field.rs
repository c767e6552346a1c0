//! The record's `answer` field as verifiers read it. Knows the field's shapes, not what is compared.

use serde_json::{Map, Value};
use trimtab_base::RewardError;

/// Field of the prompt's record that holds the expected answer.
pub(crate) const FIELD: &str = "answer";

/// Accepted answers of one item as text: a string, number or boolean, or a non-empty list of these.
pub(crate) fn accepted_answers(
    reward: &str,
    item_idx: usize,
    record: &Map<String, Value>,
) -> Result<Vec<String>, RewardError> {
    let value = record.get(FIELD).ok_or_else(|| RewardError::MissingField {
        reward: reward.to_owned(),
        item_idx,
        field: FIELD.to_owned(),
    })?;
    let texts = match value {
        Value::Array(values) if !values.is_empty() => values.iter().map(text_of).collect(),
        single => text_of(single).map(|text| vec![text]),
    };
    texts.ok_or_else(|| bad_answer(reward, item_idx, "a string, a number or a list of these", value))
}

/// The error for an answer that the verifier cannot use.
pub(crate) fn bad_answer(reward: &str, item_idx: usize, expected: &str, got: &Value) -> RewardError {
    RewardError::BadField {
        reward: reward.to_owned(),
        item_idx,
        field: FIELD.to_owned(),
        expected: expected.to_owned(),
        got: got.to_string(),
    }
}

/// The part after the last `####`, which GSM8K puts before its final answer; the whole text without one.
pub(crate) fn after_marker(text: &str) -> &str {
    text.rsplit_once("####").map_or(text, |(_, answer)| answer)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
