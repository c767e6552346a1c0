//! Parquet files as batches, and the cells of any batch as JSON values. Knows no meaning of a column.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Number, Value};

use crate::DataError;
use crate::rows::RowRange;
use crate::schema::VERSION_KEY;

/// Most rows of a batch.
const BATCH_ROWS: usize = 1024;

/// A Parquet file, batch after batch.
pub(crate) struct ParquetBatches {
    reader: ParquetRecordBatchReader,
    path: PathBuf,
    /// Rows of the file before the next batch.
    rows_before: u64,
    /// [`VERSION_KEY`] of the file: whether it is a shard of ours.
    version: Option<String>,
    /// Columns that are not read, for want of a JSON form.
    left_out: Vec<String>,
    is_over: bool,
}

impl ParquetBatches {
    /// Opens the rows `range` of a file.
    ///
    /// # Errors
    /// A file that cannot be read or is no Parquet.
    pub(crate) fn open(path: &Path, range: RowRange) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io("read", path))?;
        let file_len = file.metadata().map_err(DataError::io("read", path))?.len();
        // Without the writer's own Arrow types, which would give one thing many forms.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
            .map_err(|error| damaged(path, 0, &error))?;
        check_places(builder.metadata(), file_len).map_err(|problem| damaged(path, 0, &problem))?;
        let metadata = builder.metadata().file_metadata().key_value_metadata();
        let version = metadata
            .into_iter()
            .flatten()
            .find(|pair| pair.key == VERSION_KEY)
            .and_then(|pair| pair.value.clone());
        let (kept, left_out) = readable(builder.schema());
        let mask = ProjectionMask::roots(builder.parquet_schema(), kept);
        let builder = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .with_offset(usize::try_from(range.skip).unwrap_or(usize::MAX));
        let builder = match range.limit {
            Some(limit) => builder.with_limit(usize::try_from(limit).unwrap_or(usize::MAX)),
            None => builder,
        };
        let reader = builder.build().map_err(|error| damaged(path, 0, &error))?;
        Ok(Self {
            reader,
            path: path.to_owned(),
            rows_before: range.skip,
            version,
            left_out,
            is_over: false,
        })
    }

    /// What the file says under [`VERSION_KEY`].
    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Columns that have no JSON form, such as images, and are not read.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl Iterator for ParquetBatches {
    /// A batch with the number of rows before it.
    type Item = Result<(u64, RecordBatch), DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match self.reader.next() {
            Some(Ok(batch)) => {
                let before = self.rows_before;
                self.rows_before += batch.num_rows() as u64;
                Some(Ok((before, batch)))
            }
            Some(Err(error)) => {
                self.is_over = true;
                Some(Err(damaged(&self.path, self.rows_before, &error)))
            }
            None => {
                self.is_over = true;
                None
            }
        }
    }
}

fn damaged(path: &Path, rows_before: u64, error: &dyn std::fmt::Display) -> DataError {
    DataError::Damaged {
        path: path.to_owned(),
        problem: format!("not a whole Parquet file: {error} (after row {rows_before})"),
    }
}

/// Refuses metadata that points out of the file: the library trusts it, and stops the program where it is wrong.
fn check_places(metadata: &ParquetMetaData, file_len: u64) -> Result<(), String> {
    for (idx, group) in metadata.row_groups().iter().enumerate() {
        let is_count = |count: i64| u64::try_from(count).is_ok();
        if !is_count(group.num_rows()) {
            return Err(format!("row group {idx} has {} rows", group.num_rows()));
        }
        for column in group.columns() {
            let start = column
                .dictionary_page_offset()
                .unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            let is_inside = end.is_some_and(|end| start >= 0 && start <= end && end as u64 <= file_len);
            if !is_inside || !is_count(column.num_values()) {
                return Err(format!(
                    "column {} of row group {idx} has {} values in {} bytes from byte {start} on, in a file of {file_len}",
                    column.column_path().string(),
                    column.num_values(),
                    column.compressed_size()
                ));
            }
        }
    }
    Ok(())
}

/// Indices of the columns that have a JSON form, and the names of the others.
fn readable(schema: &Schema) -> (Vec<usize>, Vec<String>) {
    let (mut kept, mut left_out) = (Vec::new(), Vec::new());
    for (idx, field) in schema.fields().iter().enumerate() {
        // Some writers do not mark their texts as such, so bytes at the top may be one.
        if *field.data_type() == DataType::Binary || has_json_form(field.data_type()) {
            kept.push(idx);
        } else {
            left_out.push(field.name().clone());
        }
    }
    (kept, left_out)
}

fn has_json_form(kind: &DataType) -> bool {
    match kind {
        DataType::Null | DataType::Boolean | DataType::Utf8 => true,
        DataType::List(item) => has_json_form(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| has_json_form(field.data_type())),
        other => other.is_integer() || other.is_floating(),
    }
}

/// The cells of one row of a batch by column; nulls are left out.
///
/// # Errors
/// The column, and what is wrong with the cell.
pub(crate) fn row_of(batch: &RecordBatch, row: usize) -> Result<Map<String, Value>, (String, String)> {
    let mut cells = Map::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let cell = cell(column.as_ref(), row).map_err(|problem| (field.name().clone(), problem))?;
        if !cell.is_null() {
            cells.insert(field.name().clone(), cell);
        }
    }
    Ok(cells)
}

fn cell(column: &dyn Array, row: usize) -> Result<Value, String> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    macro_rules! number {
        ($kind:ty) => {
            Value::from(column.as_primitive::<$kind>().value(row))
        };
    }
    Ok(match column.data_type() {
        DataType::Boolean => Value::from(column.as_boolean().value(row)),
        DataType::Utf8 => Value::from(column.as_string::<i32>().value(row)),
        DataType::Binary => text(column.as_binary::<i32>().value(row))?,
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => float(column.as_primitive::<Float16Type>().value(row).into()),
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|idx| cell(items.as_ref(), idx));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        DataType::Struct(fields) => {
            let mut cells = Map::new();
            for (field, column) in fields.iter().zip(column.as_struct().columns()) {
                cells.insert(field.name().clone(), cell(column.as_ref(), row)?);
            }
            Value::Object(cells)
        }
        _ => Value::Null,
    })
}

/// A number; what JSON has no number for stays visible as a text, `NaN` or `inf`, so that whoever needs the number can
/// refuse it and a column that nobody needs does no harm.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::from(value.to_string()), Value::Number)
}

fn text(bytes: &[u8]) -> Result<Value, String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Value::from(text)),
        Err(error) => Err(format!(
            "expected UTF-8, got other bytes from byte {}",
            error.valid_up_to()
        )),
    }
}
