//! Prompts from files, standard input or the built-in set. Knows records, no tokens.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// The built-in set, one prompt a line.
const QUICKSTART: &str = include_str!("../data/quickstart_prompts.txt");

/// Name of the built-in set in configurations.
pub(crate) const BUILTIN: &str = "builtin:quickstart";

/// A prompt with the other fields of its record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PromptRecord {
    /// What the user says.
    pub(crate) prompt: String,
    /// Other fields, e.g. `answer` for verifiers.
    pub(crate) record: Map<String, Value>,
}

/// Reads prompts: `builtin:quickstart`, `-` for standard input, `.jsonl` with a `prompt` field, else one per line.
pub(crate) fn read_prompts(source: &str) -> Result<Vec<PromptRecord>> {
    let (text, is_jsonl) = match source {
        BUILTIN => (QUICKSTART.to_owned(), false),
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read prompts from standard input")?;
            let is_jsonl = text.trim_start().starts_with('{');
            (text, is_jsonl)
        }
        path => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read prompts from {path}"))?;
            let extension = Path::new(path)
                .extension()
                .and_then(|extension| extension.to_str());
            (text, matches!(extension, Some("jsonl" | "json")))
        }
    };
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let records: Vec<PromptRecord> = if is_jsonl {
        lines
            .map(|(number, line)| parse_record(source, number + 1, line))
            .collect::<Result<_>>()?
    } else {
        lines
            .map(|(_, line)| PromptRecord {
                prompt: line.trim().to_owned(),
                record: Map::new(),
            })
            .collect()
    };
    if records.is_empty() {
        bail!("{source} holds no prompts");
    }
    Ok(records)
}

fn parse_record(source: &str, number: usize, line: &str) -> Result<PromptRecord> {
    let mut record: Map<String, Value> =
        serde_json::from_str(line).with_context(|| format!("{source} line {number} is not a JSON object"))?;
    match record.remove("prompt") {
        Some(Value::String(prompt)) if !prompt.trim().is_empty() => Ok(PromptRecord { prompt, record }),
        Some(Value::String(_)) => bail!("{source} line {number}: field \"prompt\" is empty"),
        Some(other) => bail!("{source} line {number}: field \"prompt\" is {other}, expected a string"),
        None => bail!("{source} line {number}: no field \"prompt\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<PromptRecord>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_prompts(path.to_str().unwrap())
    }

    #[test]
    fn built_in_prompts_are_distinct() {
        let prompts = read_prompts(BUILTIN).unwrap();
        let distinct: std::collections::HashSet<&str> = prompts.iter().map(|p| p.prompt.as_str()).collect();
        assert!(prompts.len() >= 16);
        assert_eq!(distinct.len(), prompts.len());
    }

    #[test]
    fn jsonl_keeps_other_fields_and_lines_are_trimmed() {
        let records = read("p.jsonl", "{\"prompt\": \"2+2?\", \"answer\": \"4\"}\n\n").unwrap();
        assert_eq!(records[0].prompt, "2+2?");
        assert_eq!(records[0].record["answer"], "4");
        assert_eq!(read("p.txt", " one \n\ntwo\n").unwrap()[0].prompt, "one");
    }

    #[test]
    fn bad_records_are_named_by_line() {
        let check = |text: &str, expect: &str| {
            let message = format!("{:#}", read("p.jsonl", text).expect_err("must be refused"));
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        check("{\"prompt\": \"a\"}\nnot json\n", "line 2 is not a JSON object");
        check("{\"text\": \"a\"}\n", "line 1: no field \"prompt\"");
        check("{\"prompt\": 3}\n", "is 3, expected a string");
        check("{\"prompt\": \" \"}\n", "is empty");
        check("\n", "holds no prompts");
    }
}
