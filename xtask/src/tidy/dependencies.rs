//! Who may depend on whom: ARCHITECTURE.md's tables against the manifests, and the absences that must never change.
//! Looks at normal and build dependencies; tests may use what they like.

use std::collections::{BTreeMap, BTreeSet};

use super::markdown::{self, MarkdownTable};
use crate::finding::Finding;
use crate::manifest::Manifest;
use crate::sources::SourceFile;

const DOCUMENT: &str = "ARCHITECTURE.md";

/// Crates that may only ever depend on these crates of the workspace. Held here as well as in the document, so that
/// one edit cannot move a boundary by accident.
const ONLY_ON: [(&str, &[&str]); 5] = [
    ("trimtab-base", &[]),
    ("trimtab-kernels", &[]),
    ("trimtab-decode", &["trimtab-base"]),
    ("trimtab-tokenizer", &["trimtab-base", "trimtab-checkpoint"]),
    ("trimtab-checkpoint", &["trimtab-base", "trimtab-kernels"]),
];

/// Crates that never see the model or what runs it: they work on text, numbers and files.
const NEVER_ON_THE_MODEL: [&str; 6] = [
    "trimtab-checkpoint",
    "trimtab-decode",
    "trimtab-eval",
    "trimtab-reward",
    "trimtab-store",
    "trimtab-tokenizer",
];
const MODEL_SIDE: [&str; 3] = ["trimtab-engine", "trimtab-model", "trimtab-runtime"];

/// Libraries return typed errors; only programs may use untyped ones.
const ANYHOW_USERS: [&str; 2] = ["trimtab-cli", "xtask"];

/// Checks the members against `document` and against the fixed absences.
pub fn check(manifests: &[Manifest], document: Option<&SourceFile>) -> Vec<Finding> {
    let mut findings = check_fixed(manifests);
    let Some(document) = document else {
        findings.push(Finding::new(
            DOCUMENT,
            0,
            "is missing; it holds the table of crates",
        ));
        return findings;
    };
    let tables = markdown::tables(&document.text);
    let find = |name: &str| tables.iter().find(|table| table.marker.as_deref() == Some(name));
    match find("crates") {
        Some(table) => findings.extend(check_crates(manifests, table)),
        None => findings.push(missing_table("crates", "Crate | Depends on")),
    }
    match find("exclusive") {
        Some(table) => findings.extend(check_exclusive(manifests, table)),
        None => findings.push(missing_table("exclusive", "Library | Only in")),
    }
    findings
}

fn missing_table(name: &str, columns: &str) -> Finding {
    let message = format!("has no table `| {columns} |` below a line `<!-- xtask: {name} -->`");
    Finding::new(DOCUMENT, 0, message)
}

fn check_fixed(manifests: &[Manifest]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in manifests {
        let name = manifest.name.as_str();
        let only = ONLY_ON
            .iter()
            .find(|(limited, _)| *limited == name)
            .map(|(_, allowed)| *allowed);
        for used in &manifest.dependencies {
            let breaks_limit =
                used.starts_with("trimtab-") && only.is_some_and(|allowed| !allowed.contains(&used.as_str()));
            let sees_model = NEVER_ON_THE_MODEL.contains(&name) && MODEL_SIDE.contains(&used.as_str());
            let is_untyped = used == "anyhow" && !ANYHOW_USERS.contains(&name);
            let message = if sees_model {
                format!("{name} must never depend on {used}: it works without a model")
            } else if breaks_limit {
                format!(
                    "{name} must not depend on {used}; of this workspace it may use {:?}",
                    only.unwrap_or_default()
                )
            } else if used == "trimtab-cli" {
                format!("{name} must not depend on the command line")
            } else if is_untyped {
                format!("{name} is a library: give it an error type instead of anyhow")
            } else {
                continue;
            };
            findings.push(Finding::new(&manifest.path, 0, message));
        }
    }
    findings
}

/// The names in backticks in one cell.
fn names(cell: &str) -> BTreeSet<String> {
    markdown::code_spans(cell)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Key of each row to its line and the names of its second column.
fn rows(table: &MarkdownTable) -> BTreeMap<String, (usize, BTreeSet<String>)> {
    let mut rows = BTreeMap::new();
    for (line, cells) in &table.rows {
        let keys = names(cells.first().map_or("", String::as_str));
        let values = names(cells.get(1).map_or("", String::as_str));
        for key in keys {
            rows.insert(key, (*line, values.clone()));
        }
    }
    rows
}

/// Each member has a row, and its dependencies inside the workspace are exactly those of the row.
fn check_crates(manifests: &[Manifest], table: &MarkdownTable) -> Vec<Finding> {
    let mut rows = rows(table);
    let mut findings = Vec::new();
    for manifest in manifests
        .iter()
        .filter(|manifest| manifest.path.starts_with("crates/"))
    {
        let Some((line, stated)) = rows.remove(&manifest.name) else {
            findings.push(Finding::new(
                DOCUMENT,
                0,
                format!("the table of crates lacks `{}`", manifest.name),
            ));
            continue;
        };
        let used: BTreeSet<String> = manifest
            .dependencies
            .iter()
            .filter(|name| name.starts_with("trimtab-"))
            .cloned()
            .collect();
        findings.extend(difference(&manifest.name, line, &used, &stated));
    }
    let gone = rows
        .into_iter()
        .map(|(name, (line, _))| Finding::new(DOCUMENT, line, format!("no crate `{name}`")));
    findings.extend(gone);
    findings
}

fn difference(name: &str, line: usize, used: &BTreeSet<String>, stated: &BTreeSet<String>) -> Vec<Finding> {
    let undeclared = used
        .difference(stated)
        .map(|extra| format!("`{name}` depends on `{extra}`, not stated here"));
    let stale = stated
        .difference(used)
        .map(|extra| format!("`{name}` does not depend on `{extra}`, stated here"));
    undeclared
        .chain(stale)
        .map(|message| Finding::new(DOCUMENT, line, message))
        .collect()
}

/// Each library of the table is used in exactly the crates of its row.
fn check_exclusive(manifests: &[Manifest], table: &MarkdownTable) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (library, (line, stated)) in rows(table) {
        let uses_it = |manifest: &&Manifest| manifest.dependencies.contains(&library);
        let users: BTreeSet<String> = manifests
            .iter()
            .filter(uses_it)
            .map(|manifest| manifest.name.clone())
            .collect();
        let unstated = users
            .difference(&stated)
            .map(|user| format!("`{user}` uses `{library}`, not allowed here"));
        let stale = stated
            .difference(&users)
            .map(|user| format!("`{user}` does not use `{library}`, stated here"));
        findings.extend(
            unstated
                .chain(stale)
                .map(|message| Finding::new(DOCUMENT, line, message)),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, dependencies: &[&str]) -> Manifest {
        let lines: Vec<_> = dependencies
            .iter()
            .map(|used| format!("{used}.workspace = true"))
            .collect();
        let lines = lines.join("\n");
        let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{lines}");
        Manifest::parse(&SourceFile::new(format!("crates/{name}/Cargo.toml"), text))
            .unwrap()
            .unwrap()
    }

    const EXCLUSIVE: &str =
        "<!-- xtask: exclusive -->\n| Library | Only in |\n|---|---|\n| `ureq` | `trimtab-store` |\n";

    /// Messages of `check` for `members` and a document whose table of crates has these rows.
    fn check_all(members: &[Manifest], rows: &str, expect: &[&str]) {
        let text = format!("<!-- xtask: crates -->\n| Crate | Depends on |\n|---|---|\n{rows}\n{EXCLUSIVE}");
        let document = SourceFile::new(DOCUMENT, text);
        let found: Vec<_> = check(members, Some(&document))
            .into_iter()
            .map(|f| f.message)
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_document_that_tells_the_truth_passes() {
        let members = [
            member("trimtab-base", &["serde"]),
            member("trimtab-store", &["trimtab-base", "ureq"]),
            member("trimtab-cli", &["anyhow", "trimtab-base", "trimtab-store"]),
        ];
        let rows = "| `trimtab-base` | nothing |\n| `trimtab-store` | `trimtab-base` |\n\
                    | `trimtab-cli` | `trimtab-base`, `trimtab-store` |\n";
        check_all(&members, rows, &[]);
    }

    #[test]
    fn unstated_and_stale_edges_are_found() {
        let store = member("trimtab-store", &["trimtab-base", "ureq"]);
        check_all(
            std::slice::from_ref(&store),
            "| `trimtab-store` | – |\n",
            &["`trimtab-store` depends on `trimtab-base`, not stated here"],
        );
        check_all(
            std::slice::from_ref(&store),
            "| `trimtab-store` | `trimtab-base`, `trimtab-kernels` |\n",
            &["`trimtab-store` does not depend on `trimtab-kernels`, stated here"],
        );
        check_all(
            std::slice::from_ref(&store),
            "| `trimtab-old` | – |\n",
            &[
                "the table of crates lacks `trimtab-store`",
                "no crate `trimtab-old`",
            ],
        );
    }

    #[test]
    fn exclusive_libraries_stay_where_they_are() {
        let members = [member("trimtab-reward", &["ureq"])];
        let expect = [
            "`trimtab-reward` uses `ureq`, not allowed here",
            "`trimtab-store` does not use `ureq`, stated here",
        ];
        check_all(&members, "| `trimtab-reward` | – |\n", &expect);
    }

    fn check_absence(name: &str, used: &str, expect: &str) {
        let found = check_fixed(&[member(name, &[used])]);
        let messages: Vec<_> = found.iter().map(|finding| finding.message.as_str()).collect();
        match expect {
            "" => assert!(messages.is_empty(), "{messages:?}"),
            start => assert!(
                messages.len() == 1 && messages[0].starts_with(start),
                "{messages:?}"
            ),
        }
    }

    #[test]
    fn fixed_absences_hold_whatever_the_document_says() {
        check_absence("trimtab-decode", "trimtab-base", "");
        check_absence(
            "trimtab-decode",
            "trimtab-reward",
            "trimtab-decode must not depend on trimtab-reward",
        );
        check_absence(
            "trimtab-kernels",
            "trimtab-base",
            "trimtab-kernels must not depend on trimtab-base",
        );
        check_absence(
            "trimtab-reward",
            "trimtab-model",
            "trimtab-reward must never depend on trimtab-model",
        );
        check_absence(
            "trimtab-eval",
            "trimtab-engine",
            "trimtab-eval must never depend on trimtab-engine",
        );
        check_absence("trimtab-store", "anyhow", "trimtab-store is a library");
        check_absence("trimtab-cli", "anyhow", "");
        check_absence("trimtab-engine", "trimtab-model", "");
        check_absence(
            "trimtab-engine",
            "trimtab-cli",
            "trimtab-engine must not depend on the command line",
        );
    }

    #[test]
    fn a_missing_document_or_table_is_found() {
        let found = check(&[], None);
        assert_eq!(found.len(), 1, "{found:?}");
        let without_tables = SourceFile::new(DOCUMENT, "# Architecture\n");
        assert_eq!(check(&[], Some(&without_tables)).len(), 2);
    }
}
