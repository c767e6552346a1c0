//! GGUF version 3: metadata entries, the table of tensors, their data. Knows no keys' meaning but `general.alignment`.

use super::{FileOut, NewTensor, TensorRows, WriteError, write_data};
use crate::metadata::Metadata;

const VERSION: u32 = 3;
/// Alignment of tensor data where the metadata name none.
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// Numbers of the kinds of values.
mod kind {
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const TEXT: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
}

/// Metadata of a file that is made, in the order in which they were added. A key must be added once only.
#[derive(Debug, Clone)]
pub struct GgufEntries {
    count: u64,
    bytes: Vec<u8>,
    alignment: u64,
}

impl Default for GgufEntries {
    fn default() -> Self {
        Self {
            count: 0,
            bytes: Vec::new(),
            alignment: DEFAULT_ALIGNMENT,
        }
    }
}

impl GgufEntries {
    /// All entries of another file, byte for byte and in their order, but for those called `without`.
    pub fn copied(metadata: &Metadata<'_>, without: &[&str]) -> Self {
        let mut entries = Self::default();
        for (key, bytes) in metadata.stored() {
            if without.contains(&key) {
                continue;
            }
            entries.count += 1;
            entries.bytes.extend(bytes);
        }
        // Opening the file has checked that this is a number, and which.
        let alignment = metadata.u64(ALIGNMENT_KEY).ok().flatten();
        entries.alignment = alignment.unwrap_or(DEFAULT_ALIGNMENT);
        entries
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.start(key, kind::TEXT);
        self.push_text(value);
    }

    /// Adds an unsigned number.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.start(key, kind::U32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds a float.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.start(key, kind::F32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds a boolean.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.start(key, kind::BOOL);
        self.bytes.push(u8::from(value));
    }

    /// Adds an array of texts.
    pub fn texts<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        self.start_array(key, kind::TEXT, values.len());
        for value in values {
            self.push_text(value.as_ref());
        }
    }

    /// Adds an array of floats.
    pub fn f32s(&mut self, key: &str, values: &[f32]) {
        self.start_array(key, kind::F32, values.len());
        self.bytes
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Adds an array of signed numbers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        self.start_array(key, kind::I32, values.len());
        self.bytes
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Adds an array of booleans.
    pub fn bools(&mut self, key: &str, values: &[bool]) {
        self.start_array(key, kind::BOOL, values.len());
        self.bytes.extend(values.iter().map(|&value| u8::from(value)));
    }

    fn start(&mut self, key: &str, kind: u32) {
        self.count += 1;
        self.push_text(key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn start_array(&mut self, key: &str, kind: u32, len: usize) {
        self.start(key, kind::ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
    }

    fn push_text(&mut self, text: &str) {
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }
}

/// Writes a whole file.
///
/// # Errors
/// The system's; a number that its type cannot hold.
pub fn write_gguf(
    entries: &GgufEntries,
    tensors: &[NewTensor],
    rows: &dyn TensorRows,
    out: &mut FileOut<'_>,
) -> Result<(), WriteError> {
    let alignment = entries.alignment;
    let mut start = crate::gguf::MAGIC.to_vec();
    start.extend(VERSION.to_le_bytes());
    start.extend((tensors.len() as u64).to_le_bytes());
    start.extend(entries.count.to_le_bytes());
    start.extend(&entries.bytes);
    let mut offset = 0;
    for tensor in tensors {
        start.extend((tensor.name.len() as u64).to_le_bytes());
        start.extend(tensor.name.as_bytes());
        start.extend((tensor.shape.len() as u32).to_le_bytes());
        // The innermost axis comes first.
        for &len in tensor.shape.iter().rev() {
            start.extend((len as u64).to_le_bytes());
        }
        start.extend(tensor.dtype.gguf_id().to_le_bytes());
        start.extend(u64::to_le_bytes(offset));
        offset += tensor.size_bytes().next_multiple_of(alignment);
    }
    out.write(&start)?;
    pad(start.len() as u64, alignment, out)?;
    for (idx, tensor) in tensors.iter().enumerate() {
        write_data(tensor, (idx, rows), out)?;
        pad(tensor.size_bytes(), alignment, out)?;
    }
    Ok(())
}

fn pad(written: u64, alignment: u64, out: &mut FileOut<'_>) -> Result<(), WriteError> {
    const ZEROS: [u8; 256] = [0; 256];
    let mut left = written.next_multiple_of(alignment) - written;
    while left > 0 {
        let len = left.min(ZEROS.len() as u64);
        out.write(&ZEROS[..len as usize])?;
        left -= len;
    }
    Ok(())
}
