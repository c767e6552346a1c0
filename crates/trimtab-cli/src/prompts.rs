//! Prompts from files, standard input or the built-in set. Knows records, no tokens.

use std::collections::HashMap;
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
    /// Where it was read, counted from 1.
    pub(crate) line: usize,
}

/// Prompts, each once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompts {
    /// In the order of their first lines; at least one.
    pub(crate) records: Vec<PromptRecord>,
    /// Lines that said again what an earlier one had said.
    pub(crate) num_duplicates: usize,
}

/// The text without the byte order mark that some editors put before it.
pub(crate) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads prompts: `builtin:quickstart`, `-` for standard input, `.jsonl` with a `prompt` field, else one per line.
///
/// # Errors
/// What cannot be read, the line that is no prompt, two lines with one prompt and different other fields.
pub(crate) fn read_prompts(source: &str) -> Result<Prompts> {
    let (text, is_jsonl) = match source {
        BUILTIN => (QUICKSTART.to_owned(), false),
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read prompts from standard input")?;
            let is_jsonl = without_bom(&text).trim_start().starts_with('{');
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
    let lines = without_bom(&text)
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let records: Vec<PromptRecord> = if is_jsonl {
        lines
            .map(|(idx, line)| parse_record(source, idx + 1, line))
            .collect::<Result<_>>()?
    } else {
        lines
            .map(|(idx, line)| PromptRecord {
                prompt: line.trim().to_owned(),
                record: Map::new(),
                line: idx + 1,
            })
            .collect()
    };
    if records.is_empty() {
        bail!("{source} holds no prompts");
    }
    distinct(source, records)
}

/// Keeps the first of equal records.
fn distinct(source: &str, records: Vec<PromptRecord>) -> Result<Prompts> {
    let num_read = records.len();
    let mut places: HashMap<String, usize> = HashMap::with_capacity(num_read);
    let mut kept: Vec<PromptRecord> = Vec::with_capacity(num_read);
    for record in records {
        match places.get(&record.prompt).map(|&place| &kept[place]) {
            Some(first) if first.record != record.record => bail!(
                "{source} lines {} and {} have the same prompt and different other fields; remove one",
                first.line,
                record.line
            ),
            Some(_) => {}
            None => {
                places.insert(record.prompt.clone(), kept.len());
                kept.push(record);
            }
        }
    }
    Ok(Prompts {
        num_duplicates: num_read - kept.len(),
        records: kept,
    })
}

fn parse_record(source: &str, number: usize, text: &str) -> Result<PromptRecord> {
    let mut record: Map<String, Value> =
        serde_json::from_str(text).with_context(|| format!("{source} line {number} is not a JSON object"))?;
    match record.remove("prompt") {
        Some(Value::String(prompt)) if !prompt.trim().is_empty() => Ok(PromptRecord {
            prompt,
            record,
            line: number,
        }),
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
        Ok(read_prompts(path.to_str().unwrap())?.records)
    }

    #[test]
    fn built_in_prompts_are_distinct() {
        let read = read_prompts(BUILTIN).unwrap();
        let prompts = read.records;
        assert_eq!(read.num_duplicates, 0);
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
    fn byte_order_marks_and_line_ends_of_windows_are_no_content() {
        assert_eq!(
            read("p.txt", "\u{feff}one\r\ntwo\r\n").unwrap(),
            read("p.txt", "one\ntwo\n").unwrap()
        );
        let jsonl = "{\"prompt\": \"a\", \"answer\": \"1\"}\n{\"prompt\": \"b\"}\n";
        let marked = format!("\u{feff}{}", jsonl.replace('\n', "\r\n"));
        assert_eq!(read("p.jsonl", &marked).unwrap(), read("p.jsonl", jsonl).unwrap());
    }

    #[test]
    fn of_equal_records_the_first_is_kept_and_unequal_ones_are_refused() {
        let records = read("p.txt", "one\n\ntwo\n one \nthree\n").unwrap();
        let lines: Vec<(&str, usize)> = records.iter().map(|r| (r.prompt.as_str(), r.line)).collect();
        assert_eq!(lines, [("one", 1), ("two", 3), ("three", 5)]);
        let line = |answer: u32| format!("{{\"prompt\": \"a\", \"answer\": {answer}}}\n");
        assert_eq!(read("p.jsonl", &line(1).repeat(3)).unwrap().len(), 1);
        let refused = read("p.jsonl", &format!("{}\n{}", line(1), line(2))).unwrap_err();
        assert!(refused.to_string().contains("lines 1 and 3"), "{refused}");
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
