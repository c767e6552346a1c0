//! From a model as users name it to a model that runs. Knows store and runtime, no command.

use std::path::Path;

use anyhow::{Context, Result};
use trimtab_engine::{Engine, EngineConfig};
use trimtab_model::PrecisionPlan;
use trimtab_runtime::{LoadOptions, LoadedModel};
use trimtab_store::{ModelRef, SourcePolicy, Store, StoredModel};

use crate::machine;
use crate::policy_card::{PolicyCard, weights_in};
use crate::progress::FetchProgress;

/// The store in `TRIMTAB_HOME` or the platform's cache folder.
pub(crate) fn open_store() -> Result<Store> {
    let home = machine::home_from_environment();
    Ok(Store::open(&trimtab_store::resolve_root(home.as_deref())?)?)
}

/// What `name` stands for; a policy's folder for the weights in it.
pub(crate) fn model_ref(name: &str) -> Result<ModelRef> {
    let path = weights_in(name)?.map(|path| path.display().to_string());
    Ok(open_store()?.resolve(path.as_deref().unwrap_or(name))?)
}

/// The model called `name`, fetched if need be; a policy may be named by its folder.
pub(crate) fn fetch(store: &Store, name: &str, policy: SourcePolicy) -> Result<StoredModel> {
    let path = weights_in(name)?.map(|path| path.display().to_string());
    let mut progress = FetchProgress::new();
    let stored = store.get(path.as_deref().unwrap_or(name), policy, &mut progress);
    progress.clear();
    Ok(StoredModel {
        name: name.to_owned(),
        ..stored?
    })
}

/// A model that runs, with where it came from.
pub(crate) struct ReadyModel {
    /// As it lies in the store or on the disk.
    pub(crate) stored: StoredModel,
    /// As it runs.
    pub(crate) loaded: LoadedModel,
    /// What it was tuned from and for, if it is a policy of ours.
    pub(crate) policy: Option<PolicyCard>,
}

impl ReadyModel {
    /// Fetches and opens the model called `name`.
    pub(crate) fn open(
        name: &str,
        policy: SourcePolicy,
        plan: PrecisionPlan,
        threads: Option<u16>,
    ) -> Result<Self> {
        let stored = fetch(&open_store()?, name, policy)?;
        let loaded = load(&stored.path, plan, threads)?;
        let policy = PolicyCard::beside(&stored.path)?;
        Ok(Self {
            stored,
            loaded,
            policy,
        })
    }

    /// SHA-256 of the weights, in hexadecimal.
    pub(crate) fn sha256(&self) -> String {
        self.stored.weights_sha256.to_string()
    }

    /// An engine with a key/value store of so many MiB.
    pub(crate) fn engine(&self, kv_memory_mib: u32, config: EngineConfig) -> Result<Engine> {
        Ok(self.loaded.engine((kv_memory_mib as usize) << 20, config)?)
    }
}

/// Opens the model at `path`.
pub(crate) fn load(path: &Path, plan: PrecisionPlan, threads: Option<u16>) -> Result<LoadedModel> {
    let num_threads = threads.map_or_else(machine::default_threads, usize::from);
    LoadedModel::open(path, LoadOptions { plan, num_threads })
        .with_context(|| format!("cannot load {}", path.display()))
}
