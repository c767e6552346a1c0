//! The record that lies beside the files of a stored model: what they are, where they came from, and how to tell
//! that they have not changed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{SourceError, StoreError};
use crate::hash::FileHash;
use crate::progress::{Event, Progress};
use crate::spec::check_file_name;

/// Name of the record in a model's folder.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The record while it is written. No model file has such a name: hidden ones are refused.
const MANIFEST_ASIDE: &str = ".manifest.json";

const SCHEMA: u32 = 1;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Version of this format.
    pub(crate) schema: u32,
    /// The name by which the model was asked for.
    pub(crate) name: String,
    /// The source that gave it.
    pub(crate) source: String,
    /// The file to open, or absent for the whole folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) opens: Option<String>,
    /// The hash that reports carry.
    pub(crate) weights_sha256: FileHash,
    pub(crate) files: Vec<StoredFile>,
}

/// A file as it was when it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredFile {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: FileHash,
    /// Time of the last change, nanoseconds since 1970. While it stays, the hash is taken as read.
    pub(crate) modified_ns: u64,
}

/// A model in the store.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
}

impl StoredFile {
    /// Describes the file `name` of `dir`, of which the hash is known.
    pub(crate) fn describe(dir: &Path, name: &str, sha256: FileHash) -> Result<Self, SourceError> {
        let path = dir.join(name);
        let metadata = fs::metadata(&path).map_err(SourceError::io("read", &path))?;
        let modified_ns = modified_ns(&metadata);
        Ok(Self {
            name: name.to_owned(),
            size_bytes: metadata.len(),
            sha256,
            modified_ns,
        })
    }
}

impl Manifest {
    pub(crate) fn new(name: &str, source: String, opens: Option<String>, files: Vec<StoredFile>) -> Self {
        let is_weights = |file: &&StoredFile| match &opens {
            Some(opened) => file.name == *opened,
            None => file.name.ends_with(".safetensors"),
        };
        let weights: Vec<_> = files
            .iter()
            .filter(is_weights)
            .map(|file| (file.name.as_str(), file.sha256))
            .collect();
        let weights_sha256 = FileHash::of_many(&weights);
        Self {
            schema: SCHEMA,
            name: name.to_owned(),
            source,
            opens,
            weights_sha256,
            files,
        }
    }

    /// Writes the record into `dir`, over an older one only when whole, and makes it and the folder durable.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), SourceError> {
        let path = dir.join(MANIFEST_ASIDE);
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest has only text keys");
        text.push(b'\n');
        let written =
            fs::File::create(&path).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(SourceError::disk("write", &path, text.len() as u64))?;
        fs::rename(&path, dir.join(MANIFEST)).map_err(SourceError::io("rename", &path))?;
        sync_folder(dir).map_err(SourceError::io("write", dir))
    }
}

impl Installed {
    /// Reads the record in `dir`; `None` if there is none that can be used.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        Self::try_read(dir).ok().flatten()
    }

    /// Reads the record in `dir`, if there is one.
    ///
    /// # Errors
    /// The record's path, and why it cannot be used.
    pub(crate) fn try_read(dir: &Path) -> Result<Option<Self>, (PathBuf, String)> {
        let path = dir.join(MANIFEST);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| error.to_string()),
        };
        match text.and_then(|text| parse(&text)) {
            Ok(manifest) => Ok(Some(Self {
                dir: dir.to_owned(),
                manifest,
            })),
            Err(reason) => Err((path, format!("the record is unreadable: {reason}"))),
        }
    }

    /// What a checkpoint reader is to open.
    pub(crate) fn path(&self) -> PathBuf {
        self.manifest
            .opens
            .as_ref()
            .map_or_else(|| self.dir.clone(), |name| self.dir.join(name))
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.size_bytes).sum()
    }

    /// Compares the files with the record: sizes always, content if a file was touched or `every_byte` is asked.
    /// Gives the record's files with their new times if some were touched.
    pub(crate) fn check(
        &self,
        every_byte: bool,
        progress: &mut dyn Progress,
    ) -> Result<Option<Vec<StoredFile>>, StoreError> {
        let mut files = self.manifest.files.clone();
        for file in &mut files {
            let path = self.dir.join(&file.name);
            let damaged = |reason: String| StoreError::Damaged {
                name: self.manifest.name.clone(),
                path: path.clone(),
                reason,
            };
            let metadata = fs::metadata(&path).map_err(|error| damaged(error.to_string()))?;
            if metadata.len() != file.size_bytes {
                return Err(damaged(format!(
                    "expected {} bytes, got {}",
                    file.size_bytes,
                    metadata.len()
                )));
            }
            if !every_byte && modified_ns(&metadata) == file.modified_ns {
                continue;
            }
            progress.event(Event::Started {
                what: &file.name,
                total_bytes: file.size_bytes,
            });
            let on_bytes = |done: u64| {
                progress.event(Event::Advanced {
                    done_bytes: done.min(file.size_bytes),
                });
            };
            let got = FileHash::of_file(&path, on_bytes).map_err(StoreError::io("read", &path))?;
            progress.event(Event::Finished);
            if got != file.sha256 {
                return Err(damaged(format!("expected sha256 {}, got {got}", file.sha256)));
            }
            file.modified_ns = modified_ns(&metadata);
        }
        Ok((files != self.manifest.files).then_some(files))
    }
}

/// A record whose names are safe to use below its folder.
fn parse(text: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if manifest.schema != SCHEMA {
        return Err(format!("expected schema {SCHEMA}, got {}", manifest.schema));
    }
    manifest
        .files
        .iter()
        .try_for_each(|file| check_file_name(&file.name))?;
    let is_listed = |opened: &&String| manifest.files.iter().any(|file| file.name == **opened);
    match manifest.opens.as_ref().filter(|opened| !is_listed(opened)) {
        Some(opened) => Err(format!("it opens {opened:?}, which is none of its files")),
        None => Ok(manifest),
    }
}

/// Time of the last change, nanoseconds since 1970; zero where the system does not tell.
pub(crate) fn modified_ns(metadata: &fs::Metadata) -> u64 {
    let since = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}

/// Makes renames in `dir` durable. Only Unix lets a folder be opened for this; elsewhere the system does it.
pub(crate) fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        fs::File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}
