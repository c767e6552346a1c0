//! Rules about manifests: sorted, versions in one place, nothing unused. Who may depend on whom is `dependencies`.

use std::sync::LazyLock;

use regex::Regex;

use crate::finding::Finding;
use crate::manifest::Manifest;
use crate::sources::SourceFile;

/// A line that opens a list of dependencies, of a target too.
static DEPENDENCY_HEADING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\[(target\..+\.|workspace\.)?(dev-|build-)?dependencies\]\s*$").expect("a constant")
});

/// Within each group of dependency lines (a blank line starts a new group), names stand in alphabetical order.
pub fn check_sorted(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    let mut previous = String::new();
    for (idx, line) in file.text.lines().enumerate() {
        let trimmed = line.trim_end();
        if trimmed.starts_with('[') || trimmed.is_empty() {
            in_dependencies = if trimmed.is_empty() {
                in_dependencies
            } else {
                DEPENDENCY_HEADING.is_match(trimmed)
            };
            previous.clear();
            continue;
        }
        let name = dependency_name(trimmed);
        if let Some(name) = name.filter(|_| in_dependencies) {
            if name < previous.as_str() {
                let message = format!("dependencies are not sorted: `{name}` belongs before `{previous}`");
                findings.push(Finding::new(&file.path, idx + 1, message));
            }
            name.clone_into(&mut previous);
        }
    }
    findings
}

/// `serde` from `serde = "1"` or `serde.workspace = true`; `None` for comments and continuation lines.
fn dependency_name(line: &str) -> Option<&str> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))?;
    let rest = line[end..].trim_start();
    (end > 0 && (rest.starts_with('=') || rest.starts_with('.'))).then_some(&line[..end])
}

/// Members take versions from the workspace and use every dependency that they list.
pub fn check_members(manifests: &[Manifest], rust: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The fuzzers are a workspace of their own, because they need other compiler flags; stand-ins for the packages of
    // others are in none.
    for manifest in manifests
        .iter()
        .filter(|manifest| manifest.path != "fuzz/Cargo.toml" && !manifest.path.starts_with("vendor/"))
    {
        for name in &manifest.own_versions {
            let message =
                format!("`{name}` has its own version; put it into the root's [workspace.dependencies]");
            findings.push(Finding::new(&manifest.path, 0, message));
        }
        let folder = manifest.path.trim_end_matches("Cargo.toml");
        let own: Vec<_> = rust.iter().filter(|file| file.path.starts_with(folder)).collect();
        let code: Vec<_> = own
            .iter()
            .copied()
            .filter(|file| is_production(file, folder))
            .collect();
        let unused = manifest.dependencies.iter().filter(|name| !is_named(name, &code));
        let unused_dev = manifest
            .dev_dependencies
            .iter()
            .filter(|name| !is_named(name, &own));
        for name in unused.chain(unused_dev) {
            findings.push(Finding::new(
                &manifest.path,
                0,
                format!("`{name}` is not used; remove it"),
            ));
        }
    }
    findings
}

fn is_production(file: &SourceFile, folder: &str) -> bool {
    let inside = &file.path[folder.len()..];
    inside.starts_with("src/") || inside == "build.rs"
}

fn is_named(dependency: &str, files: &[&SourceFile]) -> bool {
    let ident = dependency.replace('-', "_");
    let word =
        Regex::new(&format!(r"\b{}\b", regex::escape(&ident))).expect("an escaped name is a valid pattern");
    files.iter().any(|file| word.is_match(&file.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_order(text: &str, expect: &[usize]) {
        let found = check_sorted(&SourceFile::new("Cargo.toml", text));
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expect, "{found:?}");
    }

    #[test]
    fn order_is_checked_in_each_group_of_each_list() {
        check_order("[dependencies]\na = \"1\"\nb.workspace = true\n", &[]);
        check_order("[dependencies]\nb = \"1\"\na.workspace = true\n", &[3]);
        check_order(
            "[workspace.dependencies]\nz = { path = \"z\" }\n\na = \"1\"\n",
            &[],
        );
        check_order(
            "[target.'cfg(unix)'.dev-dependencies]\nb = \"1\"\n# Why a.\na = \"1\"\n",
            &[4],
        );
        check_order("[dependencies]\nb = \"1\"\n[features]\na = []\n", &[]);
        check_order("[lints.clippy]\nb = \"warn\"\na = \"warn\"\n", &[]);
    }

    fn manifest(text: &str) -> Manifest {
        Manifest::parse(&SourceFile::new("crates/a/Cargo.toml", text))
            .unwrap()
            .unwrap()
    }

    fn check_member(dependencies: &str, files: &[(&str, &str)], expect: &[&str]) {
        let member = manifest(&format!("[package]\nname = \"a\"\n{dependencies}"));
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| SourceFile::new(*path, *text))
            .collect();
        let found: Vec<_> = check_members(&[member], &files)
            .into_iter()
            .map(|f| f.message)
            .collect();
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (message, start) in found.iter().zip(expect) {
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn unused_dependencies_and_own_versions_are_found() {
        let uses = ("crates/a/src/lib.rs", "use hf_hub::Api;");
        let tests = ("crates/a/tests/it/main.rs", "use proptest::proptest;");
        check_member("[dependencies]\nhf-hub.workspace = true\n", &[uses], &[]);
        check_member(
            "[dependencies]\nserde.workspace = true\n",
            &[uses],
            &["`serde` is not used"],
        );
        check_member(
            "[dependencies]\nproptest.workspace = true\n",
            &[uses, tests],
            &["`proptest` is not used"],
        );
        check_member(
            "[dev-dependencies]\nproptest.workspace = true\n",
            &[uses, tests],
            &[],
        );
        check_member(
            "[dependencies]\nhf-hub = \"1\"\n",
            &[uses],
            &["`hf-hub` has its own version"],
        );
        // A name that merely contains the crate's name is no use of it.
        check_member(
            "[dependencies]\nhub.workspace = true\n",
            &[uses],
            &["`hub` is not used"],
        );
    }
}
