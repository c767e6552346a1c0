//! The rewards there are, by name. Knows how each is written and built; the list users see is made here.

use std::fmt;

use regex::Regex;
use trimtab_base::RewardModel;

use crate::command::Command;
use crate::exact_answer::ExactAnswer;
use crate::external::ExternalLimits;
use crate::http::HttpEndpoint;
use crate::json_validity::JsonValidity;
use crate::keyword_count::KeywordCount;
use crate::length::Length;
use crate::likelihood::{Likelihood, LikelihoodScale};
use crate::numeric_answer::NumericAnswer;
use crate::regex_count::RegexCount;
use crate::spec::RewardSpecError;

/// One reward with its argument.
#[derive(Debug, Clone, PartialEq)]
pub enum RewardKind {
    /// `length[:T_max]`, see [`Length`].
    Length {
        /// `T_max` in tokens, at least 1.
        max_tokens: u32,
    },
    /// `regex:<pattern>`, see [`RegexCount`].
    Regex {
        /// The pattern as written.
        pattern: String,
    },
    /// `keywords:a|b`, see [`KeywordCount`].
    Keywords {
        /// The list as written.
        keywords: String,
    },
    /// `json`, see [`JsonValidity`].
    Json,
    /// `answer`, see [`ExactAnswer`].
    Answer,
    /// `numeric[:tolerance]`, see [`NumericAnswer`].
    Numeric {
        /// Tolerance, finite and not negative.
        tolerance: f64,
    },
    /// `likelihood[:per-token]`, see [`Likelihood`].
    Likelihood {
        /// Of the sequence or per token.
        scale: LikelihoodScale,
    },
    /// `cmd:<program args>`, see [`Command`].
    Cmd {
        /// The command line as written.
        command_line: String,
    },
    /// `head:<folder>`: a classifier on a language model's states, which whoever has models builds
    /// ([`RewardSpec::build_with_models`](crate::RewardSpec::build_with_models)).
    Head {
        /// Its folder as written.
        folder: String,
    },
    /// `http://...`, `https://...` or `http:<url>`, see [`HttpEndpoint`].
    Http {
        /// The URL.
        url: String,
    },
}

/// Name, form and meaning of every reward, in the order of help texts.
pub const REWARDS: [(&str, &str, &str); 10] = [
    (
        "length",
        "length[:T_max]",
        "log(tokens / T_max) in nats, T_max 1024 if not given",
    ),
    ("regex", "regex:<pattern>", "number of matches in the response"),
    (
        "keywords",
        "keywords:a|b",
        "number of these words found, whatever their case",
    ),
    ("json", "json", "1 if the response is valid JSON, else 0"),
    (
        "answer",
        "answer",
        "1 if the response equals the record's `answer`, else 0",
    ),
    (
        "numeric",
        "numeric[:tolerance]",
        "1 if the last number equals that of the record's `answer`, else 0",
    ),
    (
        "likelihood",
        "likelihood[:per-token]",
        "log-likelihood under the reference in nats",
    ),
    (
        "head",
        "head:<folder>",
        "a classifier on a model's states, made by `trimtab train reward`",
    ),
    (
        "cmd",
        "cmd:<program args>",
        "reward from an external program, JSON lines in and out",
    ),
    (
        "http",
        "http[s]://<host/path>",
        "reward from an endpoint, http:// or https://, JSON lines in and out",
    ),
];

const PER_TOKEN: &str = "per-token";

impl RewardKind {
    /// The reward called `name` with its argument as written.
    pub fn parse(name: &str, argument: Option<&str>) -> Result<Self, RewardSpecError> {
        let (name, form) = known_form(name)?;
        let bad = |expected: &'static str| RewardSpecError::BadArgument {
            name,
            expected,
            got: argument.unwrap_or_default().to_owned(),
        };
        let required = || {
            argument
                .filter(|text| !text.trim().is_empty())
                .map(str::to_owned)
                .ok_or_else(|| bad(form))
        };
        match (name, argument) {
            ("length", None) => Ok(Self::Length {
                max_tokens: Length::DEFAULT_MAX_TOKENS,
            }),
            ("length", Some(text)) => {
                let max_tokens = text.trim().parse().ok().filter(|&tokens| tokens > 0);
                Ok(Self::Length {
                    max_tokens: max_tokens.ok_or_else(|| bad("T_max in tokens, at least 1"))?,
                })
            }
            ("regex", _) => Ok(Self::Regex { pattern: required()? }),
            ("keywords", _) => Ok(Self::Keywords {
                keywords: required()?,
            }),
            ("json", None) => Ok(Self::Json),
            ("answer", None) => Ok(Self::Answer),
            ("json" | "answer", Some(_)) => Err(bad("no argument")),
            ("numeric", None) => Ok(Self::Numeric {
                tolerance: NumericAnswer::DEFAULT_TOLERANCE,
            }),
            ("numeric", Some(text)) => {
                let tolerance = text
                    .trim()
                    .parse()
                    .ok()
                    .filter(|&tolerance: &f64| tolerance >= 0.0 && tolerance.is_finite());
                Ok(Self::Numeric {
                    tolerance: tolerance.ok_or_else(|| bad("a tolerance, at least 0"))?,
                })
            }
            ("likelihood", None) => Ok(Self::Likelihood {
                scale: LikelihoodScale::Sequence,
            }),
            ("likelihood", Some(PER_TOKEN)) => Ok(Self::Likelihood {
                scale: LikelihoodScale::PerToken,
            }),
            ("likelihood", Some(_)) => Err(bad("`per-token` or no argument")),
            ("head", _) => Ok(Self::Head { folder: required()? }),
            ("cmd", _) => Ok(Self::Cmd {
                command_line: required()?,
            }),
            _ => Ok(Self::Http { url: required()? }),
        }
    }

    /// The name, as in [`REWARDS`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Length { .. } => "length",
            Self::Regex { .. } => "regex",
            Self::Keywords { .. } => "keywords",
            Self::Json => "json",
            Self::Answer => "answer",
            Self::Numeric { .. } => "numeric",
            Self::Likelihood { .. } => "likelihood",
            Self::Head { .. } => "head",
            Self::Cmd { .. } => "cmd",
            Self::Http { .. } => "http",
        }
    }

    /// The argument as one would write it; `None` where the reward's default holds.
    pub fn argument(&self) -> Option<String> {
        match self {
            Self::Length { max_tokens } => {
                (*max_tokens != Length::DEFAULT_MAX_TOKENS).then(|| max_tokens.to_string())
            }
            Self::Numeric { tolerance } => {
                (*tolerance != NumericAnswer::DEFAULT_TOLERANCE).then(|| tolerance.to_string())
            }
            Self::Likelihood { scale } => (*scale == LikelihoodScale::PerToken).then(|| PER_TOKEN.to_owned()),
            Self::Json | Self::Answer => None,
            Self::Regex { pattern: text }
            | Self::Keywords { keywords: text }
            | Self::Head { folder: text }
            | Self::Cmd { command_line: text }
            | Self::Http { url: text } => Some(text.clone()),
        }
    }

    /// The reward itself; `limits` bind the external ones.
    pub fn build(&self, limits: &ExternalLimits) -> Result<Box<dyn RewardModel>, RewardSpecError> {
        let name = self.to_string();
        let bad_pattern = |source: regex::Error| RewardSpecError::BadPattern {
            name: self.name(),
            problem: Box::new(source),
        };
        Ok(match self {
            Self::Length { max_tokens } => Box::new(Length::new(name, *max_tokens)),
            Self::Regex { pattern } => {
                Box::new(RegexCount::new(name, Regex::new(pattern).map_err(bad_pattern)?))
            }
            Self::Keywords { keywords } => {
                Box::new(KeywordCount::try_new(name, &split_keywords(keywords)?).map_err(bad_pattern)?)
            }
            Self::Json => Box::new(JsonValidity::new(name)),
            Self::Answer => Box::new(ExactAnswer::new(name)),
            Self::Numeric { tolerance } => Box::new(NumericAnswer::new(name, *tolerance)),
            Self::Likelihood { scale } => Box::new(Likelihood::new(name, *scale)),
            Self::Head { folder } => {
                return Err(RewardSpecError::NeedsModel {
                    folder: folder.clone(),
                });
            }
            Self::Cmd { command_line } => Box::new(Command::try_new(name, command_line, limits.clone())?),
            Self::Http { url } => Box::new(HttpEndpoint::try_new(name, url, limits.clone())?),
        })
    }
}

/// The known name and its form, or an error that lists all and names the nearest.
fn known_form(name: &str) -> Result<(&'static str, &'static str), RewardSpecError> {
    if let Some(&(known, form, _)) = REWARDS.iter().find(|(known, _, _)| *known == name) {
        return Ok((known, form));
    }
    if name.contains('+') {
        return Err(RewardSpecError::GluedTerms {
            name: name.to_owned(),
        });
    }
    let similarity = |known: &str| strsim::jaro_winkler(&name.to_lowercase(), known);
    let nearest = REWARDS
        .iter()
        .max_by(|a, b| similarity(a.0).total_cmp(&similarity(b.0)));
    Err(RewardSpecError::UnknownName {
        name: name.to_owned(),
        nearest: nearest.map_or("", |(known, _, _)| known),
        known: REWARDS.map(|(_, form, _)| form).join(", "),
    })
}

fn split_keywords(keywords: &str) -> Result<Vec<&str>, RewardSpecError> {
    let words: Vec<&str> = keywords.split('|').map(str::trim).collect();
    if words.iter().any(|word| word.is_empty()) {
        let expected = "words separated by single `|`, none of them empty";
        return Err(RewardSpecError::BadArgument {
            name: "keywords",
            expected,
            got: keywords.to_owned(),
        });
    }
    Ok(words)
}

impl fmt::Display for RewardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.argument()) {
            (Self::Http { url }, _) if url.starts_with("http://") || url.starts_with("https://") => {
                f.write_str(url)
            }
            (_, Some(argument)) => write!(f, "{}:{argument}", self.name()),
            (_, None) => f.write_str(self.name()),
        }
    }
}
