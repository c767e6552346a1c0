//! Any file as a stream of rows: maps of JSON values with their numbers. Knows file forms, not what columns mean.

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use serde_json::{Map, Value};

use crate::DataError;
use crate::error::shown;
use crate::json_array::{JsonElements, is_array};
use crate::parquet_rows::{ParquetBatches, row_of};
use crate::text_rows::{Packing, TextLines, open_text};

/// A part of a file by rows: for splits into training and held-out data that do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowRange {
    /// Rows to pass over; they are not looked into.
    pub skip: u64,
    /// Most rows to read after those; all if `None`.
    pub limit: Option<u64>,
}

impl RowRange {
    /// Every row.
    pub const ALL: Self = Self { skip: 0, limit: None };
}

/// A row of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number, counted from 1; in text files that of the line, in a JSON array that of the element.
    pub number: u64,
    /// Its cells by column; in plain text the line as `prompt`. Nulls are left out.
    pub cells: Map<String, Value>,
}

/// The form of a file by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileForm {
    Parquet,
    JsonLines(Packing),
    PlainText(Packing),
}

impl FileForm {
    /// The form that a name promises.
    pub(crate) fn of(path: &Path) -> Self {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let (name, packing) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
            (Some(stem), _) => (stem, Packing::Gzip),
            (_, Some(stem)) => (stem, Packing::Zstd),
            _ => (name.as_str(), Packing::Plain),
        };
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("parquet") if packing == Packing::Plain => Self::Parquet,
            Some("jsonl" | "json" | "ndjson") => Self::JsonLines(packing),
            _ => Self::PlainText(packing),
        }
    }
}

/// The rows of a file, one at a time; at most one batch of a Parquet file is in memory.
pub struct RowReader {
    source: Source,
    path: PathBuf,
    /// Rows that may still be given.
    left: u64,
    is_over: bool,
}

/// Numbered texts, each a row or empty.
type Texts = Box<dyn Iterator<Item = Result<(u64, String), DataError>> + Send>;

enum Source {
    Lines {
        lines: Texts,
        is_json: bool,
        /// Rows still to pass over.
        skip: u64,
    },
    Batches(Box<Batches>),
}

struct Batches {
    batches: ParquetBatches,
    /// The batch under way, the rows before it, and the next row in it.
    current: Option<(u64, RecordBatch, usize)>,
}

impl RowReader {
    /// Opens `.parquet`, `.jsonl`, `.json` (lines, or one array of objects) or plain text, all but the first also as `.gz` or
    /// `.zst`. Empty lines are no rows.
    ///
    /// # Errors
    /// A file that cannot be read, or a Parquet file that is none.
    pub fn open(path: &Path, range: RowRange) -> Result<Self, DataError> {
        if path.is_dir() {
            return Err(DataError::UnknownForm {
                path: path.to_owned(),
                problem: "is a folder".to_owned(),
            });
        }
        let source = match FileForm::of(path) {
            FileForm::Parquet => Source::Batches(Box::new(Batches {
                batches: ParquetBatches::open(path, range)?,
                current: None,
            })),
            FileForm::JsonLines(packing) => Source::Lines {
                lines: json_texts(path, packing)?,
                is_json: true,
                skip: range.skip,
            },
            FileForm::PlainText(packing) => Source::Lines {
                lines: Box::new(TextLines::of(open_text(path, packing)?, path)),
                is_json: false,
                skip: range.skip,
            },
        };
        Ok(Self::of(source, path, range))
    }

    fn of(source: Source, path: &Path, range: RowRange) -> Self {
        Self {
            source,
            path: path.to_owned(),
            left: range.limit.unwrap_or(u64::MAX),
            is_over: false,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Columns of a Parquet file that have no JSON form, such as images, and are therefore not in [`Row::cells`].
    pub fn left_out(&self) -> &[String] {
        match &self.source {
            Source::Lines { .. } => &[],
            Source::Batches(source) => source.batches.left_out(),
        }
    }

    /// The error for a bad cell.
    pub(crate) fn bad_row(&self, row: u64, column: &str, problem: String) -> DataError {
        DataError::Row {
            path: self.path.clone(),
            row,
            column: column.to_owned(),
            problem,
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>, DataError> {
        match &mut self.source {
            Source::Lines { lines, is_json, skip } => {
                let is_json = *is_json;
                let Some((number, line)) = next_line(lines, skip)? else {
                    return Ok(None);
                };
                let cells = if is_json {
                    parse_object(&line).map_err(|problem| self.bad_row(number, "line", problem))?
                } else {
                    let prompt = Value::from(line.trim());
                    Map::from_iter([("prompt".to_owned(), prompt)])
                };
                Ok(Some(Row { number, cells }))
            }
            Source::Batches(source) => {
                let Some((number, cells)) = next_cells(source)? else {
                    return Ok(None);
                };
                let cells = cells.map_err(|(column, problem)| self.bad_row(number, &column, problem))?;
                Ok(Some(Row { number, cells }))
            }
        }
    }
}

impl Iterator for RowReader {
    type Item = Result<Row, DataError>;

    /// The next row; nothing follows an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let row = self.next_row();
        self.is_over = !matches!(row, Ok(Some(_)));
        row.transpose()
    }
}

/// JSON objects as texts, whether they stand on lines or in one array.
fn json_texts(path: &Path, packing: Packing) -> Result<Texts, DataError> {
    let mut source = open_text(path, packing)?;
    let damaged = |cause: std::io::Error| DataError::Damaged {
        path: path.to_owned(),
        problem: format!("cannot be read after line 0: {cause}"),
    };
    if is_array(source.as_mut()).map_err(damaged)? {
        return Ok(Box::new(JsonElements::of(source, path)?));
    }
    Ok(Box::new(TextLines::of(source, path)))
}

/// The next line that is not empty, after those to skip.
fn next_line(lines: &mut Texts, skip: &mut u64) -> Result<Option<(u64, String)>, DataError> {
    for line in lines {
        let (number, line) = line?;
        if line.trim().is_empty() {
            continue;
        }
        if *skip == 0 {
            return Ok(Some((number, line)));
        }
        *skip -= 1;
    }
    Ok(None)
}

type Cells = Result<Map<String, Value>, (String, String)>;

/// The next row of the batches with its number.
fn next_cells(source: &mut Batches) -> Result<Option<(u64, Cells)>, DataError> {
    let Batches { batches, current } = source;
    loop {
        if let Some((before, batch, next)) = current
            && *next < batch.num_rows()
        {
            let (number, cells) = (*before + *next as u64 + 1, row_of(batch, *next));
            *next += 1;
            return Ok(Some((number, cells)));
        }
        match batches.next().transpose()? {
            Some((before, batch)) => *current = Some((before, batch, 0)),
            None => return Ok(None),
        }
    }
}

fn parse_object(line: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(mut cells)) => {
            cells.retain(|_, cell| !cell.is_null());
            Ok(cells)
        }
        Ok(other) => Err(format!("expected a JSON object, got {}", shown(&other))),
        Err(error) => Err(format!("expected a JSON object: {error}")),
    }
}
