//! The rules of the table, and that the built-in one keeps them.

use super::*;

const A: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A correct table with one model, of which each test spoils one thing.
fn good() -> String {
    format!(
        r#"
[[model]]
alias = "m"
summary = "s"
licence = "MIT"
files = [{{ name = "m.gguf", size_bytes = 5, sha256 = "{A}" }}]
[[model.sources]]
kind = "hub"
repo = "o/n"
revision = "abc"
paths = ["sub/m.gguf"]
[[model.sources]]
kind = "pypi"
pieces = [
  {{ package = "p1", version = "1", download_bytes = 9, member = "p1/a", slices = [{{ file = "m.gguf", size_bytes = 3, sha256 = "{A}" }}] }},
  {{ package = "p2", version = "1", download_bytes = 9, member = "p2/a", slices = [{{ file = "m.gguf", size_bytes = 2, sha256 = "{A}" }}] }},
]
"#
    )
}

fn check_refused(from: &str, to: &str, names: &str) {
    let text = good().replacen(from, to, 1);
    assert_ne!(text, good(), "{from:?} is not in the table");
    let error = Table::parse(&text)
        .expect_err(&format!("accepted {to:?}"))
        .to_string();
    assert!(error.contains(names), "for {to:?}: {error}");
}

#[test]
fn a_good_table_is_read() {
    let table = Table::parse(&good()).unwrap();
    let model = table.find("m").unwrap();
    assert_eq!(model.size_bytes(), 5);
    let sources: Vec<String> = model.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["hub o/n@abc", "PyPI p1==1 and 1 more"]);
    assert!(table.find("n").is_none());
}

#[test]
fn each_rule_is_enforced() {
    check_refused("\"m\"", "\"../m\"", "file name");
    check_refused("\"m\"", "\"hub--o--n\"", "'--'");
    check_refused("name = \"m.gguf\"", "name = \"a/m.gguf\"", "not allowed");
    check_refused("size_bytes = 5", "size_bytes = 0", "got 0");
    check_refused(
        "size_bytes = 3",
        "size_bytes = 9223372036854775807",
        "got 9223372036854775807",
    );
    check_refused("download_bytes = 9", "download_bytes = 0", "got 0");
    check_refused("size_bytes = 5", "size_bytes = 6", "5 of 6 bytes");
    check_refused(A, &A[1..], "sha256");
    check_refused("[\"sub/m.gguf\"]", "[]", "1 paths, got 0");
    check_refused("[\"sub/m.gguf\"]", "[\"../m.gguf\"]", "file name");
    check_refused("\"p1\"", "\"--index-url=x\"", "package name or version");
    check_refused("\"p1\"", "\"https://x\"", "package name or version");
    check_refused("\"p1\"", "\"./p1\"", "package name or version");
    check_refused(
        "file = \"m.gguf\"",
        "file = \"n.gguf\"",
        "slices of the model's files",
    );
    check_refused("kind = \"hub\"", "kind = \"ftp\"", "ftp");
    check_refused("summary", "sumary", "sumary");
    let twice = format!("{0}{0}", good());
    assert!(Table::parse(&twice).unwrap_err().to_string().contains("twice"));
}

#[test]
fn scoped_npm_packages_are_allowed() {
    Table::parse(&good().replace("\"p1\"", "\"@scope/p1\"")).unwrap();
}

#[test]
fn the_built_in_table_keeps_the_rules() {
    let table = Table::built_in().unwrap();
    for wanted in [
        "smollm2-135m-instruct",
        "stories15m",
        "gemma3-270m",
        "qwen2.5-coder-0.5b-instruct",
        "qwen2.5-coder-1.5b-instruct",
    ] {
        assert!(table.find(wanted).is_some(), "{wanted} is not in the table");
    }
    for model in &table.models {
        assert!(
            !model.licence.is_empty() && !model.summary.contains('\n'),
            "{}",
            model.alias
        );
    }
}

#[test]
fn policies_are_read_from_text() {
    for (text, expect) in [
        ("any", Some(SourcePolicy::Any)),
        ("hub", Some(SourcePolicy::Only(SourceKind::Hub))),
        ("pypi", Some(SourcePolicy::Only(SourceKind::Pypi))),
        ("npm", Some(SourcePolicy::Only(SourceKind::Npm))),
        ("offline", Some(SourcePolicy::Offline)),
        ("PyPI", None),
        ("", None),
    ] {
        assert_eq!(text.parse().ok(), expect, "for {text:?}");
    }
}
