//! The text files of the repository, read once: Rust sources, manifests and documents. Judges nothing.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// One text file.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path from the workspace's root, with `/`.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl SourceFile {
    /// A file that holds `text`.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// True if the file as a whole is test code.
    pub fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        let file_name = parts.next_back().unwrap_or_default();
        file_name == "tests.rs" || parts.any(|folder| folder == "tests")
    }

    /// The crate that the file belongs to: `trimtab-base` for `crates/trimtab-base/src/lib.rs`, `xtask`, `fuzz`.
    pub fn crate_name(&self) -> Option<&str> {
        let mut parts = self.path.split('/');
        match parts.next()? {
            "crates" => parts.next(),
            first @ ("xtask" | "fuzz") => Some(first),
            _ => None,
        }
    }

    /// Index (from 0) of the first line of an inline `#[cfg(test)] mod ... {`; the number of lines if there is none.
    pub fn inline_tests_start(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let opens_module = |line: &str| {
            let line = line.trim_start();
            (line.starts_with("mod ") || line.starts_with("pub mod ")) && line.ends_with('{')
        };
        let found = lines.iter().enumerate().find(|(idx, line)| {
            line.starts_with("#[cfg(test)]") && lines.get(idx + 1).is_some_and(|l| opens_module(l))
        });
        found.map_or(lines.len(), |(idx, _)| idx)
    }
}

/// Everything that the rules look at.
#[derive(Debug, Default)]
pub struct Sources {
    /// `*.rs`, sorted by path.
    pub rust: Vec<SourceFile>,
    /// `Cargo.toml`, sorted by path.
    pub manifests: Vec<SourceFile>,
    /// `*.md`, sorted by path.
    pub documents: Vec<SourceFile>,
}

impl Sources {
    /// Reads the tree below `root`, without build output and hidden folders.
    ///
    /// # Errors
    /// A file cannot be read or is not UTF-8.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let mut sources = Self::default();
        sources.read_folder(root, "")?;
        Ok(sources)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> anyhow::Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        let mut names: Vec<_> = entries
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        for name in names.iter().filter_map(|name| name.to_str()) {
            let path = folder.join(name);
            let shown = format!("{prefix}{name}");
            if path.is_dir() {
                if !name.starts_with('.') && !matches!(name, "target" | "out" | "corpus" | "artifacts") {
                    self.read_folder(&path, &format!("{shown}/"))?;
                }
            } else if let Some(list) = self.list_for(name) {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
                list.push(SourceFile::new(shown, text));
            }
        }
        Ok(())
    }

    fn list_for(&mut self, file_name: &str) -> Option<&mut Vec<SourceFile>> {
        match file_name.rsplit_once('.') {
            Some((_, "rs")) => Some(&mut self.rust),
            Some((_, "md")) => Some(&mut self.documents),
            Some(("Cargo", "toml")) => Some(&mut self.manifests),
            _ => None,
        }
    }

    /// The document at `path`, if there is one.
    pub fn document(&self, path: &str) -> Option<&SourceFile> {
        self.documents.iter().find(|file| file.path == path)
    }
}
