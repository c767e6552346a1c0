//! Append-only journal of finished work, so that a killed run goes on where it stopped. Knows lines, not their meaning.
//!
//! Each line is `<8 hex digits> <json>`: the digits are the CRC-32 of the JSON. A kill in the middle of a write leaves
//! a last line without its end; it is cut off when the journal is opened again. Any other damage is an error, since
//! silently dropping finished work would change results.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A journal open for appending.
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens or creates the journal at `path` and returns it with the entries already there.
    ///
    /// `header` describes the run; a journal of another run is refused rather than mixed in.
    pub(crate) fn open<H, E>(path: &Path, header: &H) -> Result<(Self, Vec<E>)>
    where
        H: Serialize + DeserializeOwned + PartialEq,
        E: DeserializeOwned,
    {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot open the journal {}", path.display()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .with_context(|| format!("cannot read the journal {}", path.display()))?;
        let whole = bytes
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        file.set_len(whole as u64)
            .with_context(|| format!("cannot repair the journal {}", path.display()))?;
        let mut journal = Self {
            file,
            path: path.to_owned(),
        };
        let mut lines = bytes[..whole]
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .enumerate();
        match lines.next() {
            None => journal.append(header)?,
            Some((number, line)) => {
                let stored: H = journal.parse(number, line)?;
                if stored != *header {
                    bail!(
                        "{} holds another run (configuration, seed or weights differ); \
                         choose another --out or remove that folder",
                        path.display()
                    );
                }
            }
        }
        let entries = lines
            .map(|(number, line)| journal.parse(number, line))
            .collect::<Result<_>>()?;
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

    fn parse<T: DeserializeOwned>(&self, number: usize, line: &[u8]) -> Result<T> {
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
                "{} line {} is damaged; remove the file to start again",
                self.path.display(),
                number + 1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let refused = open(&path, 2).err().expect("another header").to_string();
        assert!(refused.contains("another run"), "{refused}");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let damaged = open(&path, 1).err().expect("damage").to_string();
        assert!(damaged.contains("line 2 is damaged"), "{damaged}");
    }
}
