//! A model in another format: the hub's layout or GGUF, whatever the format it came in, with its tokenizer.
//!
//! Weights, configuration and vocabulary each have their own inverse of reading; here they are put together. What was
//! written is opened again before it gets its name, and its configuration compared: a format that has no place for
//! something that the model needs must not lose it silently.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trimtab_checkpoint::{
    DEFAULT_SHARD_BYTES, Dtype, Format, GgufEntries, WriteError, copy_hub_files, write_gguf,
    write_safetensors_folder, write_whole,
};
use trimtab_model::family::check_same_model;
use trimtab_model::load::WeightSource;
use trimtab_model::to_gguf::{config_to_gguf, file_type};
use trimtab_model::to_hf::{config_to_hf, torch_name};
use trimtab_model::{FileTensors, ModelFile};
use trimtab_tokenizer::{GgufVocab, Tokenizer};

use crate::error::RuntimeError;
use crate::gguf_vocab::{add_gguf_vocab, gguf_vocab};
use crate::loaded::{beside, llama2c_pieces};

/// Divisors of the rotary frequencies, which a GGUF file keeps as a tensor.
const ROPE_DIVISORS: &str = "rope_freqs.weight";
/// Says what the matrices of a GGUF file are stored in, or how they were made: no longer true of new ones.
const GGUF_TYPE_KEYS: [&str; 2] = ["general.file_type", "general.quantization_version"];

/// A format that any model can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFormat {
    /// A folder in the model hub's layout: safetensors, `config.json`, `tokenizer.json` and so on.
    Hf,
    /// One file of llama.cpp's format.
    Gguf,
}

/// Element type of the matrices of a model that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightType {
    /// All bits.
    #[default]
    F32,
    /// The upper half of an f32: its range, 8 bits of precision.
    Bf16,
    /// IEEE half precision: 11 bits of precision, numbers to 65504.
    F16,
}

impl WeightType {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
            Self::F16 => Dtype::F16,
        }
    }
}

/// How a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// Kind of file.
    pub format: ModelFormat,
    /// Element type of the matrices.
    pub weights: WeightType,
    /// Most bytes of data of one safetensors file; [`DEFAULT_SHARD_BYTES`] as the hub's library has it.
    pub max_shard_bytes: u64,
}

impl ExportOptions {
    /// All bits of the weights, in files of the usual size.
    pub fn exact(format: ModelFormat) -> Self {
        Self {
            format,
            weights: WeightType::F32,
            max_shard_bytes: DEFAULT_SHARD_BYTES,
        }
    }
}

/// Writes `weights`, which have the shapes of the model `base`, with its configuration and its tokenizer: as the folder
/// `path`, or as the file `path`. What has that name already is replaced when the new one is whole.
///
/// # Errors
/// The file system's; a configuration, a tokenizer or a number that the format cannot hold; a sequence classifier. The
/// files of an attempt that failed are removed.
pub fn export_model(
    base: &ModelFile,
    weights: &dyn WeightSource,
    options: &ExportOptions,
    path: &Path,
) -> Result<(), RuntimeError> {
    if let Some(head) = base.score_head()? {
        return Err(RuntimeError::NoLanguageModel { labels: head.labels });
    }
    let partial = with_suffix(path, ".partial");
    let attempt = || {
        match options.format {
            ModelFormat::Hf => write_hf(base, weights, options, &partial)?,
            ModelFormat::Gguf => write_gguf_file(base, weights, options, &partial)?,
        }
        let written = ModelFile::open(&partial)?;
        check_same_model(base.config(), written.config())?;
        check_tokenizer(&written)?;
        // A mapped file may not be replaced everywhere.
        drop(written);
        replace(&partial, path)
    };
    let result = attempt();
    if result.is_err() {
        // The first error is the one to tell.
        let _ = remove(&partial);
    }
    result
}

/// The vocabulary of a model, whatever its format, in the form between formats.
///
/// # Errors
/// A vocabulary that is damaged, missing or that this form cannot hold.
pub fn vocabulary(base: &ModelFile) -> Result<GgufVocab, RuntimeError> {
    let checkpoint = base.checkpoint();
    Ok(match checkpoint.format() {
        Format::Gguf => gguf_vocab(checkpoint)?,
        Format::SafeTensors => GgufVocab::from_hf_folder(beside(checkpoint.path()))?,
        Format::Llama2c => GgufVocab::from_llama2c(&llama2c_pieces(base)?)?,
    })
}

/// Checks what [`export_model`] can know before there are weights: configuration and tokenizer.
///
/// # Errors
/// As there.
pub fn check_export(base: &ModelFile, format: ModelFormat) -> Result<(), RuntimeError> {
    match (format, base.checkpoint().format()) {
        (ModelFormat::Hf, Format::SafeTensors) | (ModelFormat::Gguf, Format::Gguf) => Ok(()),
        (ModelFormat::Hf, _) => hub_files(base, WeightType::F32).map(drop),
        (ModelFormat::Gguf, _) => gguf_entries(base, WeightType::F32).map(drop),
    }
}

/// The format of a model, if it is one that any model can be written in.
pub fn model_format(base: &ModelFile) -> Option<ModelFormat> {
    match base.checkpoint().format() {
        Format::SafeTensors => Some(ModelFormat::Hf),
        Format::Gguf => Some(ModelFormat::Gguf),
        Format::Llama2c => None,
    }
}

fn write_hf(
    base: &ModelFile,
    weights: &dyn WeightSource,
    options: &ExportOptions,
    folder: &Path,
) -> Result<(), RuntimeError> {
    remove(folder).map_err(|cause| io_error(folder, cause))?;
    fs::create_dir_all(folder).map_err(|cause| io_error(folder, cause))?;
    let checkpoint = base.checkpoint();
    if let Some(published) = checkpoint.config_json() {
        copy_hub_files(beside(checkpoint.path()), folder)?;
        let config = published_config(base, published, options.weights.dtype())?;
        write_text(&folder.join("config.json"), &format!("{config:#}\n"))?;
    } else {
        for (name, text) in hub_files(base, options.weights)? {
            write_text(&folder.join(name), &text)?;
        }
    }
    let dtype = options.weights.dtype();
    let tensors = FileTensors::new(base.config(), weights, Format::SafeTensors, dtype)?;
    write_safetensors_folder(folder, tensors.tensors(), options.max_shard_bytes, &tensors)?;
    Ok(())
}

/// Names and texts of all files beside the weights, for a base of another format.
fn hub_files(base: &ModelFile, weights: WeightType) -> Result<[(&'static str, String); 4], RuntimeError> {
    let vocab = vocabulary(base)?;
    let files = vocab.to_hf_files(base.config().context_len)?;
    let mut config = config_to_hf(base.config(), weights.dtype())?;
    config["bos_token_id"] = json!(vocab.bos_token_id);
    config["eos_token_id"] = json!(vocab.eos_token_id);
    Ok([
        ("config.json", format!("{config:#}\n")),
        ("tokenizer.json", files.tokenizer),
        ("tokenizer_config.json", files.tokenizer_config),
        ("generation_config.json", files.generation_config),
    ])
}

/// A published configuration with all that this decoder does not read, but for the element type. That of several models in
/// one gives way to the decoder's alone, since only its weights are written.
fn published_config(base: &ModelFile, published: &Value, dtype: Dtype) -> Result<Value, RuntimeError> {
    if published.get("text_config").is_some() {
        let mut config = config_to_hf(base.config(), dtype)?;
        for key in ["bos_token_id", "eos_token_id"] {
            config[key] = published.get(key).cloned().unwrap_or_default();
        }
        return Ok(config);
    }
    let mut config = published.clone();
    config["torch_dtype"] = json!(torch_name(dtype));
    if let Some(fields) = config.as_object_mut() {
        // The newer name of the same, which would count.
        fields.remove("dtype");
    }
    Ok(config)
}

fn write_gguf_file(
    base: &ModelFile,
    weights: &dyn WeightSource,
    options: &ExportOptions,
    path: &Path,
) -> Result<(), RuntimeError> {
    let dtype = options.weights.dtype();
    let mut tensors = FileTensors::new(base.config(), weights, Format::Gguf, dtype)?;
    let checkpoint = base.checkpoint();
    let entries = if let Some(metadata) = checkpoint.metadata() {
        let mut entries = GgufEntries::copied(&metadata, &GGUF_TYPE_KEYS);
        entries.u32(GGUF_TYPE_KEYS[0], file_type(dtype));
        if let Ok(tensor) = checkpoint.tensor(ROPE_DIVISORS) {
            // As stored: the metadata beside them may ask for a factor on top.
            let mut divisors = vec![0.0; tensor.shape().iter().product()];
            tensor.read_row(0, &mut divisors);
            tensors = tensors.with_divisors(divisors);
        }
        entries
    } else {
        gguf_entries(base, options.weights)?
    };
    write_whole(path, |out| write_gguf(&entries, tensors.tensors(), &tensors, out))?;
    Ok(())
}

/// All metadata, for a base of another format.
fn gguf_entries(base: &ModelFile, weights: WeightType) -> Result<GgufEntries, RuntimeError> {
    let vocab = vocabulary(base)?.padded(base.config().vocab_len)?;
    let mut entries = GgufEntries::default();
    config_to_gguf(base.config(), weights.dtype(), &mut entries)?;
    add_gguf_vocab(&vocab, &mut entries);
    Ok(entries)
}

/// A vocabulary that does not open again would be found much later.
fn check_tokenizer(written: &ModelFile) -> Result<(), RuntimeError> {
    let checkpoint = written.checkpoint();
    let opened = match checkpoint.format() {
        Format::Gguf => Tokenizer::from_gguf(gguf_vocab(checkpoint)?),
        _ => Tokenizer::from_hf_folder(beside(checkpoint.path())),
    };
    opened?;
    Ok(())
}

fn write_text(path: &Path, text: &str) -> Result<(), WriteError> {
    write_whole(path, |out| out.write(text.as_bytes()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives `partial` the name `path`. A folder cannot be renamed onto one that has files.
fn replace(partial: &Path, path: &Path) -> Result<(), RuntimeError> {
    let attempt = || {
        if path.is_dir() {
            remove(path)?;
        }
        fs::rename(partial, path)
    };
    attempt().map_err(|cause| io_error(path, cause))
}

fn io_error(path: &Path, cause: io::Error) -> RuntimeError {
    RuntimeError::Write(Box::new(WriteError::Io {
        path: path.to_owned(),
        cause,
    }))
}
