//! The `option=value` entries behind a method's name. Knows no method.

use std::fmt::Display;
use std::str::FromStr;

use crate::DecodeError;

/// Entries of one method, each of a known option and given once.
pub(crate) struct Options<'a> {
    method: &'static str,
    entries: Vec<(&'static str, &'a str)>,
}

impl<'a> Options<'a> {
    /// Reads `text`; a bare value belongs to the `main` option. `temperature` is another name of `t`.
    pub(crate) fn parse(
        method: &'static str,
        main: Option<&'static str>,
        known: &[&'static str],
        text: &'a str,
    ) -> Result<Self, DecodeError> {
        let mut entries: Vec<(&'static str, &'a str)> = Vec::new();
        let written = if text.is_empty() {
            None
        } else {
            Some(text.split(','))
        };
        for entry in written.into_iter().flatten().map(str::trim) {
            let (name, value) = match (entry.split_once('='), main) {
                (Some((name, value)), _) => (if name == "temperature" { "t" } else { name }, value),
                (None, Some(main)) => (main, entry),
                (None, None) => (entry, ""),
            };
            let Some(&option) = known.iter().find(|&&option| option == name) else {
                return Err(unknown_option(method, name, known));
            };
            if entries.iter().any(|&(earlier, _)| earlier == option) {
                return Err(DecodeError::RepeatedOption {
                    method: method.to_owned(),
                    option: option.to_owned(),
                });
            }
            entries.push((option, value));
        }
        Ok(Self { method, entries })
    }

    /// The value as written.
    pub(crate) fn text(&self, option: &str) -> Option<&'a str> {
        self.entries
            .iter()
            .find(|(name, _)| *name == option)
            .map(|&(_, value)| value)
    }

    /// The value as a number; `expected` says which numbers.
    pub(crate) fn number<T: FromStr>(&self, option: &str, expected: &str) -> Result<Option<T>, DecodeError> {
        let parse = |value: &str| value.parse().map_err(|_| self.invalid(option, expected, &value));
        self.text(option).map(parse).transpose()
    }

    /// The value of an option that must be there.
    pub(crate) fn required<T: FromStr>(&self, option: &str, expected: &str) -> Result<T, DecodeError> {
        self.number(option, expected)?
            .ok_or_else(|| self.invalid(option, expected, &"nothing"))
    }

    /// The error for a value out of range.
    pub(crate) fn invalid(&self, option: &str, expected: &str, got: &dyn Display) -> DecodeError {
        DecodeError::invalid(&format!("{} {option}", self.method), expected, got)
    }
}

fn unknown_option(method: &str, got: &str, known: &[&'static str]) -> DecodeError {
    if known.is_empty() {
        return DecodeError::invalid(method, "no options", &got);
    }
    DecodeError::UnknownOption {
        method: method.to_owned(),
        got: got.to_owned(),
        known: known.join(", "),
        hint: nearest_hint(got, known),
    }
}

/// `; did you mean x?` for the nearest name, or nothing if none is near.
pub(crate) fn nearest_hint(got: &str, known: &[&str]) -> String {
    let similarity = |name: &str| strsim::normalized_damerau_levenshtein(&got.to_lowercase(), name);
    let nearest = known
        .iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    // Where more than half of the letters differ a suggestion is noise.
    nearest
        .filter(|name| similarity(name) >= 0.5)
        .map_or(String::new(), |name| format!("; did you mean {name}?"))
}
