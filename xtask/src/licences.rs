//! The licence of every package that any build of the workspace takes, against the list of those that a user of Trimtab can accept without
//! reading. Reads `cargo metadata` and `cargo tree`; knows nothing of the code.
//!
//! Cargo.lock and `cargo metadata` also list packages of features that nobody turned on but some dependency mentions
//! weakly (`dep?/feature`); no build has them, on any platform, so they are left out.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;
use spdx::Expression;

use crate::check::cargo_path;

/// Permissive licences: no duty but to keep the notice.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "bzip2-1.0.6",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    // Permissive, for data: the root certificates that Mozilla trusts.
    "CDLA-Permissive-2.0",
];
/// Exceptions to a licence that only widen what it permits.
const ALLOWED_WITH: [&str; 1] = ["LLVM-exception"];
/// Packages allowed by name: (package, licence, why).
const ALLOWED_PACKAGES: [(&str, &str, &str); 3] = [
    (
        "buildid",
        "MPL-2.0",
        "file-level copyleft; used unchanged, below `cubecl-runtime`, where the feature `cuda` is on",
    ),
    (
        "colored",
        "MPL-2.0",
        "file-level copyleft; used unchanged, below `burn-tensor`",
    ),
    (
        "option-ext",
        "MPL-2.0",
        "file-level copyleft; used unchanged, below `dirs`",
    ),
];

/// One package of the lock file.
#[derive(Debug)]
struct Package {
    name: String,
    version: String,
    /// SPDX expression, empty if the package states none.
    expression: String,
    /// Folder of its sources on this machine.
    folder: PathBuf,
}

/// Every package has a licence of the list.
///
/// # Errors
/// The packages that have not, with their licences.
pub fn check(root: &Path) -> anyhow::Result<()> {
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !root.join(name).exists() {
            bail!("{name} is missing at the root");
        }
    }
    let packages = packages(root)?;
    let objections: Vec<String> = packages.iter().filter_map(objection).collect();
    if !objections.is_empty() {
        bail!(
            "{}\nreplace the package, or decide in xtask/src/licences.rs and say why",
            objections.join("\n")
        );
    }
    eprintln!("{} packages, all under permissive licences", packages.len());
    Ok(())
}

/// Prints name, version, licence and the files with its text.
///
/// # Errors
/// `cargo metadata` fails.
pub fn print_table(root: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for package in packages(root)? {
        let files = licence_files(&package.folder);
        let files = if files.is_empty() {
            "no text in the package".to_owned()
        } else {
            files.join(", ")
        };
        let line = format!(
            "{} {}: {} ({files} in {})",
            package.name,
            package.version,
            package.expression,
            package.folder.display()
        );
        // Whoever reads a part, as `head` does, has closed the pipe: that is no error.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    Ok(())
}

fn packages(root: &Path) -> anyhow::Result<Vec<Package>> {
    let built = built_packages(root)?;
    let metadata = cargo_output(root, "metadata --format-version 1 --locked --all-features")?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
    let list = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let mut packages: Vec<Package> = list.iter().map(package).collect::<anyhow::Result<_>>()?;
    packages.retain(|package| built.contains(&(package.name.clone(), package.version.clone())));
    Ok(packages)
}

/// Name and version of every package that a build can take: all members, features, kinds of dependency and platforms.
fn built_packages(root: &Path) -> anyhow::Result<BTreeSet<(String, String)>> {
    let words =
        "tree --workspace --locked --all-features --target all --edges all --prefix none --format {p}";
    let tree = cargo_output(root, words)?;
    let named = tree.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split_whitespace().next()?;
        Some((name.to_owned(), version.to_owned()))
    });
    let built: BTreeSet<_> = named.collect();
    if built.is_empty() {
        bail!("cargo tree lists no packages");
    }
    Ok(built)
}

/// What cargo prints for `words`.
fn cargo_output(root: &Path, words: &str) -> anyhow::Result<String> {
    let output = Command::new(cargo_path())
        .args(words.split(' '))
        .current_dir(root)
        .output()
        .with_context(|| format!("cannot start cargo {words}"))?;
    if !output.status.success() {
        bail!(
            "cargo {words} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("cargo {words} printed no text"))
}

fn package(value: &Value) -> anyhow::Result<Package> {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let manifest = PathBuf::from(text("manifest_path"));
    let folder = manifest
        .parent()
        .context("a manifest lies in a folder")?
        .to_owned();
    Ok(Package {
        name: text("name"),
        version: text("version"),
        expression: text("license"),
        folder,
    })
}

/// Why the package cannot be used; `None` if it can.
fn objection(package: &Package) -> Option<String> {
    let Package {
        name,
        version,
        expression,
        ..
    } = package;
    let by_name = |(allowed, licence, _): &(&str, &str, &str)| name == allowed && expression == licence;
    if ALLOWED_PACKAGES.iter().any(by_name) {
        return None;
    }
    if expression.is_empty() {
        return Some(format!("{name} {version} states no licence"));
    }
    // Old manifests write `MIT/Apache-2.0`, which means OR.
    let modern = expression.replace('/', " OR ");
    match Expression::parse(&modern) {
        Err(error) => Some(format!(
            "{name} {version}: `{expression}` is no licence expression: {}",
            error.reason
        )),
        Ok(parsed) => {
            let is_allowed = parsed.evaluate(|requirement| is_allowed(&requirement.to_string()));
            (!is_allowed).then(|| format!("{name} {version}: `{expression}` is not on the list"))
        }
    }
}

/// One licence, such as `MIT` or `Apache-2.0 WITH LLVM-exception`.
fn is_allowed(licence: &str) -> bool {
    let (id, exception) = match licence.split_once(" WITH ") {
        Some((id, exception)) => (id, Some(exception)),
        None => (licence, None),
    };
    ALLOWED.contains(&id) && exception.is_none_or(|exception| ALLOWED_WITH.contains(&exception))
}

fn licence_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().to_str().map(str::to_owned));
    let starts = ["LICENSE", "LICENCE", "COPYING", "UNLICENSE", "NOTICE"];
    let mut files: Vec<_> = names
        .filter(|name| starts.iter().any(|start| name.to_uppercase().starts_with(start)))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expression: &str, expect: Option<&str>) {
        let package = Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            expression: expression.to_owned(),
            folder: PathBuf::new(),
        };
        let found = objection(&package);
        match expect {
            None => assert_eq!(found, None, "{expression}"),
            Some(part) => assert!(
                found.as_ref().is_some_and(|text| text.contains(part)),
                "{expression}: {found:?}"
            ),
        }
    }

    #[test]
    fn permissive_licences_pass() {
        check("a", "MIT OR Apache-2.0", None);
        check("a", "MIT/Apache-2.0", None);
        check("a", "GPL-3.0-only OR MIT", None);
        check("a", "(MIT OR Apache-2.0) AND Unicode-3.0", None);
        check("a", "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", None);
        check("a", "Apache-2.0 WITH LLVM-exception", None);
        check("option-ext", "MPL-2.0", None);
    }

    #[test]
    fn others_are_named() {
        check("a", "GPL-3.0-only", Some("`GPL-3.0-only` is not on the list"));
        check("a", "MIT AND GPL-3.0-only", Some("is not on the list"));
        check("a", "MPL-2.0", Some("is not on the list"));
        check("option-ext", "GPL-2.0-only", Some("is not on the list"));
        check(
            "a",
            "Apache-2.0 WITH Classpath-exception-2.0",
            Some("is not on the list"),
        );
        check("a", "", Some("states no licence"));
        check("a", "as you like", Some("is no licence expression"));
    }
}
