//! Prompts, rollouts and preferences on disk, as streams of rows.
//!
//! The key decision is that nothing here holds a data set. A reader is an iterator that has one row, one batch of a
//! row group or one line in memory; a writer holds the rows of one shard. So a million rollouts take the memory of a
//! few thousand, on both sides, and whoever needs them all in memory collects them where it is seen.
//!
//! What comes in has three layers. [`RowReader`] turns any file into rows, each a map of JSON values with its number:
//! JSON lines or one array, plain, gzip or zstd, Parquet files of any hub, plain text. On it stand four meanings of a row:
//! [`PromptReader`] (what to answer), [`RolloutReader`] (prompt and response, with rewards if there are any) and
//! [`PreferenceReader`] (two responses, one preferred) and [`LabelledReader`] (a response and a label), each of which knows the usual columns (`prompt`, `messages`,
//! `response`, `chosen`, ...) and the transcripts of Anthropic's HH-RLHF. Columns that are not part of the meaning
//! stay with the row as its `record`, for rewards that read them.
//!
//! What goes out is one form only, a folder of Parquet shards with a manifest ([`RolloutWriter`]). The cut into shards
//! is a function of the rows alone: neither the order in which prompts were finished nor a kill in between changes a
//! byte, so the hash of the shards' hashes ([`Manifest::content_sha256`]) names the data.
//!
//! A bad row is an error with file, row, column and value; no row is ever left out silently. This crate knows no model,
//! tokenizer, reward or clock.

mod error;
mod files;
mod journal;
mod json_array;
mod labelled;
mod manifest;
mod message;
mod parquet_rows;
mod preference;
mod prompt;
mod rewards;
mod rollout;
mod rollout_reader;
mod rows;
mod schema;
mod shards;
mod text_rows;
mod writer;

pub use error::DataError;
pub use labelled::{LabelColumns, LabelledReader, LabelledResponse};
pub use manifest::{MANIFEST_FILE, Manifest, RewardColumn, RunIdentity, Shard};
pub use message::Message;
pub use preference::{PreferencePair, PreferenceReader};
pub use prompt::{PromptForm, PromptReader, PromptRecord};
pub use rewards::{RewardTask, Score, add_rewards};
pub use rollout::Rollout;
pub use rollout_reader::RolloutReader;
pub use rows::{Row, RowRange, RowReader};
pub use schema::{SCHEMA, SCHEMA_VERSION};
pub use writer::{RolloutWriter, WriterConfig};
