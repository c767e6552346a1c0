//! Typed access to GGUF metadata. Knows types and ranges, not what keys mean.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::cursor::{Cursor, utf8};
use crate::error::{CheckpointError, FormatError, shown};
use crate::storage::Storage;

/// Entries by key; texts and arrays stay in the file.
pub(crate) type MetadataTable = BTreeMap<String, Entry>;

/// A value, and where the whole entry lies: key, type and value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) bytes: Range<usize>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    /// An `f32` is kept exactly.
    Float(f64),
    Bool(bool),
    /// Bytes of the text, which are UTF-8.
    Text(Range<usize>),
    Array {
        element: Element,
        len: usize,
        /// Bytes of the elements.
        bytes: Range<usize>,
    },
}

/// Element type of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    U64,
    I64,
    F64,
}

impl Element {
    /// Type numbers of GGUF; arrays of arrays (9) are not read, no model has them.
    pub(crate) fn from_gguf(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of an element; of a text, those of its length.
    pub(crate) fn min_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::Text | Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

impl Value {
    /// Type and, where short, value, for messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Unsigned(value) => format!("the integer {value}"),
            Self::Signed(value) => format!("the integer {value}"),
            Self::Float(value) => format!("the float {value}"),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Text(_) => "a text".to_owned(),
            Self::Array { element, len, .. } => format!("an array of {len} {element:?}"),
        }
    }
}

/// The metadata of an open GGUF file. Every getter gives `None` for a key that is absent and an error that names the
/// key for a value of another type.
#[derive(Debug, Clone, Copy)]
pub struct Metadata<'a> {
    pub(crate) table: &'a MetadataTable,
    pub(crate) file: &'a Storage,
}

impl<'a> Metadata<'a> {
    /// Keys in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.table.keys().map(String::as_str)
    }

    /// Whether there is an entry for `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Keys and bytes of all entries as stored, in the file's order.
    pub(crate) fn stored(&self) -> Vec<(&'a str, &'a [u8])> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(_, entry)| entry.bytes.start);
        let bytes = |entry: &Entry| &self.file[entry.bytes.clone()];
        entries
            .into_iter()
            .map(|(key, entry)| (key.as_str(), bytes(entry)))
            .collect()
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.typed(key, "a text", |value| match value {
            Value::Text(bytes) => std::str::from_utf8(&self.file[bytes.clone()]).ok(),
            _ => None,
        })
    }

    /// An integer of any stored width that fits.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, CheckpointError> {
        self.typed(key, "an integer that fits u64", |value| {
            integer(value)?.try_into().ok()
        })
    }

    /// An integer of any stored width that fits.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, CheckpointError> {
        self.typed(key, "an integer that fits u32", |value| {
            integer(value)?.try_into().ok()
        })
    }

    /// An integer of any stored width that fits.
    pub fn i64(&self, key: &str) -> Result<Option<i64>, CheckpointError> {
        self.typed(key, "an integer that fits i64", |value| {
            integer(value)?.try_into().ok()
        })
    }

    /// A float; one stored as `f64` is rounded.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, CheckpointError> {
        Ok(self.f64(key)?.map(|value| value as f32))
    }

    /// A float.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.typed(key, "a float", |value| match value {
            Value::Float(value) => Some(*value),
            _ => None,
        })
    }

    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.typed(key, "a boolean", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// An array of texts, borrowed from the file.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, CheckpointError> {
        let Some((len, bytes)) = self.array(key, "an array of texts", &[Element::Text])? else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(bytes);
        let texts = (0..len).map(|idx| {
            let field = format_args!("element {idx} of metadata {}", shown(key));
            let range = cursor.text_range(&field)?;
            utf8(&field, &bytes[range])
        });
        let texts: Result<Vec<&str>, FormatError> = texts.collect();
        Ok(Some(texts.map_err(|problem| self.file.malformed(problem))?))
    }

    /// An array of `f32`.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, CheckpointError> {
        let found = self.array(key, "an array of f32", &[Element::F32])?;
        Ok(found.map(|(_, bytes)| {
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|value| f32::from_le_bytes(*value))
                .collect()
        }))
    }

    /// An array of 32-bit integers; both signs are stored in practice, and unsigned ones above `i32::MAX` wrap.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, CheckpointError> {
        let found = self.array(key, "an array of i32", &[Element::I32, Element::U32])?;
        Ok(found.map(|(_, bytes)| {
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|value| i32::from_le_bytes(*value))
                .collect()
        }))
    }

    /// An array of booleans; any byte but 0 is true.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>, CheckpointError> {
        let found = self.array(key, "an array of booleans", &[Element::Bool])?;
        Ok(found.map(|(_, bytes)| bytes.iter().map(|&value| value != 0).collect()))
    }

    /// Whether the entry of `key` is an array, of whatever elements.
    pub fn is_array(&self, key: &str) -> bool {
        let entry = self.table.get(key);
        matches!(
            entry,
            Some(Entry {
                value: Value::Array { .. },
                ..
            })
        )
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(Entry { value, .. }) = self.table.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(self.wrong_type(key, value, expected)),
        }
    }

    /// Length and bytes of an array with one of the element types `wanted`.
    fn array(
        &self,
        key: &str,
        expected: &'static str,
        wanted: &[Element],
    ) -> Result<Option<(usize, &'a [u8])>, CheckpointError> {
        self.typed(key, expected, |value| match value {
            Value::Array { element, len, bytes } if wanted.contains(element) => {
                Some((*len, &self.file[bytes.clone()]))
            }
            _ => None,
        })
    }

    fn wrong_type(&self, key: &str, value: &Value, expected: &'static str) -> CheckpointError {
        self.file.malformed(FormatError::WrongType {
            key: key.to_owned(),
            got: value.describe(),
            expected,
        })
    }
}

/// Any integer, without loss.
fn integer(value: &Value) -> Option<i128> {
    match *value {
        Value::Unsigned(value) => Some(i128::from(value)),
        Value::Signed(value) => Some(i128::from(value)),
        _ => None,
    }
}
