//! Writes a trained decoder as a model of its own, in the format of its base, which the engine opens like any other.
//!
//! Here the format stays because the tokenizer stays: a GGUF file carries it inside, so its metadata are copied as they
//! are; a hub folder and llama2.c's files have it beside them. Weights are written in f32. They come last and under a
//! temporary name, so that what opens is whole. Other formats are the runtime's, which knows tokenizers.

mod llama2c;

use std::fs;
use std::path::{Path, PathBuf};

use trimtab_checkpoint::{
    DEFAULT_SHARD_BYTES, Dtype, Format, GgufEntries, WriteError, copy_hub_files, copy_present, write_gguf,
    write_safetensors_folder, write_whole,
};
use trimtab_model::load::WeightSource;
use trimtab_model::to_gguf::file_type;
use trimtab_model::{FileTensors, ModelFile};

use super::error::DecoderError;

/// Divisors of rotary frequencies, which belong to the configuration but are stored as a tensor.
const ROPE_DIVISORS: &str = "rope_freqs.weight";
/// What the matrices were stored in, or how they were made: no longer true of new ones.
const GGUF_TYPE_KEYS: [&str; 2] = ["general.file_type", "general.quantization_version"];

/// Writes `weights` into `folder` as a model in the format of `base`, and returns what opens it: the entry `model` (a hub
/// folder), `model.gguf` or `model.bin` of `folder`.
///
/// # Errors
/// The file system's; a base that is not on disk.
pub fn write_model(
    base: &ModelFile,
    weights: &dyn WeightSource,
    folder: &Path,
) -> Result<PathBuf, DecoderError> {
    let checkpoint = base.checkpoint();
    let beside_base = parent_of(checkpoint.path());
    let tensors = FileTensors::new(base.config(), weights, checkpoint.format(), Dtype::F32)?;
    create(folder)?;
    match checkpoint.format() {
        Format::SafeTensors => {
            let path = folder.join("model");
            create(&path)?;
            copy_hub_files(beside_base, &path)?;
            write_safetensors_folder(&path, tensors.tensors(), DEFAULT_SHARD_BYTES, &tensors)?;
            Ok(path)
        }
        Format::Gguf => {
            let path = folder.join("model.gguf");
            let (entries, tensors) = as_base(base, tensors);
            write_whole(&path, |out| {
                write_gguf(&entries, tensors.tensors(), &tensors, out)
            })?;
            Ok(path)
        }
        Format::Llama2c => {
            let vocab_len = base.config().vocab_len;
            let names = ["tokenizer.bin".to_owned(), format!("tok{vocab_len}.bin")];
            copy_present(beside_base, folder, &names)?;
            let path = folder.join("model.bin");
            llama2c::write(&tensors, checkpoint.path(), &path)?;
            Ok(path)
        }
    }
}

/// The metadata of a GGUF base, and the tensors with its divisors: the metadata may ask for a factor on top of them.
fn as_base<'a>(base: &ModelFile, tensors: FileTensors<'a>) -> (GgufEntries, FileTensors<'a>) {
    let checkpoint = base.checkpoint();
    let mut entries = checkpoint
        .metadata()
        .map(|metadata| GgufEntries::copied(&metadata, &GGUF_TYPE_KEYS))
        .unwrap_or_default();
    entries.u32(GGUF_TYPE_KEYS[0], file_type(Dtype::F32));
    let Ok(tensor) = checkpoint.tensor(ROPE_DIVISORS) else {
        return (entries, tensors);
    };
    let mut divisors = vec![0.0; tensor.shape().iter().product()];
    tensor.read_row(0, &mut divisors);
    (entries, tensors.with_divisors(divisors))
}

fn parent_of(path: &Path) -> &Path {
    if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(path)
    }
}

fn create(folder: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(folder).map_err(|cause| WriteError::Io {
        path: folder.to_owned(),
        cause,
    })
}
