//! What makes two runs one: the fields that results depend on, prompts and weights by content. Knows no files.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::config::FrontierConfig;
use crate::journal::RunHeader;
use crate::prompts::PromptRecord;

/// Form of the journal; another one is not read.
const JOURNAL_FORM: u32 = 2;

/// Characters of a value shown in an error.
const MAX_SHOWN_CHARS: usize = 60;

/// Fields of a configuration by name.
pub(super) type Fields = BTreeMap<String, Value>;

/// Identity of a run: a journal of another run is not mixed in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Header {
    /// Form of the journal.
    journal: u32,
    /// Version of this program.
    version: String,
    /// [`FrontierConfig::result_fields`].
    config: Fields,
    /// SHA-256 of the weights, in hexadecimal.
    model_sha256: String,
    /// SHA-256 of the weights of each scorer, in hexadecimal, in the order of first use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scorers: Vec<String>,
    /// SHA-256 of each prompt's whole record, in hexadecimal.
    prompts: Vec<String>,
}

impl Header {
    /// The header of a run on these prompts and weights.
    pub(super) fn new(
        config: &FrontierConfig,
        prompts: &[PromptRecord],
        model_sha256: String,
        scorers: Vec<String>,
    ) -> Result<Self> {
        Ok(Self {
            journal: JOURNAL_FORM,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: config.result_fields()?,
            model_sha256,
            scorers,
            prompts: prompts.iter().map(record_sha256).collect::<Result<_>>()?,
        })
    }
}

impl RunHeader for Header {
    fn differences(&self, stored: &Value) -> Vec<String> {
        let text = |key: &str| stored[key].as_str().unwrap_or("unknown").to_owned();
        let mut differences = Vec::new();
        if text("version") != self.version {
            differences.push(differing("version", &text("version"), &self.version));
        }
        if stored["journal"] != self.journal {
            // The rest has another form as well, so that comparing it would say nothing.
            let theirs = stored["journal"].to_string();
            differences.push(differing(
                "form of the journal",
                &theirs,
                &self.journal.to_string(),
            ));
            return differences;
        }
        if text("model_sha256") != self.model_sha256 {
            let (theirs, ours) = (start(&text("model_sha256")), start(&self.model_sha256));
            differences.push(differing("weights", &theirs, &ours));
        }
        differences.extend(scorer_difference(&stored["scorers"], &self.scorers));
        differences.extend(field_differences(&fields_of(&stored["config"]), &self.config));
        differences.extend(prompt_difference(&stored["prompts"], &self.prompts));
        differences
    }
}

/// The configuration in a stored header.
pub(super) fn fields_of(config: &Value) -> Fields {
    let fields = config.as_object().into_iter().flatten();
    fields.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Fields that are not the same, each with both values.
pub(super) fn field_differences(theirs: &Fields, ours: &Fields) -> Vec<String> {
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    names
        .into_iter()
        .filter(|&name| theirs.get(name) != ours.get(name))
        .map(|name| differing(name, &shown(theirs.get(name)), &shown(ours.get(name))))
        .collect()
}

/// The first scorer whose weights are others.
fn scorer_difference(theirs: &Value, ours: &[String]) -> Option<String> {
    let theirs: Vec<&str> = theirs
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let longer = theirs.len().max(ours.len());
    let pair = |idx: usize| (theirs.get(idx).copied(), ours.get(idx).map(String::as_str));
    let (place, (theirs, ours)) = (0..longer)
        .map(|idx| (idx, pair(idx)))
        .find(|(_, (theirs, ours))| theirs != ours)?;
    let shown = |sha256: Option<&str>| sha256.map_or_else(|| "none".to_owned(), start);
    Some(differing(
        &format!("weights of scorer {}", place + 1),
        &shown(theirs),
        &shown(ours),
    ))
}

/// Enough of a hash to tell it from others.
fn start(sha256: &str) -> String {
    sha256.chars().take(12).collect()
}

fn prompt_difference(theirs: &Value, ours: &[String]) -> Option<String> {
    let theirs = theirs.as_array().map_or(&[][..], Vec::as_slice);
    if theirs.len() != ours.len() {
        let (theirs, ours) = (theirs.len().to_string(), ours.len().to_string());
        return Some(differing("number of prompts", &theirs, &ours));
    }
    let first = theirs
        .iter()
        .zip(ours)
        .position(|(theirs, ours)| theirs != ours)?;
    Some(format!(
        "prompts: the first that has changed, by its text or another field of its record, is prompt {}",
        first + 1
    ))
}

fn differing(what: &str, theirs: &str, ours: &str) -> String {
    format!("{what}: {theirs} there, {ours} here")
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "not set".to_owned();
    };
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn record_sha256(record: &PromptRecord) -> Result<String> {
    let json = serde_json::to_vec(&(&record.prompt, &record.record)).context("cannot serialise a prompt")?;
    Ok(sha256_hex(&json))
}

/// SHA-256 of some bytes, in hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header(more: &str, records: &[(&str, Value)], weights: &str) -> Header {
        let text = format!("reward = \"length\"\nmethods = [\"sample\"]\n{more}");
        let prompts: Vec<PromptRecord> = records
            .iter()
            .map(|(prompt, record)| PromptRecord {
                prompt: (*prompt).to_owned(),
                record: record.as_object().unwrap().clone(),
                line: 1,
            })
            .collect();
        Header::new(
            &FrontierConfig::parse(&text).unwrap(),
            &prompts,
            weights.to_owned(),
            Vec::new(),
        )
        .unwrap()
    }

    #[test]
    fn differences_name_the_part_and_paths_and_limits_are_none() {
        let records = [("a", json!({"answer": 1})), ("b", json!({}))];
        let stored = serde_json::to_value(header("seed = 4", &records, "w1")).unwrap();
        let check = |other: Header, expect: &[&str]| assert_eq!(other.differences(&stored), expect);
        check(header("seed = 4", &records, "w1"), &[]);
        check(
            header(
                "seed = 4\nmodel = \"./x.gguf\"\nprompts = \"y\"\nnum_prompts = 2\nreward_batch = 8\n\
                 reward_timeout_s = 9\nreward_retries = 1",
                &records,
                "w1",
            ),
            &[],
        );
        check(
            header("stop = [\"x\"]", &records, "w2"),
            &[
                "weights: w1 there, w2 here",
                "seed: 4 there, 0 here",
                "stop: not set there, [\"x\"] here",
            ],
        );
        let changed = [records[0].clone(), ("b", json!({"answer": 2}))];
        let expect =
            "prompts: the first that has changed, by its text or another field of its record, is prompt 2";
        check(header("seed = 4", &changed, "w1"), &[expect]);
        check(
            header("seed = 4", &records[..1], "w1"),
            &["number of prompts: 2 there, 1 here"],
        );
    }

    #[test]
    fn changed_scorers_are_another_run() {
        let of_scorers = |scorers: &[&str]| Header {
            scorers: scorers.iter().map(|&sha256| sha256.to_owned()).collect(),
            ..header("", &[], "w")
        };
        let stored = serde_json::to_value(of_scorers(&["s1", "s2"])).unwrap();
        let check =
            |ours: &[&str], expect: &[&str]| assert_eq!(of_scorers(ours).differences(&stored), expect);
        check(&["s1", "s2"], &[]);
        check(&["s1", "s3"], &["weights of scorer 2: s2 there, s3 here"]);
        check(&["s1"], &["weights of scorer 2: s2 there, none here"]);
        check(&[], &["weights of scorer 1: s1 there, none here"]);
    }

    #[test]
    fn other_versions_and_forms_are_told_apart() {
        let ours = header("", &[], "w");
        let mut stored = serde_json::to_value(&ours).unwrap();
        stored["version"] = json!("0.0.0-other");
        let expect = format!("version: 0.0.0-other there, {} here", env!("CARGO_PKG_VERSION"));
        assert_eq!(ours.differences(&stored), std::slice::from_ref(&expect));
        stored["journal"] = json!(1);
        assert_eq!(
            ours.differences(&stored),
            [expect, "form of the journal: 1 there, 2 here".to_owned()]
        );
    }
}
