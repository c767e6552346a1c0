//! `trimtab models`: what the store has and could have.

use anyhow::Result;
use comfy_table::{Table, presets};
use serde_json::json;
use trimtab_store::{ListedModel, Store, StoreError, StoredModel};

use crate::Verdict;
use crate::args::ModelsCommand;
use crate::output;
use crate::progress::FetchProgress;
use crate::resolve::{fetch, open_store};

pub(crate) fn run(command: ModelsCommand) -> Result<Verdict> {
    let store = open_store()?;
    match command {
        ModelsCommand::List { json } => list(&store, json),
        ModelsCommand::Get { model, source, json } => get(&fetch(&store, &model, source.into())?, json),
        ModelsCommand::Path { model } => or_absent(store.path(&model), |path| {
            output::line(&path.display().to_string())
        }),
        ModelsCommand::Verify { model } => verify(&store, &model),
        ModelsCommand::Rm { model } => {
            let mut progress = FetchProgress::new();
            let freed = store.remove(&model, &mut progress);
            or_absent(freed, |bytes| {
                output::line(&format!("removed {model}, {} freed", size(*bytes)))
            })
        }
    }
}

/// Shows a value, or answers "no" if the model is not stored.
fn or_absent<T>(result: Result<T, StoreError>, show: impl Fn(&T) -> Result<()>) -> Result<Verdict> {
    match result {
        Ok(value) => show(&value).map(|()| Verdict::Ok),
        Err(error @ StoreError::NotPresent { .. }) => {
            output::note(&error.to_string());
            Ok(Verdict::Negative)
        }
        Err(error) => Err(error.into()),
    }
}

fn verify(store: &Store, model: &str) -> Result<Verdict> {
    let mut progress = FetchProgress::new();
    let checked = store.verify(model, &mut progress);
    progress.clear();
    match checked {
        Err(error @ StoreError::Damaged { .. }) => {
            output::note(&error.to_string());
            Ok(Verdict::Negative)
        }
        checked => or_absent(checked, |sha256| {
            output::line(&format!("{model} is intact, sha256 {sha256}"))
        }),
    }
}

fn get(model: &StoredModel, as_json: bool) -> Result<Verdict> {
    let size_bytes: u64 = model.files.iter().map(|file| file.size_bytes).sum();
    if as_json {
        output::json(&json!({
            "name": model.name,
            "path": model.path,
            "source": model.source,
            "model_sha256": model.weights_sha256.to_string(),
            "size_bytes": size_bytes,
            "was_cached": model.was_cached,
        }))?;
        return Ok(Verdict::Ok);
    }
    let how = if model.was_cached {
        "was stored already, from"
    } else {
        "fetched from"
    };
    output::line(&format!(
        "{} ({}) {how} {}\n{}\nsha256 {}",
        model.name,
        size(size_bytes),
        model.source,
        model.path.display(),
        model.weights_sha256
    ))?;
    Ok(Verdict::Ok)
}

fn list(store: &Store, as_json: bool) -> Result<Verdict> {
    let models = store.list();
    if as_json {
        let entry = |model: &ListedModel| {
            json!({
                "name": model.name,
                "summary": model.summary,
                "licence": model.licence,
                "size_bytes": model.size_bytes,
                "installed": model.installed,
                "sources": model.sources,
                "partial_bytes": model.partial_bytes,
            })
        };
        output::json(&models.iter().map(entry).collect::<Vec<_>>())?;
        return Ok(Verdict::Ok);
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["model", "size", "stored", "licence", "what it is"]);
    for model in &models {
        let stored = match (&model.installed, model.partial_bytes) {
            (Some(_), _) => "yes".to_owned(),
            (None, 0) => "no".to_owned(),
            (None, bytes) => format!("{} so far", size(bytes)),
        };
        table.add_row([
            model.name.as_str(),
            &size(model.size_bytes),
            &stored,
            model.licence.as_deref().unwrap_or("see the hub"),
            model.summary.as_deref().unwrap_or(""),
        ]);
    }
    output::line(&format!("{table}\n\nstore: {}", store.root().display()))?;
    Ok(Verdict::Ok)
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
