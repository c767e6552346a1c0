//! Rollouts as columns: the schema of a shard, and both ways between rows and record batches. Knows no file.

use std::sync::Arc;

use arrow_array::builder::{
    Float64Builder, ListBuilder, StringBuilder, StructBuilder, UInt32Builder, UInt64Builder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema};

use crate::message::Message;
use crate::rollout::{REWARD_PREFIX, Rollout};

/// Version of [`SCHEMA`]; a shard says it in its Parquet metadata under `trimtab.schema_version`.
pub const SCHEMA_VERSION: u32 = 1;

/// Key of the version in the metadata of a shard.
pub(crate) const VERSION_KEY: &str = "trimtab.schema_version";

/// The columns of a shard in order, as Parquet writes them. `reward:NAME` stands there once per reward, in the order of
/// the manifest; no value of it is NaN or infinite. Rows rise by `(prompt_idx, sample_idx)`.
pub const SCHEMA: &str = "\
message arrow_schema {
  REQUIRED INT64 prompt_idx (INTEGER(64,false));
  REQUIRED INT64 sample_idx (INTEGER(64,false));
  REQUIRED BYTE_ARRAY prompt (STRING);
  REQUIRED group messages (LIST) {
    REPEATED group list {
      REQUIRED group item {
        REQUIRED BYTE_ARRAY role (STRING);
        REQUIRED BYTE_ARRAY content (STRING);
      }
    }
  }
  REQUIRED BYTE_ARRAY response (STRING);
  REQUIRED group prompt_token_ids (LIST) {
    REPEATED group list {
      REQUIRED INT32 item (INTEGER(32,false));
    }
  }
  REQUIRED group response_token_ids (LIST) {
    REPEATED group list {
      REQUIRED INT32 item (INTEGER(32,false));
    }
  }
  REQUIRED BYTE_ARRAY finish (STRING);
  OPTIONAL DOUBLE log_prob;
  OPTIONAL DOUBLE reference_log_prob;
  REQUIRED BYTE_ARRAY record (STRING);
  REQUIRED DOUBLE reward:NAME;
}
";

/// The Arrow schema of shards with these rewards.
pub(crate) fn schema(rewards: &[String]) -> Schema {
    let required = |name: &str, kind: DataType| Field::new(name, kind, false);
    let ids = || DataType::List(Arc::new(required("item", DataType::UInt32)));
    let message = DataType::Struct(message_fields());
    let mut fields = vec![
        required("prompt_idx", DataType::UInt64),
        required("sample_idx", DataType::UInt64),
        required("prompt", DataType::Utf8),
        required("messages", DataType::List(Arc::new(required("item", message)))),
        required("response", DataType::Utf8),
        required("prompt_token_ids", ids()),
        required("response_token_ids", ids()),
        required("finish", DataType::Utf8),
        Field::new("log_prob", DataType::Float64, true),
        Field::new("reference_log_prob", DataType::Float64, true),
        required("record", DataType::Utf8),
    ];
    fields.extend(
        rewards
            .iter()
            .map(|name| required(&format!("{REWARD_PREFIX}{name}"), DataType::Float64)),
    );
    Schema::new(fields)
}

fn message_fields() -> Fields {
    Fields::from(vec![
        Field::new("role", DataType::Utf8, false),
        Field::new("content", DataType::Utf8, false),
    ])
}

/// Rows as a batch. A reward that a row lacks is written as NaN; the writer refuses such rows before.
pub(crate) fn to_batch(rows: &[Rollout], rewards: &[String]) -> RecordBatch {
    let mut columns: Vec<ArrayRef> = vec![
        indices(rows, |row| row.prompt_idx),
        indices(rows, |row| row.sample_idx),
        texts(rows, |row| row.prompt.clone()),
        messages(rows),
        texts(rows, |row| row.response.clone()),
        token_ids(rows, |row| &row.prompt_token_ids),
        token_ids(rows, |row| &row.response_token_ids),
        texts(rows, |row| row.finish.clone()),
        numbers(rows, |row| row.log_prob),
        numbers(rows, |row| row.reference_log_prob),
        texts(rows, |row| {
            serde_json::to_string(&row.record).expect("a map of JSON values is JSON")
        }),
    ];
    for name in rewards {
        columns.push(numbers(rows, |row| {
            Some(row.rewards.get(name).copied().unwrap_or(f64::NAN))
        }));
    }
    RecordBatch::try_new(Arc::new(schema(rewards)), columns).expect("columns are made in the schema's order")
}

fn indices(rows: &[Rollout], value: impl Fn(&Rollout) -> u64) -> ArrayRef {
    let mut builder = UInt64Builder::with_capacity(rows.len());
    for row in rows {
        builder.append_value(value(row));
    }
    Arc::new(builder.finish())
}

fn numbers(rows: &[Rollout], value: impl Fn(&Rollout) -> Option<f64>) -> ArrayRef {
    let mut builder = Float64Builder::with_capacity(rows.len());
    for row in rows {
        builder.append_option(value(row));
    }
    Arc::new(builder.finish())
}

fn texts(rows: &[Rollout], value: impl Fn(&Rollout) -> String) -> ArrayRef {
    let mut builder = StringBuilder::new();
    for row in rows {
        builder.append_value(value(row));
    }
    Arc::new(builder.finish())
}

fn token_ids(rows: &[Rollout], value: impl Fn(&Rollout) -> &[u32]) -> ArrayRef {
    let field = Field::new("item", DataType::UInt32, false);
    let mut builder = ListBuilder::new(UInt32Builder::new()).with_field(Arc::new(field));
    for row in rows {
        builder.values().append_slice(value(row));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn messages(rows: &[Rollout]) -> ArrayRef {
    let field = Field::new("item", DataType::Struct(message_fields()), false);
    let columns: Vec<Box<dyn arrow_array::builder::ArrayBuilder>> =
        vec![Box::new(StringBuilder::new()), Box::new(StringBuilder::new())];
    let turns = StructBuilder::new(message_fields(), columns);
    let mut builder = ListBuilder::new(turns).with_field(Arc::new(field));
    for row in rows {
        for message in &row.messages {
            let turn = builder.values();
            for (idx, text) in [&message.role, &message.content].into_iter().enumerate() {
                let column = turn.field_builder::<StringBuilder>(idx);
                column.expect("both columns are texts").append_value(text);
            }
            turn.append(true);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// What a batch has wrong: the column, the row within the batch where it is one row's fault, and the problem.
pub(crate) struct BatchProblem {
    /// The column.
    pub(crate) column: String,
    /// Row within the batch, counted from 0.
    pub(crate) row: usize,
    /// What was expected and what is there.
    pub(crate) problem: String,
}

/// The rows of a batch with this schema; columns are found by name.
///
/// # Errors
/// A column that is missing or of another type, a null where none may be, a number that is not finite.
pub(crate) fn from_batch(batch: &RecordBatch) -> Result<Vec<Rollout>, BatchProblem> {
    let columns = Columns::of(batch)?;
    (0..batch.num_rows()).map(|row| columns.rollout(row)).collect()
}

/// The columns of a batch, checked to be of their types.
struct Columns<'a> {
    prompt_idx: &'a ArrayRef,
    sample_idx: &'a ArrayRef,
    prompt: &'a ArrayRef,
    messages: &'a ListArray,
    response: &'a ArrayRef,
    prompt_token_ids: &'a ListArray,
    response_token_ids: &'a ListArray,
    finish: &'a ArrayRef,
    log_prob: &'a ArrayRef,
    reference_log_prob: &'a ArrayRef,
    record: &'a ArrayRef,
    rewards: Vec<(String, &'a ArrayRef)>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, BatchProblem> {
        let found = batch.schema_ref().fields();
        let mut rewards = Vec::new();
        for (field, column) in found.iter().zip(batch.columns()) {
            if let Some(name) = field.name().strip_prefix(REWARD_PREFIX) {
                check_type(field.name(), column, &DataType::Float64)?;
                check_nulls(field.name(), column)?;
                rewards.push((name.to_owned(), column));
            }
        }
        let expected = schema(&[]);
        let column = |name: &str| -> Result<&'a ArrayRef, BatchProblem> {
            let column = batch.column_by_name(name).ok_or_else(|| BatchProblem {
                column: name.to_owned(),
                row: 0,
                problem: "the column is missing".to_owned(),
            })?;
            let field = expected
                .field_with_name(name)
                .expect("names are those of the schema");
            check_type(name, column, field.data_type())?;
            if !field.is_nullable() {
                check_nulls(name, column)?;
            }
            Ok(column)
        };
        Ok(Self {
            prompt_idx: column("prompt_idx")?,
            sample_idx: column("sample_idx")?,
            prompt: column("prompt")?,
            messages: column("messages")?.as_list(),
            response: column("response")?,
            prompt_token_ids: column("prompt_token_ids")?.as_list(),
            response_token_ids: column("response_token_ids")?.as_list(),
            finish: column("finish")?,
            log_prob: column("log_prob")?,
            reference_log_prob: column("reference_log_prob")?,
            record: column("record")?,
            rewards,
        })
    }

    fn rollout(&self, row: usize) -> Result<Rollout, BatchProblem> {
        let text = |column: &ArrayRef| column.as_string::<i32>().value(row).to_owned();
        let index = |column: &ArrayRef| column.as_primitive::<UInt64Type>().value(row);
        let number = |column: &ArrayRef| {
            let column = column.as_primitive::<Float64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        let ids = |column: &ListArray| column.value(row).as_primitive::<UInt32Type>().values().to_vec();
        let record = self.record.as_string::<i32>().value(row);
        let record = serde_json::from_str(record).map_err(|error| BatchProblem {
            column: "record".to_owned(),
            row,
            problem: format!("expected a JSON object: {error}"),
        })?;
        let rollout = Rollout {
            prompt_idx: index(self.prompt_idx),
            sample_idx: index(self.sample_idx),
            prompt: text(self.prompt),
            messages: turns_at(self.messages, row),
            response: text(self.response),
            prompt_token_ids: ids(self.prompt_token_ids),
            response_token_ids: ids(self.response_token_ids),
            finish: text(self.finish),
            log_prob: number(self.log_prob),
            reference_log_prob: number(self.reference_log_prob),
            rewards: self
                .rewards
                .iter()
                .map(|(name, column)| (name.clone(), column.as_primitive::<Float64Type>().value(row)))
                .collect(),
            record,
        };
        match rollout.not_finite() {
            Some((column, value)) => Err(BatchProblem {
                column,
                row,
                problem: format!("expected a finite number, got {value}"),
            }),
            None => Ok(rollout),
        }
    }
}

fn turns_at(messages: &ListArray, row: usize) -> Vec<Message> {
    let turns = messages.value(row);
    let turns = turns.as_struct();
    let (roles, contents) = (
        turns.column(0).as_string::<i32>(),
        turns.column(1).as_string::<i32>(),
    );
    let turn = |idx| Message::new(roles.value(idx), contents.value(idx));
    (0..turns.len()).map(turn).collect()
}

fn check_type(name: &str, column: &ArrayRef, expected: &DataType) -> Result<(), BatchProblem> {
    // Names inside a list are the writer's choice; only what it holds counts.
    if column.data_type().equals_datatype(expected) {
        return Ok(());
    }
    Err(BatchProblem {
        column: name.to_owned(),
        row: 0,
        problem: format!("expected {expected}, got {}", column.data_type()),
    })
}

fn check_nulls(name: &str, column: &ArrayRef) -> Result<(), BatchProblem> {
    match (0..column.len()).find(|&row| column.is_null(row)) {
        Some(row) => Err(BatchProblem {
            column: name.to_owned(),
            row,
            problem: "expected a value, got null".to_owned(),
        }),
        None => Ok(()),
    }
}
