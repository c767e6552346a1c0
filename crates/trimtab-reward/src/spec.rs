//! What to score with, as text: `length`, `helpful*0.8 + length*-0.3`. Knows the grammar, not the rewards.
//!
//! ```text
//! spec     = term (" + " term)*            white space around the plus sign is required
//! term     = name [":" argument] ["*" weight]
//! argument = rest of the term, or "quoted" with "" for a quote inside
//! weight   = finite decimal number; the suffix of an unquoted term after its last "*" if that is a number
//! ```
//!
//! Quotes are for arguments that hold ` + ` or end in `*` and a number: `regex:"a*2"`.

use std::fmt;
use std::str::FromStr;

use serde_with::{DeserializeFromStr, SerializeDisplay};
use thiserror::Error;
use trimtab_base::RewardModel;

use crate::external::ExternalLimits;
use crate::kind::RewardKind;
use crate::weighted::{WeightedSum, WeightedTerm};

/// One reward with its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardTerm {
    /// The reward.
    pub kind: RewardKind,
    /// Its factor; finite, any sign; 1 if not written.
    pub weight: f64,
}

/// A weighted list of rewards; parses from and prints to the grammar above, losslessly.
#[derive(Debug, Clone, PartialEq, SerializeDisplay, DeserializeFromStr)]
pub struct RewardSpec {
    terms: Vec<RewardTerm>,
}

/// Why a reward specification cannot be used.
#[derive(Debug, Error)]
pub enum RewardSpecError {
    /// A term is empty.
    #[error("expected a reward, got nothing in {spec:?}; terms are joined by ` + `")]
    EmptyTerm {
        /// The whole specification.
        spec: String,
    },
    /// There is no reward of that name.
    #[error("expected the name of a reward, got {name:?}; did you mean `{nearest}`? rewards: {known}")]
    UnknownName {
        /// The name as written.
        name: String,
        /// The most similar name there is.
        nearest: &'static str,
        /// All forms, comma separated.
        known: String,
    },
    /// Terms without white space between them.
    #[error("expected the name of a reward, got {name:?}; terms are joined by ` + ` with spaces")]
    GluedTerms {
        /// The name as written.
        name: String,
    },
    /// What follows a `*` is not a usable weight.
    #[error(
        "expected a finite weight after `*` in {term:?}, got {weight:?}; terms are joined by ` + ` with spaces"
    )]
    BadWeight {
        /// The term.
        term: String,
        /// The text after `*`.
        weight: String,
    },
    /// The argument does not fit the reward.
    #[error("reward {name}: expected {expected}, got {got:?}")]
    BadArgument {
        /// The reward's name.
        name: &'static str,
        /// What it takes.
        expected: &'static str,
        /// The argument as written, empty if none.
        got: String,
    },
    /// A reward on a model's states where there are no models.
    #[error("reward head:{folder} reads a language model's states, which this use of rewards has none of")]
    NeedsModel {
        /// Its folder.
        folder: String,
    },
    /// The argument is not a regular expression.
    #[error("reward {name}: {problem}")]
    BadPattern {
        /// The reward's name.
        name: &'static str,
        /// The regex engine's account. Part of the message and therefore no source, which would be printed again.
        problem: Box<regex::Error>,
    },
    /// A quoted argument does not end, or something other than a weight follows it.
    #[error(
        "expected a closing quote and then at most `*weight` in {term:?}; a quote inside is written \"\""
    )]
    BadQuote {
        /// The rest of the specification from the term's start.
        term: String,
    },
}

/// Opens a reward on a model's states: from its folder and the name that it is to have.
pub type OpenHead<'a, E> = dyn FnMut(&str, String) -> Result<Box<dyn RewardModel>, E> + 'a;

/// Makes one reward.
type BuildKind<'a, E> = dyn FnMut(&RewardKind) -> Result<Box<dyn RewardModel>, E> + 'a;

impl RewardSpec {
    /// The specification of these terms; `None` for no terms or a weight that is not finite.
    pub fn new(terms: Vec<RewardTerm>) -> Option<Self> {
        let is_valid = !terms.is_empty() && terms.iter().all(|term| term.weight.is_finite());
        is_valid.then_some(Self { terms })
    }

    /// The terms in order; at least one.
    pub fn terms(&self) -> &[RewardTerm] {
        &self.terms
    }

    /// The rewards, with default limits for external scorers.
    ///
    /// # Errors
    /// Arguments that only the reward itself can judge: a pattern, a command line, a URL.
    pub fn build(&self) -> Result<Box<dyn RewardModel>, RewardSpecError> {
        self.build_with(&ExternalLimits::default())
    }

    /// The rewards, with these limits for external scorers.
    ///
    /// # Errors
    /// Those of [`Self::build`].
    pub fn build_with(&self, limits: &ExternalLimits) -> Result<Box<dyn RewardModel>, RewardSpecError> {
        self.build_kinds(&mut |kind| kind.build(limits))
    }

    /// The rewards, those on a model's states built by `open_head(folder, name)`: this crate sees no model.
    ///
    /// # Errors
    /// Those of [`Self::build`] and of `open_head`.
    pub fn build_with_models<E: From<RewardSpecError>>(
        &self,
        limits: &ExternalLimits,
        open_head: &mut OpenHead<'_, E>,
    ) -> Result<Box<dyn RewardModel>, E> {
        self.build_kinds(&mut |kind| match kind {
            RewardKind::Head { folder } => open_head(folder, kind.to_string()),
            kind => Ok(kind.build(limits)?),
        })
    }

    /// Folders of the rewards on a model's states.
    pub fn head_folders(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().filter_map(|term| match &term.kind {
            RewardKind::Head { folder } => Some(folder.as_str()),
            _ => None,
        })
    }

    /// The rewards as a sum that can report its terms one by one.
    pub fn build_weighted(&self, limits: &ExternalLimits) -> Result<WeightedSum, RewardSpecError> {
        self.sum_of_kinds(&mut |kind| kind.build(limits))
    }

    fn build_kinds<E>(&self, build: &mut BuildKind<'_, E>) -> Result<Box<dyn RewardModel>, E> {
        match self.terms.as_slice() {
            // A single reward keeps its own name and unit, and gets no wrapper that could turn -inf into NaN.
            [RewardTerm { kind, weight: 1.0 }] => build(kind),
            _ => Ok(Box::new(self.sum_of_kinds(build)?)),
        }
    }

    fn sum_of_kinds<E>(&self, build: &mut BuildKind<'_, E>) -> Result<WeightedSum, E> {
        let build = |term: &RewardTerm| {
            Ok(WeightedTerm {
                weight: term.weight,
                reward: build(&term.kind)?,
            })
        };
        let terms = self.terms.iter().map(build).collect::<Result<_, E>>()?;
        Ok(WeightedSum::new(self.to_string(), terms))
    }
}

impl FromStr for RewardSpec {
    type Err = RewardSpecError;

    fn from_str(spec: &str) -> Result<Self, Self::Err> {
        let mut terms = Vec::new();
        let mut rest = Some(spec);
        while let Some(text) = rest {
            let (term, next) = next_term(text.trim(), spec)?;
            terms.push(term);
            rest = next;
        }
        Ok(Self { terms })
    }
}

/// Parses the first term of `text`; the second value is what follows the ` + ` after it.
fn next_term<'a>(text: &'a str, spec: &str) -> Result<(RewardTerm, Option<&'a str>), RewardSpecError> {
    if let Some((name, after_quote)) = text.split_once(":\"").filter(|(name, _)| is_name(name)) {
        let bad_quote = || RewardSpecError::BadQuote {
            term: text.to_owned(),
        };
        let (argument, after) = unquote(after_quote).ok_or_else(bad_quote)?;
        let (suffix, next) = split_plus(after);
        let weight = match suffix.trim().strip_prefix('*') {
            Some(weight) => parse_weight(text, weight)?,
            None if suffix.trim().is_empty() => 1.0,
            None => return Err(bad_quote()),
        };
        return Ok((
            RewardTerm {
                kind: RewardKind::parse(name, Some(&argument))?,
                weight,
            },
            next,
        ));
    }
    let (term, next) = split_plus(text);
    let term = term.trim();
    if term.is_empty() {
        return Err(RewardSpecError::EmptyTerm {
            spec: spec.to_owned(),
        });
    }
    Ok((plain_term(term)?, next))
}

/// Splits at the first plus sign that stands between white space or at an end.
fn split_plus(text: &str) -> (&str, Option<&str>) {
    let stands_alone = |at: usize| {
        text[..at].chars().next_back().is_none_or(char::is_whitespace)
            && text[at + 1..].chars().next().is_none_or(char::is_whitespace)
    };
    match text.match_indices('+').find(|&(at, _)| stands_alone(at)) {
        Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn plain_term(term: &str) -> Result<RewardTerm, RewardSpecError> {
    let (body, weight) = match term.rsplit_once('*') {
        // With an argument, a `*` that no number follows belongs to the argument: `regex:a*b`.
        Some((body, weight)) if weight.trim().parse::<f64>().is_ok() || !body.contains(':') => {
            (body.trim_end(), parse_weight(term, weight)?)
        }
        _ => (term, 1.0),
    };
    let (name, argument) = match body.split_once(':') {
        // A bare URL is its own argument.
        Some(("http" | "https", rest)) if rest.starts_with("//") => ("http", Some(body)),
        Some((name, argument)) => (name, Some(argument)),
        None => (body, None),
    };
    Ok(RewardTerm {
        kind: RewardKind::parse(name, argument)?,
        weight,
    })
}

fn parse_weight(term: &str, weight: &str) -> Result<f64, RewardSpecError> {
    let parsed = weight
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|weight| weight.is_finite());
    parsed.ok_or_else(|| RewardSpecError::BadWeight {
        term: term.to_owned(),
        weight: weight.trim().to_owned(),
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// The quoted text at the start of `text` (its opening quote already gone) and what follows the closing quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut argument = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        argument.push_str(before);
        let Some(after_pair) = after.strip_prefix('"') else {
            return Some((argument, after));
        };
        argument.push('"');
        rest = after_pair;
    }
}

impl fmt::Display for RewardTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.kind.to_string();
        // The parser itself judges whether quotes are needed, so the two cannot disagree.
        let reads_back = |spec: &RewardSpec| matches!(spec.terms(), [term] if *term == Self { weight: 1.0, ..self.clone() });
        match self.kind.argument() {
            Some(argument) if !plain.parse().is_ok_and(|spec| reads_back(&spec)) => {
                write!(f, "{}:\"{}\"", self.kind.name(), argument.replace('"', "\"\""))?;
            }
            _ => f.write_str(&plain)?,
        }
        if self.weight == 1.0 {
            Ok(())
        } else {
            write!(f, "*{}", self.weight)
        }
    }
}

impl fmt::Display for RewardSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (term_idx, term) in self.terms.iter().enumerate() {
            let separator = if term_idx == 0 { "" } else { " + " };
            write!(f, "{separator}{term}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
