//! An open checkpoint of any format: which files make it up, and its tensors by name. Knows no layout.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::error::{CheckpointError, FormatError, shown};
use crate::gguf;
use crate::llama2c::{self, Llama2cHeader};
use crate::metadata::{Metadata, MetadataTable};
use crate::safetensors;
use crate::storage::Storage;
use crate::tensor::{Tensor, TensorInfo};

/// Kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// llama.cpp's one-file format, version 2 or 3.
    Gguf,
    /// The model hub's format, in one file or several, beside a `config.json`.
    SafeTensors,
    /// The legacy float format of llama2.c.
    Llama2c,
}

/// A checkpoint whose header has been checked; its tensors are mapped and read on demand.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<Storage>>,
    tensors: BTreeMap<String, Arc<TensorInfo>>,
    description: Description,
}

/// What the files say about the model, by format.
#[derive(Debug)]
enum Description {
    Gguf(MetadataTable),
    SafeTensors(Value),
    Llama2c(Llama2cHeader),
}

impl Checkpoint {
    /// Opens a GGUF file, a safetensors folder, a safetensors file beside its `config.json`, or a llama2.c file.
    /// The format is told by the contents, a safetensors file by its name.
    ///
    /// # Errors
    /// The system's, or the first field of a file that is impossible.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.is_dir() {
            return Self::open_folder(path);
        }
        let file = Storage::open(path)?;
        if file.starts_with(gguf::MAGIC) {
            return Self::gguf(file);
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension == Some("safetensors") {
            let config = Storage::open(&path.with_file_name("config.json"))?;
            return Self::safetensors(path, &config, vec![file]);
        }
        // llama2.c's files have no magic; the length that the header asks for tells them apart.
        let start = file.get(..8).unwrap_or(&file).to_vec();
        let looks_foreign = start.starts_with(b"PK") || extension != Some("bin");
        Self::llama2c(file).map_err(|error| match error {
            CheckpointError::Malformed { path, .. } if looks_foreign => {
                let start = format!("\"{}\"", start.escape_ascii());
                CheckpointError::UnknownFormat { path, start }
            }
            other => other,
        })
    }

    /// A GGUF file that is in memory, as tests and fuzzers have it.
    pub fn from_gguf_bytes(bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        Self::gguf(Storage::memory("model.gguf", bytes))
    }

    /// A safetensors checkpoint that is in memory: `config.json` and the files of tensors.
    pub fn from_safetensors_bytes(
        config_json: Vec<u8>,
        files: Vec<Vec<u8>>,
    ) -> Result<Self, CheckpointError> {
        let config = Storage::memory("config.json", config_json);
        let files = files
            .into_iter()
            .map(|bytes| Storage::memory("model.safetensors", bytes));
        Self::safetensors(Path::new("model.safetensors"), &config, files.collect())
    }

    /// A llama2.c file that is in memory.
    pub fn from_llama2c_bytes(bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        Self::llama2c(Storage::memory("model.bin", bytes))
    }

    /// Kind of the file.
    pub fn format(&self) -> Format {
        match self.description {
            Description::Gguf(_) => Format::Gguf,
            Description::SafeTensors(_) => Format::SafeTensors,
            Description::Llama2c(_) => Format::Llama2c,
        }
    }

    /// The path it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files of tensors.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len() as u64).sum()
    }

    /// Names of all tensors, in alphabetical order.
    pub fn tensor_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| CheckpointError::MissingTensor {
                path: self.path.clone(),
                name: name.to_owned(),
            })?;
        Ok(Tensor {
            info: Arc::clone(info),
            file: Arc::clone(&self.files[info.file_idx]),
        })
    }

    /// The metadata of a GGUF file.
    pub fn metadata(&self) -> Option<Metadata<'_>> {
        match &self.description {
            Description::Gguf(table) => Some(Metadata {
                table,
                file: &self.files[0],
            }),
            _ => None,
        }
    }

    /// The `config.json` of a safetensors checkpoint.
    pub fn config_json(&self) -> Option<&Value> {
        match &self.description {
            Description::SafeTensors(config) => Some(config),
            _ => None,
        }
    }

    /// The header of a llama2.c file.
    pub fn llama2c_header(&self) -> Option<&Llama2cHeader> {
        match &self.description {
            Description::Llama2c(header) => Some(header),
            _ => None,
        }
    }

    fn gguf(file: Storage) -> Result<Self, CheckpointError> {
        let parsed = gguf::parse(&file).map_err(|problem| file.malformed(problem))?;
        let path = file.path().to_owned();
        Ok(Self::assemble(
            path,
            vec![file],
            parsed.tensors,
            Description::Gguf(parsed.metadata),
        ))
    }

    fn llama2c(file: Storage) -> Result<Self, CheckpointError> {
        let (header, tensors) = llama2c::parse(&file).map_err(|problem| file.malformed(problem))?;
        let path = file.path().to_owned();
        Ok(Self::assemble(
            path,
            vec![file],
            tensors,
            Description::Llama2c(header),
        ))
    }

    fn open_folder(folder: &Path) -> Result<Self, CheckpointError> {
        let config = Storage::open(&folder.join("config.json"))?;
        let single = folder.join("model.safetensors");
        let index_path = folder.join("model.safetensors.index.json");
        if single.exists() || !index_path.exists() {
            return Self::safetensors(folder, &config, vec![Storage::open(&single)?]);
        }
        let index = Storage::open(&index_path)?;
        let shard_of =
            safetensors::parse_safetensors_index(&index).map_err(|problem| index.malformed(problem))?;
        let mut file_idx = HashMap::new();
        let mut files = Vec::new();
        for shard in shard_of.values() {
            if !file_idx.contains_key(shard) {
                file_idx.insert(shard.clone(), files.len());
                files.push(Storage::open(&folder.join(shard))?);
            }
        }
        let checkpoint = Self::safetensors(folder, &config, files)?;
        for (tensor, shard) in &shard_of {
            let found = checkpoint.tensors.get(tensor).map(|info| info.file_idx);
            if found != file_idx.get(shard).copied() {
                let field = format_args!("weight_map file of tensor {}", shown(tensor));
                return Err(index.malformed(FormatError::bad(field, shown(shard), "the file that has it")));
            }
        }
        Ok(checkpoint)
    }

    fn safetensors(path: &Path, config: &Storage, files: Vec<Storage>) -> Result<Self, CheckpointError> {
        let description =
            safetensors::from_json(&"configuration", config).map_err(|problem| config.malformed(problem))?;
        let mut tensors = BTreeMap::new();
        for (file_idx, file) in files.iter().enumerate() {
            let found = safetensors::parse(file, file_idx).map_err(|problem| file.malformed(problem))?;
            for (name, info) in found {
                if tensors.contains_key(&name) {
                    return Err(file.malformed(FormatError::Duplicate {
                        what: "tensors",
                        name,
                    }));
                }
                tensors.insert(name, info);
            }
        }
        Ok(Self::assemble(
            path.to_owned(),
            files,
            tensors,
            Description::SafeTensors(description),
        ))
    }

    fn assemble(
        path: PathBuf,
        files: Vec<Storage>,
        tensors: BTreeMap<String, TensorInfo>,
        description: Description,
    ) -> Self {
        Self {
            path,
            files: files.into_iter().map(Arc::new).collect(),
            tensors: tensors
                .into_iter()
                .map(|(name, info)| (name, Arc::new(info)))
                .collect(),
            description,
        }
    }
}
