//! Counts whole-word occurrences of keywords. Knows the response text only.

use regex::Regex;
use trimtab_base::{RewardError, RewardModel, ScoreInput};

use crate::regex_count::RegexCount;

/// Number of occurrences of any of a list of keywords, as whole words, whatever their case.
///
/// Occurrences do not overlap; where two keywords start at the same place the longer one counts.
#[derive(Debug, Clone)]
pub struct KeywordCount(RegexCount);

impl KeywordCount {
    /// The reward under the name used in reports. `keywords` must be non-empty strings.
    ///
    /// # Errors
    /// Keywords too long for the regex engine's size limit.
    pub fn try_new(name: impl Into<String>, keywords: &[&str]) -> Result<Self, regex::Error> {
        let mut longest_first = keywords.to_vec();
        longest_first.sort_by_key(|keyword| std::cmp::Reverse(keyword.len()));
        let alternatives: Vec<String> = longest_first.into_iter().map(whole_word).collect();
        let pattern = Regex::new(&format!("(?i)(?:{})", alternatives.join("|")))?;
        Ok(Self(RegexCount::new(name, pattern)))
    }
}

/// The keyword as a literal pattern, fenced by word boundaries on those ends where it has a word character:
/// `c++` must be found in `c++,` although no word boundary follows a plus sign.
fn whole_word(keyword: &str) -> String {
    let fence = |end: Option<char>| {
        if end.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            r"\b"
        } else {
            ""
        }
    };
    let (start, end) = (fence(keyword.chars().next()), fence(keyword.chars().next_back()));
    format!("{start}{}{end}", regex::escape(keyword))
}

impl RewardModel for KeywordCount {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn unit(&self) -> &'static str {
        "keywords found"
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        self.0.score(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::text_input;

    #[test]
    fn counts_whole_words_of_any_case() {
        let check = |keywords: &[&str], text: &str, expect: f64| {
            let reward = KeywordCount::try_new("keywords", keywords).unwrap();
            assert_eq!(
                reward.score(&[text_input(text)]).unwrap(),
                [expect],
                "{keywords:?} in {text:?}"
            );
        };
        check(&["cat", "dog"], "Cat, dog; CAT!", 3.0);
        check(&["cat"], "concatenate", 0.0);
        check(&["new", "new york"], "New York is new", 2.0);
        check(&["c++"], "C++, not c+", 1.0);
        check(&["a.b"], "axb a.b", 1.0);
        check(&["größe"], "GRÖSSE Größe", 1.0);
        check(&["cat"], "", 0.0);
    }
}
