//! Inputs for this crate's tests.

use serde_json::{Map, Value};
use trimtab_base::{ScoreInput, TokenId};

/// A response of which only the text matters.
pub(crate) fn text_input(response: &str) -> ScoreInput {
    ScoreInput {
        response: response.to_owned(),
        ..tokens_input(0)
    }
}

/// A response of which only the number of tokens matters.
pub(crate) fn tokens_input(num_tokens: usize) -> ScoreInput {
    ScoreInput {
        prompt: "prompt".to_owned(),
        response: String::new(),
        token_ids: vec![TokenId(1); num_tokens],
        reference_log_prob: 0.0,
        record: Map::new(),
    }
}

/// A response with the record's `answer`.
pub(crate) fn answer_input(response: &str, answer: Value) -> ScoreInput {
    ScoreInput {
        record: Map::from_iter([("answer".to_owned(), answer)]),
        ..text_input(response)
    }
}
