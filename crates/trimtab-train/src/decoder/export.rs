//! Writes a trained decoder as a model of its own, in the format of its base, which the engine opens like any other.
//!
//! The format stays because the tokenizer stays: a GGUF file carries it inside, so its metadata are copied as they
//! are; a hub folder and llama2.c's files have it beside them. Weights are written in f32. They come last and under a
//! temporary name, so that what opens is whole.

mod gguf;
mod llama2c;
mod safetensors;

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use trimtab_checkpoint::Format;
use trimtab_model::load::WeightSource;
use trimtab_model::names::{LayerRole, Role, tensor_name};
use trimtab_model::{ModelConfig, ModelFile};

use super::error::DecoderError;

/// Files of a hub folder, other than the weights, that a tokenizer or a configuration reads.
const FOLDER_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

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
    let writer = ModelWriter {
        base,
        weights,
        order: FileOrder::of(checkpoint.format(), base.config()),
    };
    let create = |folder: &Path| fs::create_dir_all(folder).map_err(|cause| at(folder, cause));
    create(folder)?;
    match checkpoint.format() {
        Format::SafeTensors => {
            let path = folder.join("model");
            create(&path)?;
            copy_present(beside_base, &path, &FOLDER_FILES)?;
            write_whole(&path.join("model.safetensors"), |out| {
                safetensors::write(&writer, out)
            })?;
            Ok(path)
        }
        Format::Gguf => {
            let head = gguf::Head::read(checkpoint.path()).map_err(|cause| at(checkpoint.path(), cause))?;
            let path = folder.join("model.gguf");
            write_whole(&path, |out| gguf::write(&writer, &head, out))?;
            Ok(path)
        }
        Format::Llama2c => {
            let vocab_len = base.config().vocab_len;
            let names = ["tokenizer.bin".to_owned(), format!("tok{vocab_len}.bin")];
            copy_present(beside_base, folder, &names)?;
            let path = folder.join("model.bin");
            write_whole(&path, |out| llama2c::write(&writer, checkpoint.path(), out))?;
            Ok(path)
        }
    }
}

/// In which respects a file's numbers differ from the engine's.
#[derive(Debug, Clone, Copy)]
struct FileOrder {
    format: Format,
    /// Width of a head whose rows are stored in pairs; none where they are stored in halves.
    interleaved: Option<usize>,
    /// Subtracted from norm weights.
    norm_offset: f32,
    post_norms: bool,
}

impl FileOrder {
    fn of(format: Format, config: &ModelConfig) -> Self {
        // The two formats whose converters permute the rows of Llama's queries and keys.
        let interleaved = match format {
            Format::Llama2c => true,
            Format::Gguf => config.architecture == "llama",
            Format::SafeTensors => false,
        };
        let offset = format == Format::SafeTensors && trimtab_model::from_hf::norms_are_offset(config);
        Self {
            format,
            interleaved: interleaved.then_some(config.head_dim),
            norm_offset: if offset { 1.0 } else { 0.0 },
            post_norms: config.post_norms,
        }
    }

    /// The engine's row that is row `row` of the file.
    fn engine_row(self, role: Role, row: usize) -> usize {
        let is_rotated = matches!(role, Role::Layer(_, LayerRole::Query | LayerRole::Key));
        match self.interleaved {
            Some(head_dim) if is_rotated => {
                let (head, dim) = (row / head_dim, row % head_dim);
                head * head_dim + (dim % 2) * (head_dim / 2) + dim / 2
            }
            _ => row,
        }
    }
}

/// What is written, whatever the format.
struct ModelWriter<'a> {
    base: &'a ModelFile,
    weights: &'a dyn WeightSource,
    order: FileOrder,
}

/// A tensor of the file that is made.
struct Entry {
    name: String,
    /// Outermost first.
    shape: Vec<usize>,
    role: Role,
}

impl Entry {
    fn size_bytes(&self) -> u64 {
        4 * self.shape.iter().map(|&len| len as u64).product::<u64>()
    }
}

impl ModelWriter<'_> {
    /// All tensors that the configuration reads.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let entry = |role| {
            Ok(Entry {
                name: tensor_name(self.order.format, role, self.order.post_norms),
                shape: self.weights.shape(role).map_err(io::Error::other)?,
                role,
            })
        };
        trimtab_model::names::roles(self.base.config())
            .into_iter()
            .map(entry)
            .collect()
    }

    /// The numbers of a tensor, as the file has them.
    fn write_values(&self, entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
        let (num_rows, row_len) = match entry.shape[..] {
            [len] => (1, len),
            [num_rows, row_len] => (num_rows, row_len),
            _ => return Err(io::Error::other("a decoder has matrices and vectors only")),
        };
        let mut row = vec![0.0; row_len];
        for idx in 0..num_rows {
            let engine_row = self.order.engine_row(entry.role, idx);
            self.weights.read_row(entry.role, engine_row, &mut row);
            let offset = if entry.role.is_norm() {
                self.order.norm_offset
            } else {
                0.0
            };
            for value in &row {
                out.write_all(&(value - offset).to_le_bytes())?;
            }
        }
        self.weights.release(entry.role);
        Ok(())
    }
}

fn parent_of(path: &Path) -> &Path {
    if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(path)
    }
}

fn copy_present<S: AsRef<Path>>(from: &Path, to: &Path, names: &[S]) -> Result<(), DecoderError> {
    for name in names {
        let source = from.join(name);
        if source.is_file() {
            fs::copy(&source, to.join(name)).map_err(|cause| at(&source, cause))?;
        }
    }
    Ok(())
}

fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), DecoderError> {
    let temporary = path.with_extension("partial");
    let attempt = || {
        let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(&temporary)?);
        write(&mut out)?;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|cause| at(path, cause))
}

fn at(path: &Path, cause: io::Error) -> DecoderError {
    DecoderError::Write {
        path: path.to_owned(),
        cause,
    }
}
