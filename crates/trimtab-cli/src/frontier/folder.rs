//! The output folder: which of its files are this run's and what may be written there. Knows no model and no results.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::config::FrontierConfig;
use super::identity::{Header, field_differences, fields_of};
use crate::journal::{Journal, RunHeader, StoredRun, another_run};

/// Where a run keeps its finished prompts.
pub(super) fn journal_path(out: &Path) -> PathBuf {
    out.join("journal")
}

/// Where a run leaves what repeats it.
pub(super) fn config_path(out: &Path) -> PathBuf {
    out.join("config.toml")
}

/// The text to write as `config.toml`, or `None` to leave the file that is there. Writes nothing.
///
/// A file that is there stays as it is, byte for byte, with one exception: what this program wrote for a run that
/// never finished a prompt.
///
/// # Errors
/// A journal or a `config.toml` of something else.
pub(super) fn config_to_write(
    out: &Path,
    config: &FrontierConfig,
    header: &Header,
) -> Result<Option<String>> {
    let stored = Journal::look(&journal_path(out))?;
    let differences = stored
        .as_ref()
        .map_or_else(Vec::new, |stored| header.differences(&stored.header));
    if !differences.is_empty() && stored.as_ref().is_some_and(|stored| stored.has_entries) {
        return Err(another_run(&journal_path(out), &differences));
    }
    let text = config.to_toml()?;
    let path = config_path(out);
    let present = match std::fs::read_to_string(&path) {
        Ok(present) => present,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Some(text));
        }
        Err(error) => return Err(error).with_context(|| foreign(&path)),
    };
    if present == text {
        return Ok(None);
    }
    let theirs = FrontierConfig::open(&path)
        .and_then(FrontierConfig::locate)
        .with_context(|| foreign(&path))?;
    let changed = field_differences(&theirs.described_fields()?, &config.described_fields()?);
    if changed.is_empty() {
        return Ok(None);
    }
    let is_of = |stored: &StoredRun| {
        theirs
            .result_fields()
            .is_ok_and(|fields| fields == fields_of(&stored.header["config"]))
    };
    match stored.filter(is_of) {
        // The same prompts and weights, which have moved since.
        Some(_) if differences.is_empty() => Ok(None),
        // Exactly as written here, beside a journal that holds nothing: a run that failed at once.
        Some(stored) if !stored.has_entries && theirs.to_toml()? == present => Ok(Some(text)),
        _ => bail!("{} ({})", foreign(&path), changed.join("; ")),
    }
}

fn foreign(path: &Path) -> String {
    format!(
        "{} is there and is not of this run; nothing was written; choose another --out",
        path.display()
    )
}
