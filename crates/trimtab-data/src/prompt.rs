//! What to answer: prompts out of any file, dialogues included. Knows the usual columns, no responses.

use std::path::Path;

use serde_json::{Map, Value};

use crate::DataError;
use crate::error::shown;
use crate::message::{Message, is_transcript, parse_messages, parse_transcript, prompt_of, turns};
use crate::rows::{Row, RowRange, RowReader};

/// How much of a dialogue is the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PromptForm {
    /// The first turn of the user, with a system message before it.
    #[default]
    FirstTurn,
    /// All turns before the last answer.
    Dialogue,
}

/// A prompt with the other columns of its row.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRecord {
    /// The prompt as rewards see it; a dialogue as a transcript.
    pub prompt: String,
    /// The turns of a dialogue; empty if the prompt is one turn of the user.
    pub messages: Vec<Message>,
    /// Other columns, e.g. `answer` for rewards that read it.
    pub record: Map<String, Value>,
    /// Its row, counted from 1.
    pub row: u64,
}

impl PromptRecord {
    /// The turns of the prompt, at least one.
    pub fn turns(&self) -> Vec<Message> {
        turns(&self.prompt, &self.messages)
    }
}

/// The prompts of a file, one at a time.
///
/// A row is read as the first of these that it has: `prompt` (text, or messages), `messages` (the hubs' chat form),
/// `chosen` or `rejected` (a transcript as in HH-RLHF, or messages).
pub struct PromptReader {
    rows: RowReader,
    form: PromptForm,
    is_over: bool,
}

impl PromptReader {
    /// Opens `.jsonl`, `.parquet` or plain text with one prompt a line; see [`RowReader::open`].
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(path: &Path, form: PromptForm, range: RowRange) -> Result<Self, DataError> {
        Ok(Self {
            rows: RowReader::open(path, range)?,
            form,
            is_over: false,
        })
    }

    /// Columns that are not read, see [`RowReader::left_out`].
    pub fn left_out(&self) -> &[String] {
        self.rows.left_out()
    }
}

impl Iterator for PromptReader {
    type Item = Result<PromptRecord, DataError>;

    /// The next prompt; nothing follows an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let record = self.rows.next()?.and_then(|Row { number, cells }| {
            prompt_record(cells, self.form, number)
                .map_err(|(column, problem)| self.rows.bad_row(number, column, problem))
        });
        self.is_over = record.is_err();
        Some(record)
    }
}

/// What is wrong with a row: the column and the problem.
pub(crate) type CellProblem = (&'static str, String);

/// Columns of which a prompt needs one.
const PROMPT_COLUMNS: &str = "prompt, messages or chosen";

fn prompt_record(
    mut cells: Map<String, Value>,
    form: PromptForm,
    row: u64,
) -> Result<PromptRecord, CellProblem> {
    let (column, messages) = take_dialogue(&mut cells)?;
    // What the prompt was taken from is no column beside it.
    for name in ["messages", "chosen", "rejected"] {
        if column != "prompt" {
            cells.remove(name);
        }
    }
    let messages = match form {
        PromptForm::FirstTurn => first_turn(messages),
        PromptForm::Dialogue => before_last_answer(messages),
    };
    if !messages.iter().any(|message| message.role == "user") {
        return Err((column, "expected a turn of the user, got none".to_owned()));
    }
    let (prompt, messages) = prompt_of(messages);
    if prompt.trim().is_empty() {
        return Err((column, "expected a prompt, got an empty text".to_owned()));
    }
    Ok(PromptRecord {
        prompt,
        messages,
        record: cells,
        row,
    })
}

/// The turns of a row and the column they were in.
fn take_dialogue(cells: &mut Map<String, Value>) -> Result<(&'static str, Vec<Message>), CellProblem> {
    if let Some(turns) = take_prompt(cells)? {
        return Ok(turns);
    }
    for column in ["chosen", "rejected"] {
        match cells.get(column) {
            None => {}
            Some(Value::String(text)) if is_transcript(text) => return Ok((column, parse_transcript(text))),
            Some(value @ Value::Array(_)) => {
                return Ok((
                    column,
                    parse_messages(value).map_err(|problem| (column, problem))?,
                ));
            }
            Some(other) => {
                let got = shown(other);
                let problem = format!("expected a transcript (\"\\n\\nHuman: ...\") or messages, got {got}");
                return Err((column, problem));
            }
        }
    }
    Err((PROMPT_COLUMNS, missing(cells)))
}

/// The turns in `prompt` or `messages`, which is taken out; `None` if a row has neither.
pub(crate) fn take_prompt(
    cells: &mut Map<String, Value>,
) -> Result<Option<(&'static str, Vec<Message>)>, CellProblem> {
    for column in ["prompt", "messages"] {
        match cells.remove(column) {
            None => {}
            Some(Value::String(text)) if column == "prompt" => {
                return Ok(Some((column, vec![Message::new("user", text)])));
            }
            Some(value @ Value::Array(_)) => {
                let turns = parse_messages(&value).map_err(|problem| (column, problem))?;
                return Ok(Some((column, turns)));
            }
            Some(other) => {
                let expected = if column == "prompt" {
                    "a text or messages"
                } else {
                    "messages"
                };
                return Err((column, format!("expected {expected}, got {}", shown(&other))));
            }
        }
    }
    Ok(None)
}

/// The problem of a row that lacks a column.
pub(crate) fn missing(cells: &Map<String, Value>) -> String {
    let names: Vec<&str> = cells.keys().map(String::as_str).collect();
    format!("the column is missing; the row has {names:?}")
}

fn first_turn(messages: Vec<Message>) -> Vec<Message> {
    let end = messages.iter().position(|message| message.role == "user");
    let end = end.map_or(0, |idx| idx + 1);
    messages
        .into_iter()
        .take(end)
        .filter(|message| message.role != "assistant")
        .collect()
}

fn before_last_answer(mut messages: Vec<Message>) -> Vec<Message> {
    if messages.last().is_some_and(|message| message.role == "assistant") {
        messages.pop();
    }
    messages
}
