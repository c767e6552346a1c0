//! Lines of text files, plain, gzip or zstd, one at a time. Knows no meaning of a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::DataError;

/// Longest line that is read, in bytes: a compressed file of a few kB can hold one that fills any memory.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// How a text file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// As it is.
    Plain,
    /// gzip, also several members.
    Gzip,
    /// zstd, also several frames.
    Zstd,
}

/// Opens a file as text.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn open_text(path: &Path, packing: Packing) -> Result<Box<dyn BufRead + Send>, DataError> {
    let file = File::open(path).map_err(DataError::io("read", path))?;
    Ok(match packing {
        Packing::Plain => Box::new(BufReader::new(file)),
        Packing::Gzip => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::new(file),
        ))),
        Packing::Zstd => {
            let decoder = zstd::Decoder::new(file).map_err(DataError::io("read", path))?;
            Box::new(BufReader::new(decoder))
        }
    })
}

/// The lines of a file, numbered from 1.
pub(crate) struct TextLines {
    source: Box<dyn BufRead + Send>,
    path: PathBuf,
    number: u64,
    is_over: bool,
}

impl TextLines {
    /// The lines of a source; `path` is for messages.
    pub(crate) fn of(source: Box<dyn BufRead + Send>, path: &Path) -> Self {
        Self {
            source,
            path: path.to_owned(),
            number: 0,
            is_over: false,
        }
    }

    fn next_line(&mut self) -> Result<Option<(u64, String)>, DataError> {
        let mut bytes = Vec::new();
        let mut limited = self.source.by_ref().take(MAX_LINE_BYTES);
        let read = limited
            .read_until(b'\n', &mut bytes)
            .map_err(|cause| DataError::Damaged {
                path: self.path.clone(),
                problem: format!("cannot be read after line {}: {cause}", self.number),
            })?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let bad = |problem: String| DataError::Row {
            path: self.path.clone(),
            row: self.number,
            column: "line".to_owned(),
            problem,
        };
        if read as u64 == MAX_LINE_BYTES && bytes.last() != Some(&b'\n') {
            return Err(bad(format!("expected at most {MAX_LINE_BYTES} bytes")));
        }
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let place = error.utf8_error().valid_up_to();
            bad(format!(
                "expected UTF-8, got other bytes from byte {place} of the line"
            ))
        })?;
        if self.number == 1
            && let Some(rest) = text.strip_prefix('\u{feff}')
        {
            text = rest.to_owned();
        }
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        Ok(Some((self.number, text)))
    }
}

impl Iterator for TextLines {
    /// A line with its number.
    type Item = Result<(u64, String), DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let line = self.next_line();
        self.is_over = !matches!(line, Ok(Some(_)));
        line.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Numbered lines without end, which counts what has been taken from it.
    struct Endless {
        taken: Arc<AtomicUsize>,
        number: usize,
        line: Vec<u8>,
    }

    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.line.is_empty() {
                self.number += 1;
                self.line = format!("line {}\n", self.number).into_bytes();
            }
            let len = self.line.len().min(into.len());
            into[..len].copy_from_slice(&self.line[..len]);
            self.line.drain(..len);
            self.taken.fetch_add(len, Ordering::Relaxed);
            Ok(len)
        }
    }

    #[test]
    fn no_more_is_read_ahead_than_a_buffer() {
        let taken = Arc::new(AtomicUsize::new(0));
        let source = Endless {
            taken: Arc::clone(&taken),
            number: 0,
            line: Vec::new(),
        };
        let mut lines = TextLines::of(Box::new(BufReader::new(source)), Path::new("endless"));
        let mut given = 0;
        for number in 1..=100_000 {
            let line = lines.next().unwrap().unwrap();
            assert_eq!(line, (number, format!("line {number}")));
            given += line.1.len() + 1;
            assert!(taken.load(Ordering::Relaxed) - given <= 8192);
        }
    }
}
