//! Which published family a configuration is of, when a file of it is made: names and fixed choices differ by family.
//! Whether two configurations describe the same calculation, whatever their files call it. Knows no format's fields.

use serde_json::Value;

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::rope::{RopeFrequencies, rope_frequencies};

/// Largest relative difference of rotary frequencies that counts as none: GGUF keeps their divisors in f32.
const FREQUENCY_TOLERANCE: f64 = 2.5e-7;

/// The families that differ in the names of files' fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
}

impl Family {
    /// By the name that the file, of whatever format, has for it.
    pub(crate) fn of(config: &ModelConfig) -> Result<Self, ModelError> {
        match config.architecture.as_str() {
            "llama" | "llama2c" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            "gemma3" | "gemma3_text" => Ok(Self::Gemma3),
            other => Err(ModelError::UnknownArchitecture {
                name: other.to_owned(),
                supported: "llama, llama2c, qwen2, qwen3, gemma3, gemma3_text",
            }),
        }
    }
}

/// Checks that a decoder of `got`, as a file that was made describes it, calculates what one of `expected` does.
///
/// # Errors
/// The first field that differs: the file's format has no place for what the configuration says.
pub fn check_same_model(expected: &ModelConfig, got: &ModelConfig) -> Result<(), ModelError> {
    let ropes = |config: &ModelConfig| {
        let all = std::iter::once(&config.rope).chain(&config.local_rope);
        all.map(|rope| rope_frequencies(rope, config.head_dim))
            .collect::<Vec<_>>()
    };
    let (expected_ropes, got_ropes) = (ropes(expected), ropes(got));
    let same_ropes = expected_ropes.len() == got_ropes.len()
        && expected_ropes
            .iter()
            .zip(&got_ropes)
            .all(|(expected, got)| are_close(expected, got));
    if !same_ropes {
        return Err(no_place("rope", &expected.rope, &got.rope));
    }
    let fields = |config: &ModelConfig| match serde_json::to_value(config) {
        Ok(Value::Object(mut fields)) => {
            for handled in ["architecture", "rope", "local_rope"] {
                fields.remove(handled);
            }
            fields
        }
        _ => serde_json::Map::new(),
    };
    let got_fields = fields(got);
    for (name, value) in fields(expected) {
        let other = got_fields.get(&name).unwrap_or(&Value::Null);
        if *other != value {
            return Err(no_place(&name, &value, other));
        }
    }
    Ok(())
}

fn are_close(expected: &RopeFrequencies, got: &RopeFrequencies) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= FREQUENCY_TOLERANCE * a.abs();
    let frequencies = expected.inv_freq.iter().zip(&got.inv_freq);
    close(expected.attention_factor, got.attention_factor) && {
        let mut frequencies = frequencies;
        frequencies.all(|(&a, &b)| close(a, b))
    }
}

fn no_place(field: &str, value: &impl std::fmt::Debug, other: &impl std::fmt::Debug) -> ModelError {
    ModelError::BadConfig {
        field: field.to_owned().into(),
        value: format!("{value:?}"),
        expected: format!(
            "what the format that is written can say of this family, which is {other:?}; write the other format, or the \
             one that the model came in"
        ),
    }
}
