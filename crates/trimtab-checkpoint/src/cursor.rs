//! Reading little-endian fields in order, each checked against the bytes left. Knows no format's meaning.

use std::fmt::Display;
use std::ops::Range;

use crate::error::{FormatError, shown};

/// A position in the bytes of a file. Field names are formatted only when an error needs them.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The range of the next `len` bytes, which are then behind the cursor.
    pub(crate) fn skip(&mut self, field: &dyn Display, len: u64) -> Result<Range<usize>, FormatError> {
        if len > self.left() as u64 {
            return Err(FormatError::Truncated {
                field: field.to_string(),
                offset: self.offset as u64,
                needed: len,
                left: self.left() as u64,
            });
        }
        let start = self.offset;
        self.offset += len as usize;
        Ok(start..self.offset)
    }

    fn array<const N: usize>(&mut self, field: &dyn Display) -> Result<[u8; N], FormatError> {
        let range = self.skip(field, N as u64)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[range]);
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self, field: &dyn Display) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &dyn Display) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &dyn Display) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn i32(&mut self, field: &dyn Display) -> Result<i32, FormatError> {
        Ok(i32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &dyn Display) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn f32(&mut self, field: &dyn Display) -> Result<f32, FormatError> {
        Ok(f32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn f64(&mut self, field: &dyn Display) -> Result<f64, FormatError> {
        Ok(f64::from_le_bytes(self.array(field)?))
    }

    /// `count` as a number of entries of at least `min_bytes` each, all of which must fit into what is left.
    pub(crate) fn bounded(
        &self,
        field: &dyn Display,
        count: u64,
        min_bytes: usize,
    ) -> Result<usize, FormatError> {
        let limit = (self.left() / min_bytes) as u64;
        if count > limit {
            return Err(FormatError::CountTooLarge {
                field: field.to_string(),
                count,
                left: self.left() as u64,
                limit,
            });
        }
        Ok(count as usize)
    }

    /// A GGUF string: its length in 8 bytes, then UTF-8. Returns the text and where it lies.
    pub(crate) fn text(&mut self, field: &dyn Display) -> Result<(&'a str, Range<usize>), FormatError> {
        let range = self.text_range(field)?;
        let text = utf8(field, &self.bytes[range.clone()])?;
        Ok((text, range))
    }

    /// As [`Self::text`], without looking at the bytes.
    pub(crate) fn text_range(&mut self, field: &dyn Display) -> Result<Range<usize>, FormatError> {
        let len = self.u64(&format_args!("length of {field}"))?;
        self.skip(field, len)
    }
}

/// `bytes` as text, or an error that shows them.
pub(crate) fn utf8<'a>(field: &dyn Display, bytes: &'a [u8]) -> Result<&'a str, FormatError> {
    std::str::from_utf8(bytes)
        .map_err(|_| FormatError::bad(field, shown(&String::from_utf8_lossy(bytes)), "UTF-8 text"))
}
