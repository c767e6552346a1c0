//! Append-only journal of finished work, so that a killed run goes on where it stopped. Knows lines, not their meaning.
//!
//! Each line is `<8 hex digits> <json>`: the digits are the CRC-32 of the JSON. A kill in the middle of a write leaves
//! a last line without its end; it is cut off when the journal is opened again. Any other damage is an error, since
//! silently dropping finished work would change results. One process at a time writes a journal: it holds a lock on the
//! file, which ends with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The first line of a journal: which run it holds.
pub(crate) trait RunHeader: Serialize {
    /// How a stored header differs from this one, part by part; empty if both are of one run.
    fn differences(&self, stored: &Value) -> Vec<String>;
}

/// What a journal holds, as far as telling runs apart needs it.
#[derive(Debug)]
pub(crate) struct StoredRun {
    /// Its first line.
    pub(crate) header: Value,
    /// Whether it has finished work.
    pub(crate) has_entries: bool,
}

/// A journal open for appending, and locked.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// What lies at `path`, without touching it; `None` if there is no journal or an empty one.
    ///
    /// # Errors
    /// A file that cannot be read or whose first line is damaged.
    pub(crate) fn look(path: &Path) -> Result<Option<StoredRun>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read the journal {}", path.display()));
            }
        };
        let lines = whole_lines(&bytes);
        let Some((first, entries)) = lines.split_first() else {
            return Ok(None);
        };
        Ok(Some(StoredRun {
            header: parse(path, 1, first)?,
            has_entries: !entries.is_empty(),
        }))
    }

    /// Opens or creates the journal at `path`, locks it, and returns it with the entries already there, whose lines
    /// begin with the second.
    ///
    /// `header` describes the run. A journal with finished work of another run is refused rather than mixed in; one
    /// that holds nothing but its header is begun anew.
    ///
    /// # Errors
    /// Another run's journal, one that another process has open, damage.
    pub(crate) fn open<E: DeserializeOwned>(path: &Path, header: &impl RunHeader) -> Result<(Self, Vec<E>)> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot open the journal {}", path.display()))?;
        lock(&file, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .with_context(|| format!("cannot read the journal {}", path.display()))?;
        let (mut kept_len, mut entries) = (0, Vec::new());
        if let Some((first, rest)) = whole_lines(&bytes).split_first() {
            let differences = header.differences(&parse(path, 1, first)?);
            if differences.is_empty() {
                let numbered = rest.iter().enumerate();
                let parsed = numbered.map(|(idx, line)| parse(path, idx + 2, line));
                entries = parsed.collect::<Result<_>>()?;
                kept_len = whole_len(&bytes);
            } else if !rest.is_empty() {
                return Err(another_run(path, &differences));
            }
        }
        file.set_len(kept_len as u64)
            .with_context(|| format!("cannot repair the journal {}", path.display()))?;
        let mut journal = Self {
            file,
            path: path.to_owned(),
        };
        if kept_len == 0 {
            journal.append(header)?;
        }
        Ok((journal, entries))
    }

    /// Writes one entry and makes it survive a kill.
    pub(crate) fn append(&mut self, entry: &impl Serialize) -> Result<()> {
        let json = serde_json::to_string(entry).context("cannot serialise a journal entry")?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.flush())
            .with_context(|| {
                format!(
                    "cannot write to the journal {}; what it holds is kept",
                    self.path.display()
                )
            })
    }
}

/// The error for a journal with finished work of another run.
pub(crate) fn another_run(path: &Path, differences: &[String]) -> anyhow::Error {
    anyhow::anyhow!(
        "{} holds another run ({}); choose another --out or remove that folder",
        path.display(),
        differences.join("; ")
    )
}

/// Keeps other processes from writing until the file is closed, which the end of the process does too.
fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let folder = path.parent().unwrap_or(path);
            bail!(
                "another run is using {}; wait for it or choose another --out",
                folder.display()
            )
        }
        // Some network file systems keep no locks; a run alone there is still right.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock the journal {}", path.display()))
        }
    }
}

/// Bytes up to the last line end; what follows is the rest of a write that was cut off.
fn whole_len(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |end| end + 1)
}

fn whole_lines(bytes: &[u8]) -> Vec<&[u8]> {
    match bytes[..whole_len(bytes)].strip_suffix(b"\n") {
        Some(text) => text.split(|&byte| byte == b'\n').collect(),
        None => Vec::new(),
    }
}

/// Reads one line, `number` counted from 1.
fn parse<T: DeserializeOwned>(path: &Path, number: usize, line: &[u8]) -> Result<T> {
    let parsed = || -> Option<T> {
        let (digits, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let crc = u32::from_str_radix(digits, 16).ok()?;
        if crc != crc32fast::hash(json.as_bytes()) {
            return None;
        }
        serde_json::from_str(json).ok()
    };
    parsed().with_context(|| {
        format!(
            "{} line {number} is damaged; remove the file to start again",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl RunHeader for u32 {
        fn differences(&self, stored: &Value) -> Vec<String> {
            (stored != self)
                .then(|| format!("number: {stored} there, {self} here"))
                .into_iter()
                .collect()
        }
    }

    fn open(path: &Path, header: u32) -> Result<(Journal, Vec<String>)> {
        Journal::open(path, &header)
    }

    #[test]
    fn entries_survive_and_a_torn_last_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, entries) = open(&path, 1).unwrap();
        assert!(entries.is_empty());
        journal.append(&"first").unwrap();
        journal.append(&"second").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        drop(journal);
        // Eight digits, a space, eight characters of JSON and the end of the line.
        for torn in 1..=18 {
            std::fs::write(&path, &bytes[..bytes.len() - torn]).unwrap();
            let (mut journal, entries) = open(&path, 1).unwrap();
            assert_eq!(entries, ["first"], "{torn} bytes torn off");
            journal.append(&"second").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn another_run_and_damage_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        open(&path, 1).unwrap().0.append(&"entry").unwrap();
        let torn = [std::fs::read(&path).unwrap(), b"0000".to_vec()].concat();
        std::fs::write(&path, &torn).unwrap();
        let refused = open(&path, 2).unwrap_err().to_string();
        assert!(
            refused.contains("another run (number: 1 there, 2 here)"),
            "{refused}"
        );
        assert_eq!(
            std::fs::read(&path).unwrap(),
            torn,
            "another run's journal is not repaired"
        );
        let mut bytes = torn[..torn.len() - 4].to_vec();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let damaged = open(&path, 1).unwrap_err().to_string();
        assert!(damaged.contains("line 2 is damaged"), "{damaged}");
    }

    #[test]
    fn a_run_that_finished_nothing_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        assert!(Journal::look(&path).unwrap().is_none());
        open(&path, 1).unwrap();
        let stored = Journal::look(&path).unwrap().expect("a header");
        assert_eq!((stored.header, stored.has_entries), (Value::from(1), false));
        open(&path, 2).unwrap().0.append(&"entry").unwrap();
        assert_eq!(open(&path, 2).unwrap().1, ["entry"]);
        assert!(Journal::look(&path).unwrap().expect("a run").has_entries);
    }

    #[test]
    fn two_writers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let first = open(&path, 1).unwrap();
        let refused = open(&path, 1).unwrap_err().to_string();
        assert!(refused.contains("another run is using"), "{refused}");
        drop(first);
        open(&path, 1).unwrap();
    }
}
