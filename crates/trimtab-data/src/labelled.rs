//! Single responses with labels: what a classifier learns from. Knows the columns that it is told.

use std::path::Path;

use serde_json::{Map, Value};

use crate::DataError;
use crate::error::shown;
use crate::message::{Message, prompt_of, turns};
use crate::prompt::{missing, take_prompt};
use crate::rows::{Row, RowRange, RowReader};

/// Where a row keeps what is judged and the judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelColumns {
    /// Column of the response, or of a text that answers nothing.
    pub text: String,
    /// Column of the label: a number in `[0, 1]`, or true and false.
    pub label: String,
}

/// A response and the probability that it is of the positive class.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledResponse {
    /// The prompt as rewards see it; a dialogue as a transcript. `None` if the row has none.
    pub prompt: Option<String>,
    /// The turns of a dialogue; empty if the prompt is one turn of the user.
    pub messages: Vec<Message>,
    /// The response.
    pub response: String,
    /// In `[0, 1]`.
    pub label: f64,
    /// Other columns.
    pub record: Map<String, Value>,
    /// Its row, counted from 1.
    pub row: u64,
}

impl LabelledResponse {
    /// The turns of the prompt, at least one.
    pub fn turns(&self) -> Vec<Message> {
        turns(self.prompt.as_deref().unwrap_or_default(), &self.messages)
    }
}

/// The labelled responses of a file, one at a time. Prompts stand in `prompt` or `messages`, if there are any.
pub struct LabelledReader {
    rows: RowReader,
    columns: LabelColumns,
    is_over: bool,
}

impl LabelledReader {
    /// Opens `.jsonl`, `.json` or `.parquet`; see [`RowReader::open`].
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(path: &Path, columns: LabelColumns, range: RowRange) -> Result<Self, DataError> {
        Ok(Self {
            rows: RowReader::open(path, range)?,
            columns,
            is_over: false,
        })
    }
}

impl Iterator for LabelledReader {
    type Item = Result<LabelledResponse, DataError>;

    /// The next one. A row that cannot be used is an error after which more rows may follow; nothing follows a file that
    /// cannot be read on.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let row = self.rows.next()?;
        self.is_over = row.is_err();
        Some(row.and_then(|Row { number, cells }| {
            labelled(cells, &self.columns, number)
                .map_err(|(column, problem)| self.rows.bad_row(number, &column, problem))
        }))
    }
}

fn labelled(
    mut cells: Map<String, Value>,
    columns: &LabelColumns,
    row: u64,
) -> Result<LabelledResponse, (String, String)> {
    let mut take = |column: &String| {
        let cell = cells.remove(column);
        cell.ok_or_else(|| (column.clone(), missing(&cells)))
    };
    let (text, label) = (take(&columns.text)?, take(&columns.label)?);
    let Value::String(response) = text else {
        return Err((
            columns.text.clone(),
            format!("expected a text, got {}", shown(&text)),
        ));
    };
    let number = match &label {
        Value::Bool(is_positive) => Some(f64::from(u8::from(*is_positive))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let Some(label) = number.filter(|label| (0.0..=1.0).contains(label)) else {
        let problem = format!(
            "expected a number in [0, 1], true or false, got {}",
            shown(&label)
        );
        return Err((columns.label.clone(), problem));
    };
    let asked = take_prompt(&mut cells).map_err(|(column, problem)| (column.to_owned(), problem))?;
    let (prompt, messages) = match asked {
        Some((_, messages)) => {
            let (prompt, messages) = prompt_of(messages);
            (Some(prompt), messages)
        }
        None => (None, Vec::new()),
    };
    Ok(LabelledResponse {
        prompt,
        messages,
        response,
        label,
        record: cells,
        row,
    })
}
