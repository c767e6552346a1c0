//! Checkpoints: the files that trained weights come in, as named tensors whose rows can be read as `f32`.
//!
//! Three formats are read, all memory-mapped: GGUF (versions 2 and 3), safetensors with the model hub's
//! `config.json`, and the legacy float files of llama2.c. The key decision is that a file is **hostile until
//! checked**: opening it parses every header, length, offset and count against the bytes that are really there, and
//! what comes out holds only ranges inside the file. No number of the file becomes an allocation before it has been
//! bounded by the bytes left, so that a file of a kilobyte cannot ask for a gigabyte; after that, reading rows cannot
//! fail. Each refusal is a [`FormatError`] that names the field and its value, and [`CheckpointError`] adds the file.
//!
//! Two of them are written as well, GGUF and safetensors, in F32, F16 or BF16 and row by row.
//!
//! Parsing and dequantising are this crate's own code. GGUF has no small library with both, and the `safetensors`
//! crate reports neither the tensor nor the value at fault and keeps the last of two tensors with one name; it
//! serves here as the independent writer that the tests read from. Its own writer wants all data at once.
//!
//! This crate never names a model, a role of a tensor or a token: which tensors make up a decoder is
//! `trimtab-model`'s business, and what the vocabulary in the metadata means is `trimtab-tokenizer`'s.

mod checkpoint;
mod cursor;
mod dequant;
mod dtype;
mod error;
mod gguf;
mod llama2c;
mod llama2c_tokenizer;
mod metadata;
mod safetensors;
mod storage;
mod tensor;
mod write;

pub use checkpoint::{Checkpoint, Format};
pub use dequant::dequantise;
pub use dtype::Dtype;
pub use error::{CheckpointError, FormatError};
pub use llama2c::Llama2cHeader;
pub use llama2c_tokenizer::{parse_llama2c_tokenizer, read_llama2c_tokenizer};
pub use metadata::Metadata;
pub use safetensors::parse_safetensors_index;
pub use tensor::Tensor;
pub use write::{
    DEFAULT_SHARD_BYTES, FileOut, GgufEntries, NewTensor, TensorRows, WriteError, copy_hub_files,
    copy_present, write_gguf, write_safetensors, write_safetensors_folder, write_whole,
};
