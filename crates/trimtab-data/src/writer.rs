//! Writes rollouts as a folder of Parquet shards, so that a killed run goes on where it stopped. Knows no model.
//!
//! Prompts may be finished in any order. A shard holds consecutive prompts, as many as it takes to reach the rows asked
//! for, and is written when all of them are there, under a temporary name, then renamed; the manifest follows. Prompts
//! of shards to come wait in `journal`, one checked line each. So the bytes of a shard are a function of its rows
//! alone, and a run that was killed ends in the same files as one that was not.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::DataError;
use crate::files::{FolderLock, part_path, sha256_of_file};
use crate::journal::Journal;
use crate::manifest::{Manifest, RewardColumn, RunIdentity, Shard};
use crate::rollout::Rollout;
use crate::schema::{SCHEMA_VERSION, VERSION_KEY, schema, to_batch};
use crate::shards;

/// Most rows of a row group: what a reader holds at once, compressed.
const ROW_GROUP_ROWS: usize = 8192;

/// What a rollout folder is to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct WriterConfig {
    /// The run. A folder of another one is refused.
    pub identity: RunIdentity,
    /// The rewards that every row carries.
    pub rewards: Vec<RewardColumn>,
    /// A shard is closed when it has so many rows, at the end of a prompt; at least 1. 4096 is a good number: some MB
    /// of text.
    pub rows_per_shard: usize,
}

/// A rollout folder open for writing, and locked.
#[derive(Debug)]
pub struct RolloutWriter {
    folder: PathBuf,
    manifest: Manifest,
    rewards: Vec<String>,
    rows_per_shard: usize,
    /// `None` once the folder is finished.
    journal: Option<Journal>,
    /// Finished prompts that are in no shard yet.
    waiting: BTreeMap<u64, Vec<Rollout>>,
    /// First prompt that is in no shard.
    first_waiting: u64,
    _lock: FolderLock,
}

impl RolloutWriter {
    /// Creates the folder, or goes on with one of the same run.
    ///
    /// # Errors
    /// A folder of another run, with what differs; one that holds other files, that another process writes, or whose
    /// shards have changed.
    pub fn open(folder: &Path, config: WriterConfig) -> Result<Self, DataError> {
        check_rewards(&config.rewards)?;
        let found = Manifest::open(folder)?;
        if found.is_none() && !is_free(folder)? {
            return Err(DataError::Exists {
                path: folder.to_owned(),
            });
        }
        if let Some(found) = &found {
            check_same(folder, found, &config)?;
        }
        std::fs::create_dir_all(folder).map_err(DataError::io("create", folder))?;
        let lock = FolderLock::take(folder)?;
        let manifest = if let Some(found) = found {
            found
        } else {
            let manifest = Manifest::new(with_cut(config.identity, config.rows_per_shard), config.rewards);
            manifest.write(folder)?;
            manifest
        };
        for shard in &manifest.shards {
            shards::check(folder, shard)?;
        }
        let first_waiting = manifest.num_prompts();
        let (journal, entries) = if manifest.complete {
            (None, Vec::new())
        } else {
            let (journal, entries) = Journal::open(folder)?;
            (Some(journal), entries)
        };
        let waiting = entries.into_iter().filter_map(|rows: Vec<Rollout>| {
            let prompt_idx = rows.first()?.prompt_idx;
            // A kill between manifest and journal leaves prompts in both.
            (prompt_idx >= first_waiting).then_some((prompt_idx, rows))
        });
        Ok(Self {
            folder: folder.to_owned(),
            rewards: manifest
                .rewards
                .iter()
                .map(|column| column.name.clone())
                .collect(),
            rows_per_shard: config.rows_per_shard.max(1),
            waiting: waiting.collect(),
            manifest,
            journal,
            first_waiting,
            _lock: lock,
        })
    }

    /// Whether the prompt's rollouts are there already.
    pub fn has_prompt(&self, prompt_idx: u64) -> bool {
        prompt_idx < self.first_waiting || self.waiting.contains_key(&prompt_idx)
    }

    /// Whether the run is over: every row is in a shard.
    pub fn is_complete(&self) -> bool {
        self.manifest.complete
    }

    /// Prompts whose rollouts are there already.
    pub fn num_prompts(&self) -> u64 {
        self.first_waiting + self.waiting.len() as u64
    }

    /// Adds all rollouts of one prompt. Prompts are numbered from 0 without gaps and may come in any order; the fewer
    /// are out of order, the less memory is taken.
    ///
    /// # Errors
    /// Rows of several prompts or of one that is there already, samples that are not numbered from 0, a number that is
    /// not finite, rewards other than the folder's, and whatever the system refuses.
    pub fn push(&mut self, mut rows: Vec<Rollout>) -> Result<(), DataError> {
        rows.sort_by_key(|row| row.sample_idx);
        self.check_rows(&rows)?;
        let Some(first) = rows.first() else {
            return Ok(());
        };
        let Some(journal) = &mut self.journal else {
            return Err(DataError::BadRollout {
                prompt_idx: first.prompt_idx,
                sample_idx: first.sample_idx,
                problem: "the folder is finished".to_owned(),
            });
        };
        journal.append(&rows)?;
        self.waiting.insert(first.prompt_idx, rows);
        while let Some(num_prompts) = self.full_shard() {
            self.write_shard(num_prompts)?;
        }
        Ok(())
    }

    /// Writes what is left as the last shard and closes the folder.
    ///
    /// # Errors
    /// A prompt that is missing between others, and whatever the system refuses.
    pub fn finish(mut self) -> Result<Manifest, DataError> {
        let num_prompts = self.waiting.len() as u64;
        let contiguous = self
            .waiting
            .keys()
            .zip(self.first_waiting..)
            .take_while(|(a, b)| **a == *b);
        let missing = self.first_waiting + contiguous.count() as u64;
        if let Some((&prompt_idx, _)) = self.waiting.range(missing..).next() {
            return Err(DataError::BadRollout {
                prompt_idx,
                sample_idx: 0,
                problem: format!("prompt {missing} is missing before it"),
            });
        }
        if num_prompts > 0 {
            self.write_shard(num_prompts)?;
        }
        if let Some(journal) = self.journal {
            self.manifest.complete = true;
            self.manifest.write(&self.folder)?;
            journal.remove()?;
        }
        Ok(self.manifest)
    }

    /// Prompts of the next shard, if it has all its rows.
    fn full_shard(&self) -> Option<u64> {
        let mut num_rows = 0;
        for ((prompt_idx, rows), expected) in self.waiting.iter().zip(self.first_waiting..) {
            if *prompt_idx != expected {
                return None;
            }
            num_rows += rows.len();
            if num_rows >= self.rows_per_shard {
                return Some(expected + 1 - self.first_waiting);
            }
        }
        None
    }

    fn write_shard(&mut self, num_prompts: u64) -> Result<(), DataError> {
        let end = self.first_waiting + num_prompts;
        let later = self.waiting.split_off(&end);
        let prompts = std::mem::replace(&mut self.waiting, later);
        let rows: Vec<Rollout> = prompts.into_values().flatten().collect();
        let file = format!("part-{:05}.parquet", self.manifest.shards.len());
        let path = self.folder.join(&file);
        write_parquet(&path, &rows, &self.rewards)?;
        self.manifest.shards.push(Shard {
            file,
            sha256: sha256_of_file(&path)?,
            num_rows: rows.len() as u64,
            num_prompts,
        });
        self.manifest.write(&self.folder)?;
        self.first_waiting = end;
        match &mut self.journal {
            Some(journal) => journal.rewrite(self.waiting.values()),
            None => Ok(()),
        }
    }

    fn check_rows(&self, rows: &[Rollout]) -> Result<(), DataError> {
        let Some(first) = rows.first() else {
            return Ok(());
        };
        for (row, sample_idx) in rows.iter().zip(0..) {
            let problem = if row.prompt_idx != first.prompt_idx {
                Some(format!("expected rows of prompt {} alone", first.prompt_idx))
            } else if row.sample_idx != sample_idx {
                Some(format!("expected sample {sample_idx}"))
            } else if self.has_prompt(row.prompt_idx) {
                Some("the prompt is there already".to_owned())
            } else if !row.rewards.keys().eq(self.sorted_rewards()) {
                let (got, expected) = (row.rewards.keys(), &self.rewards);
                Some(format!(
                    "expected the rewards {expected:?}, got {:?}",
                    got.collect::<Vec<_>>()
                ))
            } else {
                row.not_finite()
                    .map(|(column, value)| format!("{column} is {value}, expected a finite number"))
            };
            if let Some(problem) = problem {
                return Err(DataError::BadRollout {
                    prompt_idx: row.prompt_idx,
                    sample_idx: row.sample_idx,
                    problem,
                });
            }
        }
        Ok(())
    }

    fn sorted_rewards(&self) -> impl Iterator<Item = &String> {
        let mut names: Vec<&String> = self.rewards.iter().collect();
        names.sort();
        names.into_iter()
    }
}

/// The setting under which the cut into shards is part of the identity: another one would give other files.
const CUT: &str = "rows_per_shard";

fn with_cut(mut identity: RunIdentity, rows_per_shard: usize) -> RunIdentity {
    identity
        .config
        .insert(CUT.to_owned(), rows_per_shard.max(1).into());
    identity
}

fn check_same(folder: &Path, found: &Manifest, config: &WriterConfig) -> Result<(), DataError> {
    let ours = with_cut(config.identity.clone(), config.rows_per_shard);
    let mut differences = ours.differences(&found.identity);
    if found.rewards != config.rewards {
        let names = |columns: &[RewardColumn]| {
            let names: Vec<String> = columns
                .iter()
                .map(|c| format!("{} [{}]", c.name, c.unit))
                .collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let (theirs, ours) = (names(&found.rewards), names(&config.rewards));
        differences.push(format!("rewards: {theirs} there, {ours} here"));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(DataError::OtherRun {
        path: folder.to_owned(),
        differences,
    })
}

fn check_rewards(rewards: &[RewardColumn]) -> Result<(), DataError> {
    let mut seen = std::collections::BTreeSet::new();
    for RewardColumn { name, .. } in rewards {
        let problem = if name.is_empty() {
            "expected a name"
        } else if !seen.insert(name) {
            "it is there twice"
        } else {
            continue;
        };
        return Err(DataError::RewardColumn {
            name: name.clone(),
            problem: problem.to_owned(),
        });
    }
    Ok(())
}

/// Whether nothing is at `folder`, or an empty folder.
fn is_free(folder: &Path) -> Result<bool, DataError> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(DataError::io("read", folder)(error)),
    }
}

fn write_parquet(path: &Path, rows: &[Rollout], rewards: &[String]) -> Result<(), DataError> {
    let part = part_path(path);
    let file = File::create(&part).map_err(DataError::io("write", &part))?;
    let write = || -> parquet::errors::Result<File> {
        let version = KeyValue::new(VERSION_KEY.to_owned(), SCHEMA_VERSION.to_string());
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by("trimtab".to_owned())
            .set_key_value_metadata(Some(vec![version]))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .build();
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let schema = std::sync::Arc::new(schema(rewards));
        let mut writer = ArrowWriter::try_new_with_options(file, schema, options)?;
        for rows in rows.chunks(ROW_GROUP_ROWS) {
            writer.write(&to_batch(rows, rewards))?;
        }
        writer.into_inner()
    };
    let file = write().map_err(|error| DataError::io("write", &part)(std::io::Error::other(error)))?;
    file.sync_all().map_err(DataError::io("write", &part))?;
    std::fs::rename(&part, path).map_err(DataError::io("write", path))
}
