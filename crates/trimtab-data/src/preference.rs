//! Pairs of responses of which one is preferred. Knows the usual columns and HH-RLHF.

use std::path::Path;

use serde_json::{Map, Value};

use crate::DataError;
use crate::error::shown;
use crate::message::{Message, is_transcript, parse_messages, prompt_of, split_common, turns};
use crate::prompt::{CellProblem, missing, take_prompt};
use crate::rows::{Row, RowRange, RowReader};

/// Two responses to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PreferencePair {
    /// The prompt as rewards see it; a dialogue as a transcript. Empty if the row has none: two texts, one preferred.
    pub prompt: String,
    /// The turns of a dialogue; empty if the prompt is one turn of the user.
    pub messages: Vec<Message>,
    /// The preferred response.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
    /// Other columns.
    pub record: Map<String, Value>,
    /// Its row, counted from 1.
    pub row: u64,
}

impl PreferencePair {
    /// The turns of the prompt, at least one.
    pub fn turns(&self) -> Vec<Message> {
        turns(&self.prompt, &self.messages)
    }
}

/// The pairs of a file, one at a time.
///
/// `chosen` and `rejected` are texts with `prompt` or `messages` beside them, transcripts as in HH-RLHF, or messages in
/// the hubs' chat form. Of the latter two the prompt is what both share: all before the last answer that both begin.
pub struct PreferenceReader {
    rows: RowReader,
    is_over: bool,
}

impl PreferenceReader {
    /// Opens `.jsonl`, `.json` or `.parquet`; see [`RowReader::open`].
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(path: &Path, range: RowRange) -> Result<Self, DataError> {
        Ok(Self {
            rows: RowReader::open(path, range)?,
            is_over: false,
        })
    }
}

impl Iterator for PreferenceReader {
    type Item = Result<PreferencePair, DataError>;

    /// The next pair. A row that cannot be used is an error after which more rows may follow, so that whoever leaves rows out
    /// can count them; nothing follows a file that cannot be read on.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let row = self.rows.next()?;
        self.is_over = row.is_err();
        Some(row.and_then(|Row { number, cells }| {
            pair_of(cells, number).map_err(|(column, problem)| self.rows.bad_row(number, column, problem))
        }))
    }
}

fn pair_of(mut cells: Map<String, Value>, row: u64) -> Result<PreferencePair, CellProblem> {
    let asked = take_prompt(&mut cells)?.map(|(_, turns)| turns);
    let mut side = |column: &'static str| {
        let cell = cells.remove(column);
        cell.ok_or_else(|| (column, missing(&cells)))
    };
    let (chosen, rejected) = (side("chosen")?, side("rejected")?);
    let (messages, [chosen, rejected]) = match (&chosen, &rejected) {
        (Value::String(chosen), Value::String(rejected)) => pair_of_texts(asked, chosen, rejected)?,
        (Value::Array(_), Value::Array(_)) => pair_of_messages(asked, &chosen, &rejected)?,
        (Value::String(_) | Value::Array(_), other) => return Err(("rejected", unlike(other))),
        (other, _) => return Err(("chosen", unlike(other))),
    };
    let (prompt, messages) = prompt_of(messages);
    Ok(PreferencePair {
        prompt,
        messages,
        chosen,
        rejected,
        record: cells,
        row,
    })
}

fn unlike(value: &Value) -> String {
    let got = shown(value);
    format!("expected two texts or two lists of messages in chosen and rejected, got {got}")
}

type Pair = (Vec<Message>, [String; 2]);

fn pair_of_texts(asked: Option<Vec<Message>>, chosen: &str, rejected: &str) -> Result<Pair, CellProblem> {
    if asked.is_none() && is_transcript(chosen) {
        return split_common(chosen, rejected).ok_or_else(|| {
            let problem = "expected transcripts that begin alike, up to an assistant's turn".to_owned();
            ("rejected", problem)
        });
    }
    let asked = asked.unwrap_or_else(|| vec![Message::new("user", "")]);
    Ok((asked, [chosen.to_owned(), rejected.to_owned()]))
}

fn pair_of_messages(
    asked: Option<Vec<Message>>,
    chosen: &Value,
    rejected: &Value,
) -> Result<Pair, CellProblem> {
    let chosen = parse_messages(chosen).map_err(|problem| ("chosen", problem))?;
    let rejected = parse_messages(rejected).map_err(|problem| ("rejected", problem))?;
    let same = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    // Equal dialogues still end in an answer.
    let shared = same.min(chosen.len() - 1).min(rejected.len() - 1);
    let answer = |messages: &[Message], column: &'static str| match &messages[shared..] {
        [only] if only.role == "assistant" => Ok(only.content.clone()),
        more => {
            let got = more.len();
            Err((
                column,
                format!("expected one answer behind what both share, got {got} messages"),
            ))
        }
    };
    let answers = [answer(&chosen, "chosen")?, answer(&rejected, "rejected")?];
    let turns = if shared == 0 {
        // The answers alone; the prompt stands in its own column.
        asked.unwrap_or_else(|| vec![Message::new("user", "")])
    } else {
        chosen[..shared].to_vec()
    };
    Ok((turns, answers))
}
