//! Counts matches of a regular expression. Knows the response text only.

use regex::Regex;
use trimtab_base::{RewardError, RewardModel, ScoreInput};

/// Number of non-overlapping, non-empty matches of a pattern in the response.
///
/// Empty matches do not count: `a*` would otherwise earn one point per character of any text.
#[derive(Debug, Clone)]
pub struct RegexCount {
    name: String,
    pattern: Regex,
}

impl RegexCount {
    /// The reward under the name used in reports.
    pub fn new(name: impl Into<String>, pattern: Regex) -> Self {
        Self {
            name: name.into(),
            pattern,
        }
    }

    /// Matches in `text`.
    pub fn count(&self, text: &str) -> usize {
        self.pattern
            .find_iter(text)
            .filter(|found| !found.is_empty())
            .count()
    }
}

impl RewardModel for RegexCount {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &'static str {
        "matches"
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        Ok(batch
            .iter()
            .map(|input| self.count(&input.response) as f64)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::text_input;

    #[test]
    fn counts_matches() {
        let check = |pattern: &str, text: &str, expect: f64| {
            let reward = RegexCount::new("regex", Regex::new(pattern).unwrap());
            assert_eq!(
                reward.score(&[text_input(text)]).unwrap(),
                [expect],
                "{pattern} in {text:?}"
            );
        };
        check("please", "please, please", 2.0);
        check("(?i)please", "Please", 1.0);
        check("aa", "aaaaa", 2.0);
        check("a*", "bab", 1.0);
        check("^$", "", 0.0);
        check(r"\d+", "1 22 333", 3.0);
        check("é", "café é", 2.0);
    }
}
