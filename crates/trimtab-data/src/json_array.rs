//! The elements of one JSON array as texts, one at a time: a file of a hundred MB on one line is no row. Knows brackets
//! and quotes, no values; whether an element is right JSON is for its parser to say.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::DataError;

/// Longest element, in bytes, as for lines.
const MAX_ELEMENT_BYTES: usize = 64 << 20;

/// The elements of an array, numbered from 1.
pub(crate) struct JsonElements {
    source: Box<dyn BufRead + Send>,
    path: PathBuf,
    number: u64,
    is_over: bool,
}

/// Where in an element the scanner is.
#[derive(Default)]
struct Scan {
    depth: usize,
    is_in_text: bool,
    is_escaped: bool,
}

impl Scan {
    /// Takes in one byte; whether the element ends before it.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.is_in_text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_text = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b',' | b']' if self.depth == 0 => return true,
            b'"' => self.is_in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

/// Whether a source begins with an array, as far as its buffer shows.
pub(crate) fn is_array(source: &mut dyn BufRead) -> std::io::Result<bool> {
    let buffer = source.fill_buf()?;
    let buffer = buffer.strip_prefix("\u{feff}".as_bytes()).unwrap_or(buffer);
    Ok(buffer.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['))
}

impl JsonElements {
    /// The elements of a source of which [`is_array`] holds; `path` is for messages.
    pub(crate) fn of(mut source: Box<dyn BufRead + Send>, path: &Path) -> Result<Self, DataError> {
        let mut opening = Vec::new();
        source
            .read_until(b'[', &mut opening)
            .map_err(DataError::io("read", path))?;
        Ok(Self {
            source,
            path: path.to_owned(),
            number: 0,
            is_over: false,
        })
    }

    fn next_element(&mut self) -> Result<Option<(u64, String)>, DataError> {
        let mut element = Vec::new();
        let mut scan = Scan::default();
        let end = loop {
            let damaged = |problem: String| DataError::Damaged {
                path: self.path.clone(),
                problem: format!("{problem} after element {} of its array", self.number),
            };
            let buffer = self.source.fill_buf();
            let buffer = buffer.map_err(|cause| damaged(format!("cannot be read ({cause})")))?;
            if buffer.is_empty() {
                return Err(damaged("is cut off".to_owned()));
            }
            let place = buffer.iter().position(|&byte| scan.ends_before(byte));
            element.extend_from_slice(&buffer[..place.unwrap_or(buffer.len())]);
            let (taken, end) = match place {
                Some(place) => (place + 1, Some(buffer[place])),
                None => (buffer.len(), None),
            };
            self.source.consume(taken);
            if element.len() > MAX_ELEMENT_BYTES {
                return Err(damaged(format!(
                    "has more than {MAX_ELEMENT_BYTES} bytes in one element"
                )));
            }
            if let Some(end) = end {
                break end;
            }
        };
        self.is_over = end == b']';
        self.number += 1;
        let text = String::from_utf8(element).map_err(|error| DataError::Row {
            path: self.path.clone(),
            row: self.number,
            column: "line".to_owned(),
            problem: format!(
                "expected UTF-8, got other bytes from byte {} of the element",
                error.utf8_error().valid_up_to()
            ),
        })?;
        // An array of none, or a comma behind the last.
        if self.is_over && text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some((self.number, text)))
    }
}

impl Iterator for JsonElements {
    /// An element with its number.
    type Item = Result<(u64, String), DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let element = self.next_element();
        self.is_over |= !matches!(element, Ok(Some(_)));
        element.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn elements(text: &str, buffer_len: usize) -> Vec<Result<(u64, String), String>> {
        let source = std::io::Cursor::new(text.as_bytes().to_vec());
        let mut source: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(buffer_len, source));
        assert!(is_array(source.as_mut()).unwrap());
        let elements = JsonElements::of(source, Path::new("a.json")).unwrap();
        elements
            .map(|element| element.map_err(|error| error.to_string()))
            .collect()
    }

    #[test]
    fn elements_end_at_commas_outside_of_everything() {
        let check = |text: &str, expect: &[&str]| {
            for buffer_len in [1, 3, 4096] {
                let got: Vec<String> = elements(text, buffer_len)
                    .into_iter()
                    .map(|element| element.unwrap().1.trim().to_owned())
                    .collect();
                // A first look needs the bracket in the buffer.
                assert_eq!(got, expect, "{text:?} by {buffer_len}");
            }
        };
        check("[]", &[]);
        check("[{\"a\": 1}]", &["{\"a\": 1}"]);
        check(
            r#"[{"a": "]},\"{"}, {"b": [1, {"c": 2}]},3]"#,
            &[r#"{"a": "]},\"{"}"#, r#"{"b": [1, {"c": 2}]}"#, "3"],
        );
        check("[\n{\"é\": \"\\\\\"},\n{}\n]\n", &["{\"é\": \"\\\\\"}", "{}"]);
    }

    #[test]
    fn arrays_that_are_cut_off_are_named() {
        for text in ["[", "[{\"a\": 1}", "[{\"a\": 1},", "[{\"a\": \"]"] {
            let last = elements(text, 4096).pop().unwrap();
            assert!(last.unwrap_err().contains("a.json: is cut off"), "{text}");
        }
    }

    #[test]
    fn lines_are_no_array() {
        for text in ["", "  ", "{\"a\": [1]}\n[2]"] {
            assert!(!is_array(&mut text.as_bytes()).unwrap(), "{text:?}");
        }
    }
}
