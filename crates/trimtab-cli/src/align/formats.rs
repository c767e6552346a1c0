//! In which formats a policy is written, and what opens it. Knows files, no training.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use trimtab_model::ModelFile;
use trimtab_model::load::WeightSource;
use trimtab_runtime::{ExportOptions, ModelFormat, check_export, export_model, model_format};
use trimtab_train::decoder::write_model;

/// A format of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PolicyFormat {
    /// That of the reference: `model`, `model.gguf` or `model.bin`.
    Base,
    /// The model hub's layout, in the folder `model`.
    Hf,
    /// One file, `model.gguf`.
    Gguf,
}

/// Formats of the policies of one reference, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyFormats {
    /// `None` for a format that only a reference of it can be written in.
    formats: Vec<Option<ModelFormat>>,
}

impl PolicyFormats {
    /// What `names` mean for the reference `base`.
    ///
    /// # Errors
    /// A configuration or a tokenizer that one of them cannot hold, before anything is trained.
    pub(super) fn of(names: &[PolicyFormat], base: &ModelFile) -> Result<Self> {
        let mut formats = Vec::with_capacity(names.len());
        for name in names {
            let format = match name {
                PolicyFormat::Base => model_format(base),
                PolicyFormat::Hf => Some(ModelFormat::Hf),
                PolicyFormat::Gguf => Some(ModelFormat::Gguf),
            };
            if formats.contains(&format) {
                continue;
            }
            if let Some(format) = format {
                check_export(base, format)
                    .with_context(|| format!("policies of this reference cannot be written as {name:?}"))?;
            }
            formats.push(format);
        }
        Ok(Self { formats })
    }

    /// Writes the policy into `folder` in the first format, and returns what opens it.
    pub(super) fn write_first(
        &self,
        base: &ModelFile,
        weights: &dyn WeightSource,
        folder: &Path,
    ) -> Result<PathBuf> {
        let first = self.formats.first().copied().flatten();
        write_as(first, (base, weights), folder)
    }

    /// Writes it in all others.
    pub(super) fn write_others(
        &self,
        base: &ModelFile,
        weights: &dyn WeightSource,
        folder: &Path,
    ) -> Result<Vec<PathBuf>> {
        let others = self.formats.iter().skip(1);
        others
            .map(|format| write_as(*format, (base, weights), folder))
            .collect()
    }
}

fn write_as(
    format: Option<ModelFormat>,
    (base, weights): (&ModelFile, &dyn WeightSource),
    folder: &Path,
) -> Result<PathBuf> {
    let entry = match format {
        Some(format) if Some(format) != model_format(base) => (format, entry_name(format)),
        // As the reference is, with all that its files hold.
        _ => return Ok(write_model(base, weights, folder)?),
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (format, name) = entry;
    let path = folder.join(name);
    export_model(base, weights, &ExportOptions::exact(format), &path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn entry_name(format: ModelFormat) -> &'static str {
    match format {
        ModelFormat::Hf => "model",
        ModelFormat::Gguf => "model.gguf",
    }
}
