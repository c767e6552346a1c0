//! Methods as users write them: a text, a table that names scorers, a sweep. Knows names of scorers, not what they are.
//!
//! ```toml
//! methods = [
//!     "sample",
//!     { decode = "cd-token:weight=4", scorers = ["runs/length*0.8", "runs/harmless"] },
//!     { decode = "cd-block:k={k},m=16", k = [2, 4, 6], scorers = ["runs/length"], series = "CD-Q blockwise" },
//! ]
//! ```
//!
//! A sweep is one method for each combination of its variables' values, the last variable (by name) changing fastest.
//! `{seed}` in a scorer's path stands for the seed of the run, so that each seed can have a scorer of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use trimtab_decode::DecodeSpec;
use trimtab_eval::ShownAs;

use crate::steering::ScorerTerm;

/// Most methods of one sweep: enough for any figure.
const MAX_SWEEP: usize = 1000;

/// Stands for the seed of the run.
pub(crate) const SEED: &str = "{seed}";

/// One entry of `methods`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum MethodEntry {
    /// A method without scorers.
    Text(DecodeSpec),
    /// Everything else.
    Table(MethodTable),
}

/// A method with scorers, or a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MethodTable {
    /// The method, with `{name}` for the value of a variable.
    pub(crate) decode: String,
    /// The scorers that steer it, `DIR` or `DIR*WEIGHT`, with variables as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) scorers: Vec<String>,
    /// A value that must not fall, `NAME>=VALUE`, `NAME` being the last part of a scorer's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<String>,
    /// Figures draw a line through all methods of one series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) series: Option<String>,
    /// What tables and figures call it, with variables as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    /// The values of each variable of a sweep.
    #[serde(flatten)]
    pub(crate) variables: BTreeMap<String, Vec<SweepValue>>,
}

/// A value of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum SweepValue {
    /// As in `k = [2, 4]`.
    Whole(i64),
    /// As in `w = [0.5, 1.0]`.
    Real(f64),
    /// As in `m = ["whole"]`.
    Text(String),
}

impl fmt::Display for SweepValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => value.fmt(f),
            Self::Real(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl<'de> Deserialize<'de> for MethodEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, because of an untagged enum serde says only that no variant fits.
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = MethodEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a method such as \"bon:4\", or a table { decode = \"...\", scorers = [\"...\"] }",
                )
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MethodEntry, E> {
                text.parse().map(MethodEntry::Text).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MethodEntry, A::Error> {
                MethodTable::deserialize(MapAccessDeserializer::new(map)).map(MethodEntry::Table)
            }
        }
        deserializer.deserialize_any(EntryVisitor)
    }
}

/// A method to run: one combination of a sweep's values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Method {
    /// What it is, for journals and reports: the decoding method, and its scorers by the last parts of their paths.
    pub(crate) name: String,
    pub(crate) decode: DecodeSpec,
    /// [`SEED`] still stands for itself.
    pub(crate) scorers: Vec<ScorerTerm>,
    pub(crate) floor: Option<String>,
    pub(crate) shown_as: ShownAs,
}

impl Method {
    /// Whether each seed brings a scorer of its own.
    pub(crate) fn varies_by_seed(&self) -> bool {
        self.scorers.iter().any(|term| term.place.contains(SEED))
    }

    /// The scorers of one seed.
    pub(crate) fn scorers_of(&self, seed: u64) -> Vec<ScorerTerm> {
        let of_seed = |term: &ScorerTerm| ScorerTerm {
            place: term.place.replace(SEED, &seed.to_string()),
            weight: term.weight,
        };
        self.scorers.iter().map(of_seed).collect()
    }
}

/// All methods that entries stand for.
///
/// # Errors
/// The entry at fault and what is wrong with it; two methods that are one.
pub(crate) fn expand(entries: &[MethodEntry]) -> Result<Vec<Method>> {
    let mut methods: Vec<Method> = Vec::new();
    for (idx, entry) in entries.iter().enumerate() {
        let expanded = match entry {
            MethodEntry::Text(decode) => expand_text(decode),
            MethodEntry::Table(table) => expand_table(table),
        };
        for method in expanded.with_context(|| format!("entry {} of methods", idx + 1))? {
            if methods.iter().any(|known| known.name == method.name) {
                bail!("methods names {} twice; remove one", method.name);
            }
            methods.push(method);
        }
    }
    Ok(methods)
}

fn expand_text(decode: &DecodeSpec) -> Result<Vec<Method>> {
    check_scorers(decode, 0)?;
    Ok(vec![Method {
        name: decode.to_string(),
        decode: decode.clone(),
        scorers: Vec::new(),
        floor: None,
        shown_as: ShownAs::default(),
    }])
}

fn expand_table(table: &MethodTable) -> Result<Vec<Method>> {
    let texts = std::iter::once(&table.decode)
        .chain(&table.scorers)
        .chain(&table.floor);
    let all_texts: Vec<&String> = texts.collect();
    for (name, values) in &table.variables {
        let placeholder = format!("{{{name}}}");
        if placeholder == SEED {
            bail!("{SEED} stands for the seed of the run, so that no variable can be called seed");
        }
        if !all_texts.iter().any(|text| text.contains(&placeholder)) {
            bail!(
                "no text has {placeholder}; expected decode, scorers, floor, series, label, or a variable that decode, \
                 scorers or floor use"
            );
        }
        if values.is_empty() {
            bail!("variable {name} has no values");
        }
    }
    let num_methods = table
        .variables
        .values()
        .try_fold(1_usize, |product, values| product.checked_mul(values.len()));
    if num_methods.is_none_or(|num_methods| num_methods > MAX_SWEEP) {
        bail!("the sweep has more than {MAX_SWEEP} methods; expected fewer values");
    }
    combinations(&table.variables)
        .into_iter()
        .map(|variables| method(table, variables))
        .collect()
}

/// Every combination of values, the last variable changing fastest.
fn combinations(variables: &BTreeMap<String, Vec<SweepValue>>) -> Vec<BTreeMap<String, String>> {
    variables
        .iter()
        .fold(vec![BTreeMap::new()], |begun, (name, values)| {
            let extend = |one: &BTreeMap<String, String>, value: &SweepValue| {
                let mut one = one.clone();
                one.insert(name.clone(), value.to_string());
                one
            };
            begun
                .iter()
                .flat_map(|one| values.iter().map(move |value| extend(one, value)))
                .collect()
        })
}

fn method(table: &MethodTable, variables: BTreeMap<String, String>) -> Result<Method> {
    let filled = |text: &String| filled(text, &variables);
    let decode: DecodeSpec = filled(&table.decode).parse()?;
    let scorers = table
        .scorers
        .iter()
        .map(|text| filled(text).parse())
        .collect::<Result<Vec<ScorerTerm>>>()?;
    check_scorers(&decode, scorers.len())?;
    let floor = table.floor.as_ref().map(filled);
    let (series, label) = (
        table.series.as_ref().map(filled),
        table.label.as_ref().map(filled),
    );
    Ok(Method {
        name: name(&decode, &scorers, floor.as_deref()),
        decode,
        scorers,
        floor,
        shown_as: ShownAs {
            series,
            label,
            variables,
        },
    })
}

/// The text with the values of the variables in place of their names.
pub(super) fn filled(text: &str, variables: &BTreeMap<String, String>) -> String {
    let fill = |text: String, (name, value): (&String, &String)| text.replace(&format!("{{{name}}}"), value);
    variables.iter().fold(text.to_owned(), fill)
}

fn check_scorers(decode: &DecodeSpec, num_scorers: usize) -> Result<()> {
    match (decode.needs_scorers(), num_scorers) {
        (true, 0) => bail!(
            "{decode} needs prefix scorers; write {{ decode = \"{decode}\", scorers = [\"DIR\"] }}, DIR being what \
             `trimtab train scorer` left"
        ),
        (false, 1..) => bail!("{decode} uses no prefix scorers; remove scorers"),
        _ => Ok(()),
    }
}

/// `cd-block:k=6,m=16 @ length*0.8 + harmless`.
fn name(decode: &DecodeSpec, scorers: &[ScorerTerm], floor: Option<&str>) -> String {
    let last_part = |term: &ScorerTerm| {
        let path = Path::new(&term.place);
        let place = path
            .file_name()
            .map_or_else(|| term.place.clone(), |name| name.to_string_lossy().into_owned());
        ScorerTerm { place, ..*term }.to_string()
    };
    let terms: Vec<String> = scorers.iter().map(last_part).collect();
    let mut name = decode.to_string();
    if !terms.is_empty() {
        name = format!("{name} @ {}", terms.join(" + "));
    }
    if let Some(floor) = floor {
        name = format!("{name}, {floor}");
    }
    name
}

#[cfg(test)]
mod tests;
