//! The rules that a compiler does not know, as code: file by file, between crates, and between documents and code.
//! Reads text only and runs no command.

mod dependencies;
mod documents;
mod markdown;
mod papers;
mod source_rules;
mod workspace_rules;

use std::path::Path;

use crate::finding::Finding;
use crate::manifest::Manifest;
use crate::sources::Sources;

/// All broken rules of the tree below `root`, sorted by place.
///
/// # Errors
/// A file cannot be read, or a manifest is not valid.
pub fn findings(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let sources = Sources::read(root)?;
    let mut manifests = Vec::new();
    for file in &sources.manifests {
        manifests.extend(Manifest::parse(file)?);
    }
    let mut findings = Vec::new();
    for file in &sources.rust {
        findings.extend(source_rules::check(file));
    }
    for file in &sources.manifests {
        findings.extend(workspace_rules::check_sorted(file));
    }
    findings.extend(workspace_rules::check_members(&manifests, &sources.rust));
    findings.extend(dependencies::check(
        &manifests,
        sources.document("ARCHITECTURE.md"),
    ));
    findings.extend(papers::check(sources.document("PAPERS.md"), &sources.rust));
    findings.extend(documents::check(&sources.documents, &sources.rust, &|path| {
        root.join(path).exists()
    }));
    findings.sort();
    Ok(findings)
}
