//! Rollouts out of a rollout folder, a shard, or any data set with prompts and responses. Knows columns, no model.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::DataError;
use crate::error::shown;
use crate::manifest::Manifest;
use crate::message::{Message, is_transcript, parse_messages, prompt_of, split_last_answer, turns};
use crate::prompt::{CellProblem, missing, take_prompt};
use crate::rollout::{REWARD_PREFIX, Rollout};
use crate::rows::{FileForm, Row, RowRange, RowReader};
use crate::shards::{ShardFile, Shards};

/// Columns of which a response needs one.
const RESPONSE_COLUMNS: &str = "response, completion, chosen or messages";

/// Most rows of one prompt in a data set that does not number its prompts; more become another prompt, so that the
/// rows of one stay few enough to hold.
const MAX_ROWS_OF_PROMPT: u64 = 1024;

/// Rollouts, one at a time.
///
/// A folder that [`RolloutWriter`](crate::RolloutWriter) wrote is read shard after shard, each checked against its hash
/// first. Rows of other files need `prompt` or `messages` and one of `response`, `completion` and `chosen`, unless
/// `messages` ends with the answer; a transcript as in HH-RLHF in `chosen` is both. The columns of
/// [`SCHEMA`](crate::SCHEMA) are understood where they are there, a column `reward` is the reward of that name, and all
/// others become the record.
pub struct RolloutReader {
    source: Source,
    manifest: Option<Manifest>,
    is_over: bool,
}

enum Source {
    Folder(Shards),
    Shard(ShardFile),
    Rows { rows: RowReader, numbering: Numbering },
}

impl RolloutReader {
    /// Opens a rollout folder, `.parquet`, `.jsonl`, `.jsonl.gz` or `.jsonl.zst`.
    ///
    /// # Errors
    /// What cannot be read, a folder that holds no finished run, a file of another form.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::open_range(path, RowRange::ALL)
    }

    /// The rows `range` of what [`Self::open`] opens.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_range(path: &Path, range: RowRange) -> Result<Self, DataError> {
        if path.is_dir() {
            let manifest = finished(path)?;
            return Ok(Self {
                source: Source::Folder(Shards::new(path, &manifest, range)),
                manifest: Some(manifest),
                is_over: false,
            });
        }
        let source = match FileForm::of(path) {
            FileForm::PlainText(_) => {
                return Err(DataError::UnknownForm {
                    path: path.to_owned(),
                    problem: "is no form of rollouts".to_owned(),
                });
            }
            FileForm::Parquet => match ShardFile::open(path, range)? {
                Some(shard) => Source::Shard(shard),
                None => Source::of_rows(path, range)?,
            },
            FileForm::JsonLines(_) => Source::of_rows(path, range)?,
        };
        Ok(Self {
            source,
            manifest: None,
            is_over: false,
        })
    }

    /// The manifest of a rollout folder; `None` for other data.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }
}

impl Source {
    fn of_rows(path: &Path, range: RowRange) -> Result<Self, DataError> {
        Ok(Self::Rows {
            rows: RowReader::open(path, range)?,
            numbering: Numbering::default(),
        })
    }
}

impl Iterator for RolloutReader {
    type Item = Result<Rollout, DataError>;

    /// The next rollout; nothing follows an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let rollout = match &mut self.source {
            Source::Folder(shards) => shards.next(),
            Source::Shard(shard) => shard.next(),
            Source::Rows { rows, numbering } => rows.next().map(|row| {
                let Row { number, cells } = row?;
                let rollout = rollout_of(cells, numbering);
                rollout.map_err(|(column, problem)| rows.bad_row(number, &column, problem))
            }),
        };
        self.is_over = !matches!(rollout, Some(Ok(_)));
        rollout
    }
}

/// The manifest of a folder whose run is over.
pub(crate) fn finished(folder: &Path) -> Result<Manifest, DataError> {
    let path = PathBuf::from(folder);
    match Manifest::open(folder)? {
        Some(manifest) if manifest.complete => Ok(manifest),
        Some(manifest) => Err(DataError::Unfinished {
            path,
            num_rows: manifest.num_rows(),
        }),
        None => Err(DataError::UnknownForm {
            path,
            problem: "is a folder without a manifest.json".to_owned(),
        }),
    }
}

/// Numbers rows of data sets that do not: consecutive rows with one prompt are samples of it.
#[derive(Debug, Default)]
struct Numbering {
    last: Option<(String, Vec<Message>)>,
    prompt_idx: u64,
    sample_idx: u64,
}

impl Numbering {
    fn number(&mut self, prompt: &str, messages: &[Message]) -> (u64, u64) {
        match &self.last {
            Some((last, turns))
                if last == prompt && turns == messages && self.sample_idx + 1 < MAX_ROWS_OF_PROMPT =>
            {
                self.sample_idx += 1;
            }
            last => {
                self.prompt_idx += u64::from(last.is_some());
                self.sample_idx = 0;
                self.last = Some((prompt.to_owned(), messages.to_vec()));
            }
        }
        (self.prompt_idx, self.sample_idx)
    }
}

type Problem = (String, String);

fn named((column, problem): CellProblem) -> Problem {
    (column.to_owned(), problem)
}

fn rollout_of(mut cells: Map<String, Value>, numbering: &mut Numbering) -> Result<Rollout, Problem> {
    let ((prompt, messages), response) = take_turns(&mut cells).map_err(named)?;
    let given = (
        take_index(&mut cells, "prompt_idx")?,
        take_index(&mut cells, "sample_idx")?,
    );
    let (prompt_idx, sample_idx) = match given {
        (Some(prompt_idx), sample_idx) => (prompt_idx, sample_idx.unwrap_or(0)),
        (None, _) => numbering.number(&prompt, &messages),
    };
    Ok(Rollout {
        prompt_idx,
        sample_idx,
        prompt,
        messages,
        response,
        prompt_token_ids: take_ids(&mut cells, "prompt_token_ids")?,
        response_token_ids: take_ids(&mut cells, "response_token_ids")?,
        finish: take_text(&mut cells, "finish")?.unwrap_or_default(),
        log_prob: take_number(&mut cells, "log_prob")?,
        reference_log_prob: take_number(&mut cells, "reference_log_prob")?,
        rewards: take_rewards(&mut cells)?,
        record: take_record(cells)?,
    })
}

/// The text of a prompt and its turns where it is a dialogue, as in [`Rollout`].
type Asked = (String, Vec<Message>);

/// What was asked, and the response.
fn take_turns(cells: &mut Map<String, Value>) -> Result<(Asked, String), CellProblem> {
    let asked = match take_both(cells)? {
        Some(asked) => Some((asked, None)),
        None => take_prompt(cells)?.map(|(column, turns)| split_answer(column, turns)),
    };
    match (asked, take_response(cells)?) {
        (Some((asked, None)), Some(response)) => Ok((asked, response)),
        // The turns hold an answer, and it is not what the row is about.
        (Some((asked, Some(answer))), Some(response)) => {
            let mut turns = turns(&asked.0, &asked.1);
            turns.push(Message::new("assistant", answer));
            Ok((prompt_of(turns), response))
        }
        (Some((asked, Some(answer))), None) => Ok((asked, answer)),
        (Some((_, None)), None) => Err((RESPONSE_COLUMNS, missing(cells))),
        // A whole dialogue in one column.
        (None, Some(text)) if is_transcript(&text) => {
            let (turns, answer) = split_last_answer(&text)
                .ok_or_else(|| ("chosen", "expected a transcript with an answer".to_owned()))?;
            Ok((prompt_of(turns), answer))
        }
        (None, _) => Err(("prompt or messages", missing(cells))),
    }
}

/// A dialogue cut before its answer, if it is of a column that may hold one.
fn split_answer(column: &str, mut turns: Vec<Message>) -> (Asked, Option<String>) {
    let answer = turns.pop_if(|last| last.role == "assistant" && column == "messages");
    (prompt_of(turns), answer.map(|last| last.content))
}

/// What was asked in a row that has both `prompt` and `messages`: in our own form the text beside the turns. Other sets
/// repeat the prompt beside a dialogue with its answer; there the dialogue counts.
fn take_both(cells: &mut Map<String, Value>) -> Result<Option<Asked>, CellProblem> {
    let (Some(Value::String(prompt)), Some(messages @ Value::Array(list))) =
        (cells.get("prompt"), cells.get("messages"))
    else {
        return Ok(None);
    };
    let turns = if list.is_empty() {
        Vec::new()
    } else {
        parse_messages(messages).map_err(|problem| ("messages", problem))?
    };
    if turns.last().is_some_and(|turn| turn.role == "assistant") {
        cells.remove("prompt");
        return Ok(None);
    }
    let prompt = prompt.clone();
    cells.remove("prompt");
    cells.remove("messages");
    Ok(Some((prompt, turns)))
}

fn take_response(cells: &mut Map<String, Value>) -> Result<Option<String>, CellProblem> {
    for column in ["response", "completion", "chosen"] {
        match cells.remove(column) {
            None => {}
            Some(Value::String(text)) => return Ok(Some(text)),
            Some(value @ Value::Array(_)) => {
                let turns = parse_messages(&value).map_err(|problem| (column, problem))?;
                return match <[Message; 1]>::try_from(turns) {
                    Ok([only]) => Ok(Some(only.content)),
                    Err(turns) => Err((column, format!("expected one message, got {}", turns.len()))),
                };
            }
            Some(other) => return Err((column, format!("expected a text, got {}", shown(&other)))),
        }
    }
    Ok(None)
}

fn expected<T>(column: &str, what: &str, got: &Value) -> Result<T, Problem> {
    Err((column.to_owned(), format!("expected {what}, got {}", shown(got))))
}

fn take_index(cells: &mut Map<String, Value>, column: &str) -> Result<Option<u64>, Problem> {
    match cells.remove(column) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(index) => Ok(Some(index)),
            None => expected(column, "a whole number that is at least 0", &value),
        },
    }
}

fn take_number(cells: &mut Map<String, Value>, column: &str) -> Result<Option<f64>, Problem> {
    match cells.remove(column) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => number(column, &value).map(Some),
    }
}

fn number(column: &str, value: &Value) -> Result<f64, Problem> {
    match value.as_f64().filter(|number| number.is_finite()) {
        Some(number) => Ok(number),
        None => expected(column, "a finite number", value),
    }
}

fn take_text(cells: &mut Map<String, Value>, column: &str) -> Result<Option<String>, Problem> {
    match cells.remove(column) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(value) => expected(column, "a text", &value),
    }
}

fn take_ids(cells: &mut Map<String, Value>, column: &str) -> Result<Vec<u32>, Problem> {
    let Some(value) = cells.remove(column) else {
        return Ok(Vec::new());
    };
    match serde_json::from_value(value.clone()) {
        Ok(ids) => Ok(ids),
        Err(_) => expected(column, "a list of token ids", &value),
    }
}

fn take_rewards(cells: &mut Map<String, Value>) -> Result<std::collections::BTreeMap<String, f64>, Problem> {
    let mut rewards = std::collections::BTreeMap::new();
    match cells.remove("rewards") {
        None => {}
        Some(Value::Object(given)) => {
            for (name, value) in given {
                let reward = number(&format!("{REWARD_PREFIX}{name}"), &value)?;
                rewards.insert(name, reward);
            }
        }
        Some(value) => return expected("rewards", "numbers by name", &value),
    }
    let is_reward = |column: &str| column == "reward" || column.starts_with(REWARD_PREFIX);
    let columns: Vec<String> = cells.keys().filter(|column| is_reward(column)).cloned().collect();
    for column in columns {
        let value = cells.remove(&column).unwrap_or_default();
        let reward = number(&column, &value)?;
        let name = column.strip_prefix(REWARD_PREFIX).unwrap_or(&column);
        rewards.insert(name.to_owned(), reward);
    }
    Ok(rewards)
}

/// The other columns, with those of a `record` that is written as such.
fn take_record(mut cells: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    match cells.remove("record") {
        None => Ok(cells),
        Some(Value::Object(record)) => {
            cells.extend(record);
            Ok(cells)
        }
        Some(value) => expected("record", "an object", &value),
    }
}
