//! Prompts from files, standard input or the built-in set. Knows records, no tokens.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trimtab_data::{PromptForm, PromptReader, RowRange};

/// The built-in set, one prompt a line.
const QUICKSTART: &str = include_str!("../data/quickstart_prompts.txt");

/// Prompts of the same kinds, none of which is in the other set, one a line.
const TRAINING: &str = include_str!("../data/training_prompts.txt");

/// Name of the built-in set in configurations.
pub(crate) const BUILTIN: &str = "builtin:quickstart";

/// Name of the built-in set that scorers can be trained on, to be tried on [`BUILTIN`].
pub(crate) const BUILTIN_TRAINING: &str = "builtin:training";

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

/// What becomes of records with one prompt and different other fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Duplicates {
    /// An error: nobody can know which is meant.
    Refuse,
    /// The first counts.
    First,
}

/// Prompts, each once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompts {
    /// In the order of their first lines; at least one.
    pub(crate) records: Vec<PromptRecord>,
    /// Lines that said again what an earlier one had said.
    pub(crate) num_duplicates: usize,
    /// What became of lines that said something else of the same prompt.
    pub(crate) duplicates: Duplicates,
}

/// The text without the byte order mark that some editors put before it.
pub(crate) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads prompts: `builtin:quickstart`, `builtin:training`, `-` for standard input, `.jsonl` with a `prompt` field, data sets of other forms
/// (packed, Parquet, chat messages, transcripts of HH-RLHF, of which the first turn counts), else one per line.
///
/// Without `duplicates` they are refused, but for dialogues: there the first turn alone is read, and what follows it
/// differs as it should.
///
/// # Errors
/// What cannot be read, the line that is no prompt, two lines with one prompt and different other fields.
pub(crate) fn read_prompts(source: &str, duplicates: Option<Duplicates>) -> Result<Prompts> {
    let or = |default: Duplicates| duplicates.unwrap_or(default);
    match source {
        BUILTIN => distinct(source, text_lines(QUICKSTART), or(Duplicates::Refuse)),
        BUILTIN_TRAINING => distinct(source, text_lines(TRAINING), or(Duplicates::Refuse)),
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read prompts from standard input")?;
            let records = if without_bom(&text).trim_start().starts_with('{') {
                json_lines(source, &text)?
            } else {
                text_lines(&text)
            };
            distinct(source, records, or(Duplicates::Refuse))
        }
        path => read_file(path, duplicates),
    }
}

fn read_file(path: &str, duplicates: Option<Duplicates>) -> Result<Prompts> {
    let extension = Path::new(path)
        .extension()
        .and_then(|extension| extension.to_str());
    let is_packed = matches!(extension, Some("gz" | "zst" | "parquet" | "ndjson"));
    if is_packed {
        return distinct(path, data_set(path)?, duplicates.unwrap_or(Duplicates::First));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read prompts from {path}"))?;
    let refuse = duplicates.unwrap_or(Duplicates::Refuse);
    match extension {
        Some("jsonl" | "json") if holds_dialogues(&text) => {
            distinct(path, data_set(path)?, duplicates.unwrap_or(Duplicates::First))
        }
        Some("jsonl" | "json") => distinct(path, json_lines(path, &text)?, refuse),
        _ => distinct(path, text_lines(&text), refuse),
    }
}

/// Whether the first record is a dialogue in place of a prompt. A file without either is read as prompts, whose errors
/// say what a prompt looks like.
fn holds_dialogues(text: &str) -> bool {
    let first = without_bom(text).lines().find(|line| !line.trim().is_empty());
    let record = first.and_then(|line| serde_json::from_str::<Map<String, Value>>(line).ok());
    record.is_some_and(|record| {
        let has = |field: &str| record.contains_key(field);
        record.get("prompt").is_some_and(Value::is_array)
            || (!has("prompt") && (has("messages") || has("chosen") || has("rejected")))
    })
}

/// The first turns of a data set.
fn data_set(path: &str) -> Result<Vec<PromptRecord>> {
    let reader = PromptReader::open(Path::new(path), PromptForm::FirstTurn, RowRange::ALL)?;
    let record = |read: Result<trimtab_data::PromptRecord, trimtab_data::DataError>| {
        let read = read?;
        if !read.messages.is_empty() {
            bail!(
                "{path} row {} has a system message; expected turns of user and assistant alone (one message for all \
                 prompts is `system` of the configuration)",
                read.row
            );
        }
        Ok(PromptRecord {
            // The same question with another line end would be another prompt to no model.
            prompt: read.prompt.trim().to_owned(),
            record: read.record,
            line: usize::try_from(read.row).unwrap_or(usize::MAX),
        })
    };
    reader.map(record).collect()
}

fn text_lines(text: &str) -> Vec<PromptRecord> {
    let of_line = |(line, text): (usize, &str)| PromptRecord {
        prompt: text.trim().to_owned(),
        record: Map::new(),
        line,
    };
    lines(text).map(of_line).collect()
}

fn json_lines(source: &str, text: &str) -> Result<Vec<PromptRecord>> {
    lines(text)
        .map(|(line, text)| parse_record(source, line, text))
        .collect()
}

/// Lines that are not empty, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = without_bom(text)
        .lines()
        .enumerate()
        .map(|(idx, line)| (idx + 1, line));
    numbered.filter(|(_, line)| !line.trim().is_empty())
}

/// Keeps the first of records with one prompt.
fn distinct(source: &str, records: Vec<PromptRecord>, duplicates: Duplicates) -> Result<Prompts> {
    if records.is_empty() {
        bail!("{source} holds no prompts");
    }
    let num_read = records.len();
    let mut places: HashMap<String, usize> = HashMap::with_capacity(num_read);
    let mut kept: Vec<PromptRecord> = Vec::with_capacity(num_read);
    for record in records {
        match places.get(&record.prompt).map(|&place| &kept[place]) {
            Some(first) if duplicates == Duplicates::Refuse && first.record != record.record => bail!(
                "{source} lines {} and {} have the same prompt and different other fields; remove one, or set \
                 duplicates = \"first\"",
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
        duplicates,
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
        Ok(read_prompts(path.to_str().unwrap(), None)?.records)
    }

    #[test]
    fn built_in_prompts_are_distinct() {
        let read = read_prompts(BUILTIN, None).unwrap();
        let prompts = read.records;
        assert_eq!(read.num_duplicates, 0);
        let distinct: std::collections::HashSet<&str> = prompts.iter().map(|p| p.prompt.as_str()).collect();
        assert!(prompts.len() >= 16);
        assert_eq!(distinct.len(), prompts.len());
        let training = read_prompts(BUILTIN_TRAINING, None).unwrap();
        assert_eq!(training.num_duplicates, 0);
        for prompt in &training.records {
            assert!(
                !distinct.contains(prompt.prompt.as_str()),
                "{} is in both sets",
                prompt.prompt
            );
        }
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
    fn of_transcripts_the_first_turns_count_each_once() {
        let line = |first: &str, answer: &str| {
            let chosen =
                format!("\n\nHuman: {first}\n\nAssistant: {answer}\n\nHuman: go on\n\nAssistant: no");
            serde_json::json!({"chosen": chosen, "rejected": chosen}).to_string()
        };
        let text = [line("one", "a"), line("two", "b"), line("one ", "c")].join("\n");
        let prompts: Vec<String> = read("hh.jsonl", &text)
            .unwrap()
            .into_iter()
            .map(|r| r.prompt)
            .collect();
        assert_eq!(prompts, ["one", "two"]);
    }

    #[test]
    fn of_unequal_records_the_first_is_kept_if_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jsonl");
        std::fs::write(
            &path,
            "{\"prompt\": \"a\", \"answer\": 1}\n{\"prompt\": \"a\", \"answer\": 2}\n",
        )
        .unwrap();
        let read = read_prompts(path.to_str().unwrap(), Some(Duplicates::First)).unwrap();
        assert_eq!((read.records.len(), read.num_duplicates), (1, 1));
        assert_eq!(read.records[0].record["answer"], 1);
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
