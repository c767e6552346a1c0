//! Files of weights that are made: tensors as rows of `f32`, encoded as they are written, one file or shards.
//!
//! A writer is the reader's inverse and knows as little: names, shapes and element types, not what a tensor is for. Numbers
//! are asked for row by row, since a model may not fit memory twice. A file has its name only when it is whole.

mod gguf;
mod safetensors;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use thiserror::Error;

use crate::dtype::Dtype;
use crate::error::shown;

pub use gguf::{GgufEntries, write_gguf};
pub use safetensors::{DEFAULT_SHARD_BYTES, write_safetensors, write_safetensors_folder};

/// Files of a hub folder, other than the weights, that a tokenizer or a configuration reads.
const HUB_FILES: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    // Older forms of the vocabulary, which other programs read.
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// Why a file of weights could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The system refused.
    #[error("cannot write {}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// A number that the element type has no value near.
    #[error(
        "tensor {}: {dtype} cannot hold {value}, its largest number is {max}; write BF16 or F32",
        shown(tensor)
    )]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// The number.
        value: f32,
        /// The type asked for.
        dtype: Dtype,
        /// Largest number of that type.
        max: f32,
    },
    /// An element type that is only read.
    #[error("tensor {}: expected F32, F16 or BF16 to write, got {dtype}", shown(tensor))]
    ReadOnlyDtype {
        /// The tensor.
        tensor: String,
        /// The type asked for.
        dtype: Dtype,
    },
}

/// A tensor of a file that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// Name in the file.
    pub name: String,
    /// Lengths of the axes, outermost first.
    pub shape: Vec<usize>,
    /// How its elements are stored: F32, F16 or BF16.
    pub dtype: Dtype,
}

impl NewTensor {
    /// Bytes of its data.
    pub fn size_bytes(&self) -> u64 {
        let len: u64 = self.shape.iter().map(|&len| len as u64).product();
        len * self.dtype.block_bytes() as u64
    }

    fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn num_rows(&self) -> usize {
        self.shape
            .split_last()
            .map_or(1, |(_, outer)| outer.iter().product())
    }
}

/// The numbers of the tensors of a file that is made.
pub trait TensorRows {
    /// Writes row `row` of tensor `tensor_idx` to `out`, which has the row's length.
    fn read_row(&self, tensor_idx: usize, row: usize, out: &mut [f32]);

    /// Says that a tensor will not be read again.
    fn release(&self, _tensor_idx: usize) {}
}

/// Writes the data of tensor `tensor_idx`, rounding to nearest even where its type has fewer bits.
fn write_data(
    tensor: &NewTensor,
    (tensor_idx, rows): (usize, &dyn TensorRows),
    out: &mut FileOut<'_>,
) -> Result<(), WriteError> {
    let mut row = vec![0.0; tensor.row_len()];
    let mut bytes = Vec::with_capacity(row.len() * tensor.dtype.block_bytes());
    for row_idx in 0..tensor.num_rows() {
        rows.read_row(tensor_idx, row_idx, &mut row);
        bytes.clear();
        encode(tensor, &row, &mut bytes)?;
        out.write(&bytes)?;
    }
    rows.release(tensor_idx);
    Ok(())
}

fn encode(tensor: &NewTensor, row: &[f32], bytes: &mut Vec<u8>) -> Result<(), WriteError> {
    match tensor.dtype {
        Dtype::F32 => bytes.extend(row.iter().flat_map(|value| value.to_le_bytes())),
        Dtype::F16 => {
            for &value in row {
                let rounded = f16::from_f32(value);
                // A weight that is not finite already says so itself; one that becomes so would be damage done here.
                check_range(tensor, value, rounded.is_infinite(), f16::MAX.to_f32())?;
                bytes.extend(rounded.to_le_bytes());
            }
        }
        Dtype::Bf16 => {
            for &value in row {
                let rounded = bf16::from_f32(value);
                check_range(tensor, value, rounded.is_infinite(), bf16::MAX.to_f32())?;
                bytes.extend(rounded.to_le_bytes());
            }
        }
        dtype => {
            return Err(WriteError::ReadOnlyDtype {
                tensor: tensor.name.clone(),
                dtype,
            });
        }
    }
    Ok(())
}

fn check_range(tensor: &NewTensor, value: f32, became_infinite: bool, max: f32) -> Result<(), WriteError> {
    if became_infinite && value.is_finite() {
        return Err(WriteError::OutOfRange {
            tensor: tensor.name.clone(),
            value,
            dtype: tensor.dtype,
            max,
        });
    }
    Ok(())
}

/// A file that is being written.
pub struct FileOut<'a> {
    path: &'a Path,
    file: BufWriter<File>,
}

impl FileOut<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(at(self.path))
    }
}

/// Makes the file at `path` under another name, which it loses when `write` is done and its bytes are on the disk.
///
/// # Errors
/// The system's, and those of `write`; then there is no file of either name that was not there before.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut FileOut<'_>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".partial");
    let temporary = PathBuf::from(temporary);
    let attempt = || {
        let file = File::create(&temporary).map_err(at(path))?;
        let mut out = FileOut {
            path,
            file: BufWriter::with_capacity(1 << 20, file),
        };
        write(&mut out)?;
        let file = out
            .file
            .into_inner()
            .map_err(|error| at(path)(error.into_error()))?;
        file.sync_all().map_err(at(path))?;
        fs::rename(&temporary, path).map_err(at(path))
    };
    let written = attempt();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Copies the files beside the weights of a hub folder, those that are there: configuration, tokenizer, chat template.
///
/// # Errors
/// The system's.
pub fn copy_hub_files(from: &Path, to: &Path) -> Result<(), WriteError> {
    copy_present(from, to, &HUB_FILES)
}

/// Copies the files of these names, those that are there.
///
/// # Errors
/// The system's.
pub fn copy_present<S: AsRef<Path>>(from: &Path, to: &Path, names: &[S]) -> Result<(), WriteError> {
    for name in names {
        let (source, target) = (from.join(name), to.join(name));
        if source.is_file() {
            fs::copy(&source, &target).map_err(at(&target))?;
        }
    }
    Ok(())
}

fn at(path: &Path) -> impl Fn(io::Error) -> WriteError {
    move |cause| WriteError::Io {
        path: path.to_owned(),
        cause,
    }
}
