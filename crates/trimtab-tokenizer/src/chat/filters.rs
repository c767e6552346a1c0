//! The functions and filters that chat templates expect besides Jinja's own. Knows no template.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::strtime;
use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// The template called `raise_exception`.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// `raise_exception(message)`: the template's own way of refusing a conversation.
pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refusal(message)))
}

/// `strftime_now(format)`.
pub(super) fn strftime(now: SystemTime, format: &str) -> Result<String, Error> {
    let invalid = |error: jiff::Error| Error::new(ErrorKind::InvalidOperation, error.to_string());
    let now = Timestamp::try_from(now).map_err(invalid)?;
    strtime::format(format, now).map_err(invalid)
}

/// `tojson(indent=..., ensure_ascii=...)` as Python's `json.dumps` prints it, without HTML escapes.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the engine hands over arguments by value"
)]
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let ensure_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = vec![b' '; width.min(MAX_INDENT)];
            value.serialize(&mut Serializer::with_formatter(
                &mut json,
                PrettyFormatter::with_indent(&indent),
            ))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut json, SpacedFormatter)),
    };
    let json = written.map(|()| String::from_utf8_lossy(&json).into_owned());
    let json = json.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(if ensure_ascii == Some(true) {
        escape_non_ascii(&json)
    } else {
        json
    }))
}

/// Widest indent that is printed, so that a template cannot ask for memory through it.
const MAX_INDENT: usize = 16;

/// One line with a space after each comma and colon.
struct SpacedFormatter;

impl Formatter for SpacedFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// JSON text with every character above ASCII as `\uXXXX` units of UTF-16.
fn escape_non_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for ch in json.chars() {
        if ch.is_ascii() {
            out.push(ch);
        } else {
            for unit in ch.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
            }
        }
    }
    out
}
