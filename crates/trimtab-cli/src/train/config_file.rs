//! What the configurations of all trainings share: fields, and how a file is read. Knows no model and no data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use trimtab_store::ModelRef;
use trimtab_train::TrainDevice;

use crate::args::{PrecisionName, parse_precision};
use crate::prompts::without_bom;
use crate::resolve::open_store;

/// What every training is told, at the top of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RunConfig {
    /// Alias, `org/name` of the hub, or a path. Default `smollm2-135m-instruct`.
    pub(crate) model: String,
    /// Seed of everything random. Default 0.
    pub(crate) seed: u64,
    /// Precision of weights and activations. Default `int8`.
    pub(crate) precision: String,
    /// What reports call the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            model: "smollm2-135m-instruct".to_owned(),
            seed: 0,
            precision: "int8".to_owned(),
            name: None,
        }
    }
}

impl RunConfig {
    /// Takes its fields out of a file's table.
    ///
    /// # Errors
    /// The field at fault.
    pub(super) fn take(table: &mut toml::Table) -> Result<Self> {
        let fields = take_fields(table, &["model", "seed", "precision", "name"]);
        let config: Self = toml::Value::Table(fields).try_into()?;
        config.precision()?;
        Ok(config)
    }

    /// The precision by its name.
    pub(super) fn precision(&self) -> Result<PrecisionName> {
        parse_precision(&self.precision).map_err(|problem| anyhow::anyhow!("precision: {problem}"))
    }

    /// Makes a path of the model absolute: its folder is no part of a run, and a result names its base by the hash.
    ///
    /// # Errors
    /// A name that nothing has.
    pub(super) fn locate_model(&mut self) -> Result<()> {
        if let ModelRef::Local { path, .. } = open_store()?.resolve(&self.model)? {
            self.model = path.display().to_string();
        }
        Ok(())
    }
}

/// Reads and parses a file.
///
/// # Errors
/// The file and what `parse` says.
pub(super) fn open<C>(path: &Path, parse: impl FnOnce(&str) -> Result<C>) -> Result<C> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

/// A file's content as a table.
pub(super) fn table(text: &str) -> Result<toml::Table> {
    Ok(toml::from_str(without_bom(text))?)
}

/// Takes these fields out of a table, those that are there.
pub(super) fn take_fields(table: &mut toml::Table, fields: &[&str]) -> toml::Table {
    let taken = fields.iter().filter_map(|field| table.remove_entry(*field));
    taken.collect()
}

/// A relative path is looked up beside the file first.
pub(super) fn look_beside(file: &Path, path: &mut PathBuf) {
    let beside = file.parent().unwrap_or(Path::new("")).join(&path);
    if path.is_relative() && beside.exists() {
        *path = beside;
    }
}

/// The training crate's part, from the table `[train]`.
///
/// # Errors
/// A field that it does not know, or one of `at_top`, which stand at the top of the file.
pub(super) fn training<T: DeserializeOwned>(table: &toml::Table, at_top: &[&str]) -> Result<T> {
    if let Some(field) = at_top.iter().find(|field| table.contains_key(**field)) {
        bail!("{field} stands in [train]; move it to the top of the file");
    }
    toml::Value::Table(table.clone()).try_into().context("[train]")
}

/// Puts a device that the command line names in the place of the one in `[train]`.
pub(crate) fn set_device(train: &mut toml::Table, device: Option<TrainDevice>) {
    train.extend(device.map(|device| ("device".to_owned(), device.to_string().into())));
}

/// Refuses to take nothing.
pub(super) fn check_limit(field: &str, limit: Option<u64>) -> Result<()> {
    if limit == Some(0) {
        bail!("{field} is 0, expected at least 1");
    }
    Ok(())
}
