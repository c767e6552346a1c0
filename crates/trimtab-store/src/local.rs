//! Models that lie outside the store: which of their files hold weights, and their hashes, remembered by path, size
//! and time of change so that only the first use of a large file reads all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::hash::FileHash;
use crate::manifest::modified_ns;
use crate::progress::{Event, Progress};
use crate::spec::{ModelFormat, local_format, safetensors_in};
use crate::store::ModelFile;

/// A file changed so recently may change again without its time telling; its hash is not remembered.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// What is remembered of one file.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    path: PathBuf,
    size_bytes: u64,
    modified_ns: u64,
    sha256: FileHash,
}

/// The hashes known in one folder.
pub(crate) struct LocalHashes {
    /// Where they are kept. It may be missing or read-only: then nothing is remembered.
    pub(crate) dir: PathBuf,
    /// Whether what is remembered may be used instead of reading the file.
    pub(crate) may_trust: bool,
}

impl LocalHashes {
    /// The files of the model at `path` that hold weights, with their hashes.
    pub(crate) fn weights(
        &self,
        path: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Vec<ModelFile>, StoreError> {
        if local_format(path)? != ModelFormat::SafetensorsFolder {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            return Ok(vec![self.file(path, name, progress)?]);
        }
        let names = safetensors_in(path)?;
        names
            .into_iter()
            .map(|name| self.file(&path.join(&name), name, progress))
            .collect()
    }

    fn file(&self, path: &Path, name: String, progress: &mut dyn Progress) -> Result<ModelFile, StoreError> {
        let path = path.canonicalize().map_err(StoreError::io("resolve", path))?;
        let metadata = fs::metadata(&path).map_err(StoreError::io("read", &path))?;
        let (size_bytes, modified_ns) = (metadata.len(), modified_ns(&metadata));
        let record = self.dir.join(format!(
            "{}.json",
            FileHash::of_bytes(path.as_os_str().as_encoded_bytes())
        ));
        let is_same = |known: &Remembered| {
            known.path == path && (known.size_bytes, known.modified_ns) == (size_bytes, modified_ns)
        };
        if let Some(known) = read(&record).filter(|known| self.may_trust && is_same(known)) {
            return Ok(ModelFile {
                name,
                size_bytes,
                sha256: known.sha256,
            });
        }
        progress.event(Event::Started {
            what: &name,
            total_bytes: size_bytes,
        });
        let on_bytes = |done: u64| {
            progress.event(Event::Advanced {
                done_bytes: done.min(size_bytes),
            });
        };
        let sha256 = FileHash::of_file(&path, on_bytes).map_err(StoreError::io("read", &path))?;
        progress.event(Event::Finished);
        let is_settled = metadata
            .modified()
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= SETTLE_TIME));
        if is_settled {
            self.remember(
                &record,
                &Remembered {
                    path,
                    size_bytes,
                    modified_ns,
                    sha256,
                },
            );
        }
        Ok(ModelFile {
            name,
            size_bytes,
            sha256,
        })
    }

    /// Writes beside and renames, because another process may read. A failure only costs time later.
    fn remember(&self, record: &Path, known: &Remembered) {
        let Ok(text) = serde_json::to_vec(known) else {
            return;
        };
        let aside = record.with_extension(format!("{}.tmp", std::process::id()));
        let written = fs::create_dir_all(&self.dir).and_then(|()| fs::write(&aside, text));
        if written.and_then(|()| fs::rename(&aside, record)).is_err() {
            let _ = fs::remove_file(&aside);
        }
    }
}

fn read(record: &Path) -> Option<Remembered> {
    serde_json::from_slice(&fs::read(record).ok()?).ok()
}
