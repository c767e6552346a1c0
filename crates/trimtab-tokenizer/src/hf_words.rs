//! Normalizers and pre-tokenizers of `tokenizer.json`. Knows no vocabulary.
//!
//! The library could read these itself, but what it reads it trusts; here each step is one of a short list, and a
//! step that loses bytes of the text is refused.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::normalizers::{NFC, NFD, NFKC, NFKD, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::bpe::{Words, library};
use crate::error::TokenizerError;
use crate::hf_json::unsupported;
use crate::space_mark::{Prefix, SPACE_MARK};

const NORMALIZERS: &str =
    "NFC, NFD, NFKC, NFKD, Prepend of \"▁\", Replace of \" \" by \"▁\", or a Sequence of these";
const PRE_TOKENIZERS: &str = "ByteLevel without prefix space, Split, Digits, Punctuation, Metaspace without split, \
                              or a Sequence of these";

/// A step of the normalizer.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum NormalizerStep {
    Sequence {
        normalizers: Vec<Self>,
    },
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
}

/// A step of the pre-tokenizer.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum PreTokenizerStep {
    Sequence {
        pretokenizers: Vec<Self>,
    },
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: Pattern,
        behavior: SplitDelimiterBehavior,
        #[serde(default)]
        invert: bool,
    },
    Digits {
        individual_digits: bool,
    },
    Punctuation {
        behavior: SplitDelimiterBehavior,
    },
    Metaspace {
        replacement: String,
        prepend_scheme: Option<PrependScheme>,
        add_prefix_space: Option<bool>,
        #[serde(default = "yes")]
        split: bool,
    },
}

#[derive(Deserialize, PartialEq, Eq)]
enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum PrependScheme {
    First,
    Never,
    Always,
}

fn yes() -> bool {
    true
}

/// How text becomes words, from the two fields of `tokenizer.json`.
pub(crate) fn words(
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    byte_fallback: bool,
) -> Result<Words, TokenizerError> {
    let mut normalizers = Vec::new();
    if let Some(step) = parse("normalizer", normalizer, NORMALIZERS)? {
        flatten_normalizer(step, &mut normalizers);
    }
    let mut pre_tokenizers = Vec::new();
    if let Some(step) = parse("pre_tokenizer", pre_tokenizer, PRE_TOKENIZERS)? {
        flatten_pre_tokenizer(step, &mut pre_tokenizers);
    }
    let is_byte_level = |step: &PreTokenizerStep| matches!(step, PreTokenizerStep::ByteLevel { .. });
    if pre_tokenizers.iter().any(is_byte_level) {
        byte_level(&normalizers, pre_tokenizers)
    } else if byte_fallback {
        space_mark(&normalizers, &pre_tokenizers)
    } else {
        let supported = "a ByteLevel pre-tokenizer, or byte_fallback, so that every text has tokens";
        Err(unsupported("pre_tokenizer", "neither".to_owned(), supported))
    }
}

fn parse<T: DeserializeOwned>(
    field: &'static str,
    value: Option<Value>,
    supported: &'static str,
) -> Result<Option<T>, TokenizerError> {
    let step = value.map(serde_json::from_value).transpose();
    step.map_err(|error| unsupported(field, error.to_string(), supported))
}

fn flatten_normalizer(step: NormalizerStep, steps: &mut Vec<NormalizerStep>) {
    match step {
        NormalizerStep::Sequence { normalizers } => {
            for step in normalizers {
                flatten_normalizer(step, steps);
            }
        }
        step => steps.push(step),
    }
}

fn flatten_pre_tokenizer(step: PreTokenizerStep, steps: &mut Vec<PreTokenizerStep>) {
    match step {
        PreTokenizerStep::Sequence { pretokenizers } => {
            for step in pretokenizers {
                flatten_pre_tokenizer(step, steps);
            }
        }
        step => steps.push(step),
    }
}

fn byte_level(
    normalizers: &[NormalizerStep],
    pre_tokenizers: Vec<PreTokenizerStep>,
) -> Result<Words, TokenizerError> {
    let normalizers = normalizers.iter().map(unicode_form);
    let normalizers: Vec<NormalizerWrapper> = normalizers.collect::<Result<_, _>>()?;
    let steps = pre_tokenizers.into_iter().map(byte_level_step);
    Ok(Words::ByteLevel {
        normalizer: (!normalizers.is_empty())
            .then(|| Box::new(NormalizerWrapper::Sequence(Normalizers::new(normalizers)))),
        pre_tokenizer: Box::new(PreTokenizerWrapper::Sequence(PreTokenizers::new(
            steps.collect::<Result<_, _>>()?,
        ))),
    })
}

fn unicode_form(step: &NormalizerStep) -> Result<NormalizerWrapper, TokenizerError> {
    Ok(match step {
        NormalizerStep::Nfc => NormalizerWrapper::NFC(NFC),
        NormalizerStep::Nfd => NormalizerWrapper::NFD(NFD),
        NormalizerStep::Nfkc => NormalizerWrapper::NFKC(NFKC),
        NormalizerStep::Nfkd => NormalizerWrapper::NFKD(NFKD),
        NormalizerStep::Sequence { .. } | NormalizerStep::Prepend { .. } | NormalizerStep::Replace { .. } => {
            let got = "Prepend or Replace with a ByteLevel pre-tokenizer".to_owned();
            return Err(unsupported("normalizer", got, NORMALIZERS));
        }
    })
}

fn byte_level_step(step: PreTokenizerStep) -> Result<PreTokenizerWrapper, TokenizerError> {
    let refuse = |got: &str| Err(unsupported("pre_tokenizer", got.to_owned(), PRE_TOKENIZERS));
    Ok(match step {
        PreTokenizerStep::ByteLevel {
            add_prefix_space: false,
            use_regex,
        } => PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, use_regex)),
        PreTokenizerStep::Split {
            pattern,
            behavior,
            invert,
        } if behavior != SplitDelimiterBehavior::Removed => {
            let pattern = match pattern {
                Pattern::String(text) => SplitPattern::String(text),
                Pattern::Regex(regex) => SplitPattern::Regex(regex),
            };
            let split = Split::new(pattern, behavior, invert);
            PreTokenizerWrapper::Split(split.map_err(library("pre-tokenizer"))?)
        }
        PreTokenizerStep::Digits { individual_digits } => {
            PreTokenizerWrapper::Digits(Digits::new(individual_digits))
        }
        PreTokenizerStep::Punctuation { behavior } if behavior != SplitDelimiterBehavior::Removed => {
            PreTokenizerWrapper::Punctuation(Punctuation::new(behavior))
        }
        PreTokenizerStep::ByteLevel { .. } => return refuse("ByteLevel with add_prefix_space"),
        PreTokenizerStep::Metaspace { .. } | PreTokenizerStep::Sequence { .. } => {
            return refuse("Metaspace with ByteLevel");
        }
        PreTokenizerStep::Split { .. } | PreTokenizerStep::Punctuation { .. } => {
            return refuse("a step that removes text");
        }
    })
}

/// SentencePiece's writing: `Prepend` and `Replace` in older files, `Metaspace` in newer ones.
fn space_mark(
    normalizers: &[NormalizerStep],
    pre_tokenizers: &[PreTokenizerStep],
) -> Result<Words, TokenizerError> {
    let mut prefix = Prefix::Never;
    let mut marks = false;
    for step in normalizers {
        match step {
            NormalizerStep::Prepend { prepend } if prepend == SPACE_MARK => prefix = Prefix::Always,
            NormalizerStep::Replace {
                pattern: Pattern::String(space),
                content,
            } if space == " " && content == SPACE_MARK => marks = true,
            _ => {
                let got = "another step in a SentencePiece-style file".to_owned();
                return Err(unsupported("normalizer", got, NORMALIZERS));
            }
        }
    }
    for step in pre_tokenizers {
        match step {
            PreTokenizerStep::Metaspace {
                replacement,
                prepend_scheme,
                add_prefix_space,
                split: false,
            } if replacement == SPACE_MARK => {
                marks = true;
                prefix = match (prepend_scheme, add_prefix_space) {
                    (Some(PrependScheme::First), _) => Prefix::First,
                    (Some(PrependScheme::Never), _) | (None, Some(false)) => prefix,
                    (Some(PrependScheme::Always) | None, _) => Prefix::Always,
                };
            }
            // Gemma's; it finds nothing, since no space is left.
            PreTokenizerStep::Split {
                pattern: Pattern::String(space),
                ..
            } if space == " " && marks => {}
            _ => {
                let got = "another step in a SentencePiece-style file".to_owned();
                return Err(unsupported("pre_tokenizer", got, PRE_TOKENIZERS));
            }
        }
    }
    if marks {
        Ok(Words::SpaceMark { prefix })
    } else {
        Err(unsupported(
            "normalizer",
            "no step that writes spaces as \"▁\"".to_owned(),
            NORMALIZERS,
        ))
    }
}
