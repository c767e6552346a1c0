//! What a `Cargo.toml` says about dependencies. Knows no rule about them.

use std::collections::BTreeSet;

use anyhow::Context;
use toml::{Table, Value};

use crate::sources::SourceFile;

/// The dependencies of one crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `package.name`.
    pub name: String,
    /// Path of the file from the workspace's root.
    pub path: String,
    /// Names under `dependencies` and `build-dependencies`, those of targets included.
    pub dependencies: BTreeSet<String>,
    /// Names under `dev-dependencies`.
    pub dev_dependencies: BTreeSet<String>,
    /// Dependencies that do not take their version from the workspace.
    pub own_versions: BTreeSet<String>,
}

impl Manifest {
    /// Reads a member's manifest; `None` for a file without `[package]`, such as the workspace's root.
    ///
    /// # Errors
    /// The text is not TOML, or `package` has no name.
    pub fn parse(file: &SourceFile) -> anyhow::Result<Option<Self>> {
        let table: Table = file
            .text
            .parse()
            .with_context(|| format!("{} is not valid TOML", file.path))?;
        let Some(package) = table.get("package").and_then(Value::as_table) else {
            return Ok(None);
        };
        let name = package.get("name").and_then(Value::as_str);
        let mut manifest = Self {
            name: name
                .with_context(|| format!("{}: package has no name", file.path))?
                .to_owned(),
            path: file.path.clone(),
            dependencies: BTreeSet::new(),
            dev_dependencies: BTreeSet::new(),
            own_versions: BTreeSet::new(),
        };
        manifest.add_tables(&table);
        let targets = table.get("target").and_then(Value::as_table);
        for target in targets
            .into_iter()
            .flat_map(Table::values)
            .filter_map(Value::as_table)
        {
            manifest.add_tables(target);
        }
        Ok(Some(manifest))
    }

    fn add_tables(&mut self, table: &Table) {
        for (key, is_dev) in [
            ("dependencies", false),
            ("build-dependencies", false),
            ("dev-dependencies", true),
        ] {
            for (name, value) in table.get(key).and_then(Value::as_table).into_iter().flatten() {
                let from_workspace = value.get("workspace").and_then(Value::as_bool) == Some(true);
                if !from_workspace {
                    self.own_versions.insert(name.clone());
                }
                let list = if is_dev {
                    &mut self.dev_dependencies
                } else {
                    &mut self.dependencies
                };
                list.insert(name.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Manifest> {
        Manifest::parse(&SourceFile::new("crates/a/Cargo.toml", text)).unwrap()
    }

    #[test]
    fn all_kinds_of_dependencies_are_seen() {
        let text = "[package]\nname = \"a\"\n[dependencies]\nb.workspace = true\n[build-dependencies]\ncc = \"1\"\n\
                    [dev-dependencies]\nd = { workspace = true, features = [\"x\"] }\n\
                    [target.'cfg(unix)'.dependencies]\nrustix.workspace = true\n";
        let manifest = parse(text).unwrap();
        assert_eq!(
            manifest.dependencies,
            ["b", "cc", "rustix"].map(str::to_owned).into()
        );
        assert_eq!(manifest.dev_dependencies, ["d".to_owned()].into());
        assert_eq!(manifest.own_versions, ["cc".to_owned()].into());
    }

    #[test]
    fn a_virtual_manifest_is_no_crate_and_a_nameless_one_is_an_error() {
        assert_eq!(parse("[workspace]\nmembers = []\n"), None);
        let nameless = SourceFile::new("Cargo.toml", "[package]\nversion = \"1.0.0\"\n");
        assert!(
            Manifest::parse(&nameless)
                .unwrap_err()
                .to_string()
                .contains("package has no name")
        );
    }
}
