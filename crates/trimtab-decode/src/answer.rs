//! The answer inside a response, for votes among responses. Knows text, not whether an answer is right.

use std::sync::LazyLock;

use regex::Regex;

use crate::DecodeError;

/// How the answer is read off a response's text.
#[derive(Debug, Clone)]
pub enum AnswerExtractor {
    /// The last number; `1,234`, `1234` and `1234.0` are the same answer.
    LastNumber,
    /// The whole text without white space around it.
    Text,
    /// The last match of a pattern: its first group if it has one, else all of it.
    Pattern(Regex),
}

impl AnswerExtractor {
    /// An extractor by regular expression.
    ///
    /// # Errors
    /// [`DecodeError::InvalidPattern`] with the place of the fault.
    pub fn pattern(pattern: &str) -> Result<Self, DecodeError> {
        Regex::new(pattern)
            .map(Self::Pattern)
            .map_err(|error| DecodeError::InvalidPattern {
                pattern: pattern.to_owned(),
                problem: error.to_string(),
            })
    }

    /// The answer in a canonical form: equal answers are equal strings. `None` if the text has none.
    pub fn extract(&self, text: &str) -> Option<String> {
        match self {
            Self::LastNumber => last_number(text),
            Self::Text => Some(text.trim().to_owned()),
            Self::Pattern(pattern) => {
                let captures = pattern.captures_iter(text).last()?;
                let found = captures.get(1).or_else(|| captures.get(0))?;
                Some(found.as_str().trim().to_owned())
            }
        }
    }
}

impl PartialEq for AnswerExtractor {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::LastNumber, Self::LastNumber) | (Self::Text, Self::Text) => true,
            (Self::Pattern(a), Self::Pattern(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// The last number in canonical decimal form.
///
/// A minus sign counts unless a word or a closing bracket stands right before it, so `5-3` ends in 3. Commas count
/// only between groups of three digits, so `1,2,3` ends in 3.
fn last_number(text: &str) -> Option<String> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:[0-9]{1,3}(?:,[0-9]{3})+\b|[0-9]+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+")
            .expect("the pattern is constant")
    });
    let signed = |found: regex::Match<'_>| {
        let magnitude: f64 = found.as_str().replace(',', "").parse().ok()?;
        let number = if ends_in_minus(&text[..found.start()]) {
            -magnitude
        } else {
            magnitude
        };
        // Adding zero turns -0 into 0.
        number.is_finite().then(|| (number + 0.0).to_string())
    };
    NUMBER.find_iter(text).filter_map(signed).last()
}

/// Whether `before` ends in a minus sign that belongs to what follows.
fn ends_in_minus(before: &str) -> bool {
    let Some(rest) = before.strip_suffix(['-', '\u{2212}']) else {
        return false;
    };
    !rest.ends_with(|c: char| c.is_alphanumeric() || c == ')' || c == ']')
}

#[cfg(test)]
mod tests;
