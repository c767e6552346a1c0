//! How byte-level BPE vocabularies cut text into words before merging. Knows no vocabulary.
//!
//! GGUF files name the cut (`tokenizer.ggml.pre`); the regexes behind each name are the ones that the models'
//! authors published in `tokenizer.json`. A wrong cut gives valid but untrained token sequences, so an unknown
//! name is refused instead of guessed.

use tokenizers::SplitDelimiterBehavior::Isolated;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use crate::error::TokenizerError;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// llama.cpp's cut for files that name none: Falcon's, with every number split off.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];

const SUPPORTED: &str = "default, gpt-2, mpt, olmo, smollm, starcoder, refact, command-r, codeshell, llama-bpe, \
                         llama3, llama-v3, falcon3, smaug-bpe, dbrx, qwen2, deepseek-r1-qwen, stablelm2, tekken";

/// A named cut and what comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Applied one after the other, each to the pieces that the one before left.
    regexes: &'static [&'static str],
    /// A word that is a piece of the vocabulary is taken whole, whatever the merges say.
    pub(crate) ignore_merges: bool,
    /// Prompts start with the BOS token unless the file says otherwise.
    pub(crate) add_bos: bool,
}

impl Cut {
    /// The cut named by `tokenizer.ggml.pre`; files that name none get llama.cpp's default.
    pub(crate) fn named(pre: Option<&str>) -> Result<Self, TokenizerError> {
        let plain = |regexes| Self {
            regexes,
            ignore_merges: false,
            add_bos: false,
        };
        Ok(match pre.unwrap_or("default") {
            "default" => plain(&DEFAULT),
            "gpt-2" | "mpt" | "olmo" => plain(&[GPT2]),
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => plain(&[DIGIT, GPT2]),
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" => Self {
                regexes: &[LLAMA3],
                ignore_merges: true,
                add_bos: true,
            },
            "smaug-bpe" | "dbrx" => plain(&[LLAMA3]),
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" => plain(&[QWEN2]),
            "tekken" => Self {
                regexes: &[TEKKEN],
                ignore_merges: true,
                add_bos: true,
            },
            other => {
                return Err(TokenizerError::Unsupported {
                    field: "tokenizer.ggml.pre",
                    got: other.to_owned(),
                    supported: SUPPORTED,
                });
            }
        })
    }

    /// The library's form of the cut, with the byte table applied last.
    pub(crate) fn build(&self) -> Result<PreTokenizerWrapper, TokenizerError> {
        let mut steps = Vec::with_capacity(self.regexes.len() + 1);
        for &regex in self.regexes {
            let split =
                Split::new(SplitPattern::Regex(regex.to_owned()), Isolated, false).map_err(|error| {
                    TokenizerError::Library {
                        stage: "pre-tokenizer",
                        problem: error.to_string(),
                    }
                })?;
            steps.push(PreTokenizerWrapper::Split(split));
        }
        steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)));
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps)))
    }
}

/// The name under which a GGUF file asks for this cut; `None` if there is none.
pub(crate) fn name_of(pre_tokenizer: &PreTokenizerWrapper, ignore_merges: bool) -> Option<&'static str> {
    let mut regexes = Vec::new();
    add_regexes(pre_tokenizer, &mut regexes)?;
    let is_this = |name: &&str| {
        let cut = Cut::named(Some(name)).ok();
        cut.is_some_and(|cut| cut.regexes == regexes && cut.ignore_merges == ignore_merges)
    };
    SUPPORTED.split(", ").find(is_this)
}

/// The regexes of a pre-tokenizer's steps; `None` if one of them is of another kind.
fn add_regexes<'a>(step: &'a PreTokenizerWrapper, regexes: &mut Vec<&'a str>) -> Option<()> {
    match step {
        PreTokenizerWrapper::Sequence(steps) => steps
            .as_ref()
            .iter()
            .try_for_each(|step| add_regexes(step, regexes)),
        PreTokenizerWrapper::ByteLevel(step) => {
            regexes.extend(step.use_regex.then_some(GPT2));
            Some(())
        }
        PreTokenizerWrapper::Digits(step) => step.individual_digits.then(|| regexes.push(DIGIT)),
        PreTokenizerWrapper::Split(step) => match &step.pattern {
            SplitPattern::Regex(regex) if step.behavior == Isolated && !step.invert => {
                regexes.push(regex);
                Some(())
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    fn cut(pre: &str, text: &str) -> Vec<String> {
        let mut words = PreTokenizedString::from(text);
        Cut::named(Some(pre))
            .unwrap()
            .build()
            .unwrap()
            .pre_tokenize(&mut words)
            .unwrap();
        let words = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        words
            .into_iter()
            .map(|(_, (start, end), _)| text[start..end].to_owned())
            .collect()
    }

    #[test]
    fn names_cut_as_published() {
        let check =
            |pre: &str, text: &str, expect: &[&str]| assert_eq!(cut(pre, text), expect, "{pre}: {text:?}");
        check("gpt-2", "I'm  24 years", &["I", "'m", " ", " 24", " years"]);
        check("gpt-2", "I'M 1234", &["I", "'", "M", " 1234"]);
        check("smollm", "a 12 b", &["a", " ", "1", "2", " b"]);
        check(
            "llama-bpe",
            "I'M 1234\n\n  x",
            &["I", "'M", " ", "123", "4", "\n\n", " ", " x"],
        );
        check(
            "qwen2",
            "I'M 1234\n\n  x",
            &["I", "'M", " ", "1", "2", "3", "4", "\n\n", " ", " x"],
        );
        check("qwen2", ".Foo()\n", &[".Foo", "()\n"]);
        check("tekken", "fooBar/\n", &["foo", "Bar", "/\n"]);
        check("default", "$12345 ok", &["$", "123", "45", " ok"]);
    }

    #[test]
    fn cuts_are_found_by_what_they_do() {
        for name in SUPPORTED.split(", ") {
            let cut = Cut::named(Some(name)).unwrap();
            let found = name_of(&cut.build().unwrap(), cut.ignore_merges).unwrap();
            let found = Cut::named(Some(found)).unwrap();
            assert_eq!(
                (found.regexes, found.ignore_merges),
                (cut.regexes, cut.ignore_merges),
                "{name}"
            );
        }
        let smollm = Cut::named(Some("smollm")).unwrap().build().unwrap();
        assert_eq!(name_of(&smollm, false), Some("smollm"));
        assert_eq!(name_of(&smollm, true), None);
    }

    #[test]
    fn every_name_in_the_message_works_and_others_are_refused() {
        for name in SUPPORTED.split(", ") {
            Cut::named(Some(name)).unwrap().build().unwrap();
        }
        let refused = Cut::named(Some("kimi-k2"));
        assert!(matches!(refused, Err(TokenizerError::Unsupported { got, .. }) if got == "kimi-k2"));
    }
}
