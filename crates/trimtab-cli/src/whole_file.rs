//! Small files that are never seen in part: written beside and renamed. Knows bytes, not what they say.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes a text under a temporary name and renames it.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    std::fs::write(&part, text)
        .and_then(|()| std::fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a value as indented JSON with a newline at its end.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value).context("cannot serialise a file")?;
    write(path, &(json + "\n"))
}
