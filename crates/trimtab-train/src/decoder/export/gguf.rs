//! A GGUF file: the base's metadata byte for byte (configuration, tokenizer and chat template), new tensors in f32.
//!
//! Knows the layout of metadata only as far as it takes to find their end; the checkpoint reader has checked them.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use super::{Entry, ModelWriter};

/// Divisors of rotary frequencies, which belong to the configuration but are stored as a tensor.
const ROPE_DIVISORS: &str = "rope_freqs.weight";
/// Sizes of the fixed-size kinds of metadata, by their number; 8 is text, 9 an array.
const KIND_BYTES: [u64; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const TEXT: usize = 8;
const ARRAY: usize = 9;
/// Alignment of tensors unless the metadata say otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// What is taken over from the base.
pub(super) struct Head {
    version: u32,
    num_values: u64,
    /// All entries, as stored.
    metadata: Vec<u8>,
}

impl Head {
    /// Reads the part of `path` before its tensors.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut input = Recorder {
            inner: BufReader::new(File::open(path)?),
            recorded: Vec::new(),
        };
        let _magic = input.u32()?;
        let version = input.u32()?;
        let _num_tensors = input.u64()?;
        let num_values = input.u64()?;
        input.recorded.clear();
        for _ in 0..num_values {
            input.skip_text()?;
            let kind = input.u32()?;
            input.skip_value(kind)?;
        }
        Ok(Self {
            version,
            num_values,
            metadata: input.recorded,
        })
    }
}

/// Reads and keeps what was read.
struct Recorder<R> {
    inner: R,
    recorded: Vec<u8>,
}

impl<R: Read> Recorder<R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.recorded.extend(bytes);
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        let copied = io::copy(&mut self.inner.by_ref().take(len), &mut self.recorded)?;
        if copied == len {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn skip_text(&mut self) -> io::Result<()> {
        let len = self.u64()?;
        self.skip(len)
    }

    fn skip_value(&mut self, kind: u32) -> io::Result<()> {
        match kind as usize {
            TEXT => self.skip_text(),
            ARRAY => {
                let kind = self.u32()?;
                let len = self.u64()?;
                if kind as usize == TEXT {
                    return (0..len).try_for_each(|_| self.skip_text());
                }
                self.skip(len.saturating_mul(kind_bytes(kind)?))
            }
            _ => self.skip(kind_bytes(kind)?),
        }
    }
}

fn kind_bytes(kind: u32) -> io::Result<u64> {
    match KIND_BYTES.get(kind as usize) {
        Some(&bytes) if bytes > 0 => Ok(bytes),
        _ => Err(io::Error::other(format!(
            "metadata of kind {kind} cannot be copied"
        ))),
    }
}

/// Writes the whole file.
pub(super) fn write(model: &ModelWriter<'_>, head: &Head, out: &mut dyn Write) -> io::Result<()> {
    let alignment = alignment(model)?;
    let entries = model.entries()?;
    let divisors = rope_divisors(model);
    let divisors_shape = divisors.as_ref().map(|values| vec![values.len()]);
    let tensors: Vec<(&str, &[usize])> = entries
        .iter()
        .map(|entry: &Entry| (entry.name.as_str(), entry.shape.as_slice()))
        .chain(divisors_shape.as_deref().map(|shape| (ROPE_DIVISORS, shape)))
        .collect();
    let mut start = b"GGUF".to_vec();
    start.extend(head.version.to_le_bytes());
    start.extend((tensors.len() as u64).to_le_bytes());
    start.extend(head.num_values.to_le_bytes());
    start.extend(&head.metadata);
    let mut offset = 0;
    for (name, shape) in tensors {
        start.extend((name.len() as u64).to_le_bytes());
        start.extend(name.as_bytes());
        start.extend((shape.len() as u32).to_le_bytes());
        for &len in shape.iter().rev() {
            start.extend((len as u64).to_le_bytes());
        }
        // Type 0 is F32.
        start.extend(0_u32.to_le_bytes());
        start.extend(u64::to_le_bytes(offset));
        let size = 4 * shape.iter().map(|&len| len as u64).product::<u64>();
        offset += size.next_multiple_of(alignment);
    }
    out.write_all(&start)?;
    pad(start.len() as u64, alignment, out)?;
    for entry in &entries {
        model.write_values(entry, out)?;
        pad(entry.size_bytes(), alignment, out)?;
    }
    if let Some(values) = divisors {
        for value in &values {
            out.write_all(&value.to_le_bytes())?;
        }
        pad(4 * values.len() as u64, alignment, out)?;
    }
    Ok(())
}

fn rope_divisors(model: &ModelWriter<'_>) -> Option<Vec<f32>> {
    let tensor = model.base.checkpoint().tensor(ROPE_DIVISORS).ok()?;
    let mut values = vec![0.0; tensor.shape().iter().product()];
    tensor.read_row(0, &mut values);
    Some(values)
}

/// As the metadata, which are taken over, say.
fn alignment(model: &ModelWriter<'_>) -> io::Result<u64> {
    let Some(metadata) = model.base.checkpoint().metadata() else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let stored = metadata.u64("general.alignment").map_err(io::Error::other)?;
    Ok(stored.unwrap_or(DEFAULT_ALIGNMENT))
}

fn pad(written: u64, alignment: u64, out: &mut dyn Write) -> io::Result<()> {
    let len = written.next_multiple_of(alignment) - written;
    io::copy(&mut io::repeat(0).take(len), out).map(drop)
}
