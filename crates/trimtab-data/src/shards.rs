//! The shards of a rollout folder as one stream, each held against its hash before it is read. Knows no meaning of a row.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::files::sha256_of_file;
use crate::manifest::{Manifest, Shard};
use crate::parquet_rows::ParquetBatches;
use crate::rollout::Rollout;
use crate::rows::RowRange;
use crate::schema::{SCHEMA_VERSION, from_batch};

/// One Parquet file in the form of [`SCHEMA`](crate::SCHEMA).
pub(crate) struct ShardFile {
    batches: ParquetBatches,
    path: PathBuf,
    rows: VecDeque<Rollout>,
}

impl ShardFile {
    /// Opens the rows `range` of a file; `None` if it is a Parquet file of another form.
    ///
    /// # Errors
    /// A file that cannot be read, or whose form has another version.
    pub(crate) fn open(path: &Path, range: RowRange) -> Result<Option<Self>, DataError> {
        let batches = ParquetBatches::open(path, range)?;
        match batches.version() {
            None => Ok(None),
            Some(version) if version == SCHEMA_VERSION.to_string() => Ok(Some(Self {
                batches,
                path: path.to_owned(),
                rows: VecDeque::new(),
            })),
            Some(version) => Err(DataError::Damaged {
                path: path.to_owned(),
                problem: format!("expected schema version {SCHEMA_VERSION}, got {version:?}"),
            }),
        }
    }

    fn fill(&mut self) -> Result<(), DataError> {
        while self.rows.is_empty() {
            let Some((before, batch)) = self.batches.next().transpose()? else {
                return Ok(());
            };
            let rows = from_batch(&batch).map_err(|bad| DataError::Row {
                path: self.path.clone(),
                row: before + bad.row as u64 + 1,
                column: bad.column,
                problem: bad.problem,
            })?;
            self.rows = rows.into();
        }
        Ok(())
    }
}

impl Iterator for ShardFile {
    type Item = Result<Rollout, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.fill() {
            Ok(()) => self.rows.pop_front().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}

/// The shards of a folder.
pub(crate) struct Shards {
    folder: PathBuf,
    waiting: VecDeque<Shard>,
    current: Option<ShardFile>,
    range: RowRange,
}

impl Shards {
    /// The rows `range` of a folder; shards that lie before them are not opened.
    pub(crate) fn new(folder: &Path, manifest: &Manifest, mut range: RowRange) -> Self {
        let mut waiting: VecDeque<Shard> = manifest.shards.iter().cloned().collect();
        while let Some(first) = waiting.front()
            && first.num_rows <= range.skip
        {
            range.skip -= first.num_rows;
            waiting.pop_front();
        }
        Self {
            folder: folder.to_owned(),
            waiting,
            current: None,
            range,
        }
    }

    fn next_row(&mut self) -> Result<Option<Rollout>, DataError> {
        if self.range.limit == Some(0) {
            return Ok(None);
        }
        loop {
            if let Some(row) = self.current.as_mut().and_then(Iterator::next) {
                if let Some(limit) = &mut self.range.limit {
                    *limit -= 1;
                }
                return row.map(Some);
            }
            let Some(shard) = self.waiting.pop_front() else {
                return Ok(None);
            };
            let skip = std::mem::take(&mut self.range.skip);
            self.current = Some(open_checked(
                &self.folder,
                &shard,
                RowRange { skip, limit: None },
            )?);
        }
    }
}

impl Iterator for Shards {
    type Item = Result<Rollout, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

/// Holds a shard against its hash.
///
/// # Errors
/// A shard that is missing or has changed.
pub(crate) fn check(folder: &Path, shard: &Shard) -> Result<PathBuf, DataError> {
    let path = folder.join(&shard.file);
    let got = sha256_of_file(&path)?;
    if got != shard.sha256 {
        return Err(DataError::Damaged {
            path,
            problem: format!(
                "expected sha256 {} as in the manifest, got {got}; the file has changed since it was written",
                shard.sha256
            ),
        });
    }
    Ok(path)
}

fn open_checked(folder: &Path, shard: &Shard, range: RowRange) -> Result<ShardFile, DataError> {
    let path = check(folder, shard)?;
    ShardFile::open(&path, range)?.ok_or_else(|| DataError::Damaged {
        path,
        problem: "expected a shard of rollouts, got another Parquet file".to_owned(),
    })
}
