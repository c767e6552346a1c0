//! Lines that survive a kill: finished prompts that are in no shard yet. Knows lines, not what they mean.
//!
//! Each line is `<8 hex digits> <json>`: the digits are the CRC-32 of the JSON. A kill in the middle of a write leaves a
//! last line without its end; it is cut off when the journal is opened again. Other damage is an error.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::DataError;
use crate::files::part_path;

/// A journal open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens or creates the journal of a folder and gives its entries.
    ///
    /// # Errors
    /// Damage before the last line, and what the system refuses.
    pub(crate) fn open<E: DeserializeOwned>(folder: &Path) -> Result<(Self, Vec<E>), DataError> {
        let path = folder.join("journal");
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(DataError::io("open", &path))?;
        let (mut entries, mut kept_len) = (Vec::new(), 0);
        let (mut lines, mut line) = (BufReader::new(&file), Vec::new());
        loop {
            line.clear();
            let len = lines
                .read_until(b'\n', &mut line)
                .map_err(DataError::io("read", &path))?;
            let Some(whole) = line.strip_suffix(b"\n") else {
                break;
            };
            let entry = parse(whole).ok_or_else(|| DataError::Damaged {
                path: path.clone(),
                problem: format!(
                    "line {} is damaged; remove the folder to start again",
                    entries.len() + 1
                ),
            })?;
            entries.push(entry);
            kept_len += len as u64;
        }
        file.set_len(kept_len).map_err(DataError::io("repair", &path))?;
        Ok((Self { file, path }, entries))
    }

    /// Adds an entry and makes it survive a kill.
    pub(crate) fn append(&mut self, entry: &impl Serialize) -> Result<(), DataError> {
        let line = line_of(entry);
        self.file
            .write_all(line.as_bytes())
            .map_err(DataError::io("write", &self.path))
    }

    /// Replaces all entries, at once.
    pub(crate) fn rewrite(&mut self, entries: impl Iterator<Item = impl Serialize>) -> Result<(), DataError> {
        let part = part_path(&self.path);
        let write = || {
            let mut file = BufWriter::new(File::create(&part)?);
            for entry in entries {
                file.write_all(line_of(&entry).as_bytes())?;
            }
            file.into_inner().map_err(std::io::IntoInnerError::into_error)
        };
        self.file = write().map_err(DataError::io("write", &part))?;
        std::fs::rename(&part, &self.path).map_err(DataError::io("write", &self.path))
    }

    /// Removes the journal.
    pub(crate) fn remove(self) -> Result<(), DataError> {
        std::fs::remove_file(&self.path).map_err(DataError::io("remove", &self.path))
    }
}

fn line_of(entry: &impl Serialize) -> String {
    let json = serde_json::to_string(entry).expect("entries are made of JSON's own types and finite numbers");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

fn parse<E: DeserializeOwned>(line: &[u8]) -> Option<E> {
    let (digits, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let crc = u32::from_str_radix(digits, 16).ok()?;
    if crc != crc32fast::hash(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}
