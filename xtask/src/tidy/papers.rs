//! PAPERS.md against the code: every row names a function that exists and a test that exists. Whether the function
//! implements the equation is for the test and the reviewer.

use std::sync::LazyLock;

use regex::Regex;

use super::markdown::{self, MarkdownTable};
use crate::finding::Finding;
use crate::sources::SourceFile;

const DOCUMENT: &str = "PAPERS.md";
/// A row whose function cell starts with this word names an issue instead.
const PLANNED: &str = "planned";

static ITEM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)^\s*(?:pub(?:\([a-z]+\))? )?(?:const )?(?:unsafe )?(?:fn|struct|enum|trait|type|const|static) (\w+)")
        .expect("a constant")
});

/// Checks every table that has a column `Function` and a column `Test`.
pub fn check(document: Option<&SourceFile>, rust: &[SourceFile]) -> Vec<Finding> {
    let Some(document) = document else {
        return vec![Finding::new(
            DOCUMENT,
            0,
            "is missing; it ties equations to functions and tests",
        )];
    };
    let mut findings = Vec::new();
    let mut num_tables = 0;
    for table in markdown::tables(&document.text) {
        if let (Some(function), Some(test)) = (table.column("function"), table.column("test")) {
            num_tables += 1;
            findings.extend(check_table(&table, function, test, rust));
        }
    }
    if num_tables == 0 {
        let message = "has no table with the columns `Function` and `Test`";
        findings.push(Finding::new(DOCUMENT, 0, message));
    }
    findings
}

fn check_table(table: &MarkdownTable, function: usize, test: usize, rust: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, cells) in &table.rows {
        let cell = |idx: usize| cells.get(idx).map_or("", String::as_str);
        if cell(function).to_lowercase().starts_with(PLANNED) {
            continue;
        }
        for (idx, kind) in [(function, Kind::Item), (test, Kind::Test)] {
            let names = markdown::code_spans(cell(idx));
            if names.is_empty() {
                let message = format!("the row names no {} in backticks", kind.noun());
                findings.push(Finding::new(DOCUMENT, *line, message));
            }
            for name in names {
                findings
                    .extend(missing(name, kind, rust).map(|message| Finding::new(DOCUMENT, *line, message)));
            }
        }
    }
    findings
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Anything with a name, outside tests.
    Item,
    /// A function under `#[test]`.
    Test,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Item => "function",
            Self::Test => "test",
        }
    }
}

/// What is wrong with `path`, such as `trimtab_decode::best_of_n::choose`: its first part is a crate, its last an item.
fn missing(path: &str, kind: Kind, rust: &[SourceFile]) -> Option<String> {
    let path = path.trim_end_matches("()");
    let parts: Vec<&str> = path.split("::").collect();
    let (&crate_ident, &item) = (parts.first()?, parts.last()?);
    let crate_name = crate_ident.replace('_', "-");
    let files: Vec<_> = rust
        .iter()
        .filter(|file| file.crate_name() == Some(&crate_name))
        .collect();
    if parts.len() < 2 || files.is_empty() {
        return Some(format!(
            "`{path}` does not start with a crate of this workspace, as in `trimtab_eval::kl::bound`"
        ));
    }
    let exists = files.iter().any(|file| defines(file, item, kind));
    let what = || format!("`{path}`: {crate_name} has no {} `{item}`", kind.noun());
    (!exists).then(what)
}

fn defines(file: &SourceFile, item: &str, kind: Kind) -> bool {
    match kind {
        Kind::Item => {
            let is_item = |text: &str| ITEM.captures_iter(text).any(|found| &found[1] == item);
            !file.is_test() && is_item(&production_text(file))
        }
        Kind::Test => has_test(&file.text, item),
    }
}

fn production_text(file: &SourceFile) -> String {
    file.text
        .lines()
        .take(file.inline_tests_start())
        .collect::<Vec<_>>()
        .join("\n")
}

/// True if `fn item` stands below `#[test]`, other attributes and comments between them allowed.
fn has_test(text: &str, item: &str) -> bool {
    let mut under_attribute = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            under_attribute = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next();
            if under_attribute && name == Some(item) {
                return true;
            }
            under_attribute = false;
        } else if !(line.is_empty() || line.starts_with("#[") || line.starts_with("//")) {
            under_attribute = false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_rows(rows: &str, expect: &[(usize, &str)]) {
        let code = "pub(crate) fn bound(n: u32) {}\npub struct Law;\n#[cfg(test)]\nmod tests {\nfn helper() {}\n\
                    #[test]\n// Why.\nfn bound_is_log_n() {}\n}\n";
        let rust = [
            SourceFile::new("crates/trimtab-eval/src/kl.rs", code),
            SourceFile::new(
                "crates/trimtab-eval/tests/it/main.rs",
                "#[test]\nfn law_is_exact() {\n}\n",
            ),
        ];
        let text = format!("| Key | Equation | Function | Tests |\n|---|---|---|---|\n{rows}");
        let found = check(Some(&SourceFile::new(DOCUMENT, text)), &rust);
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (finding, (line, part)) in found.iter().zip(expect) {
            assert_eq!(finding.line, *line, "{finding}");
            assert!(finding.message.contains(part), "{finding}");
        }
    }

    #[test]
    fn rows_that_name_what_exists_pass() {
        check_rows(
            "| A | 1 | `trimtab_eval::kl::bound` | `trimtab_eval::kl::tests::bound_is_log_n` |\n",
            &[],
        );
        check_rows(
            "| A | 1 | `trimtab_eval::Law` | `trimtab_eval::law_is_exact` |\n",
            &[],
        );
        check_rows("| A | 2 | planned, issue 7 | |\n", &[]);
    }

    #[test]
    fn rows_that_name_what_does_not_exist_are_found() {
        let test = "`trimtab_eval::law_is_exact`";
        check_rows(
            &format!("| A | 1 | `trimtab_eval::gone` | {test} |\n"),
            &[(3, "no function `gone`")],
        );
        check_rows(
            &format!("| A | 1 | `trimtab_eval::helper` | {test} |\n"),
            &[(3, "no function `helper`")],
        );
        check_rows(
            &format!("| A | 1 | `bound` | {test} |\n"),
            &[(3, "does not start with a crate")],
        );
        check_rows(
            &format!("| A | 1 | bound | {test} |\n"),
            &[(3, "names no function")],
        );
        check_rows("| A | 1 | `trimtab_eval::bound` | – |\n", &[(3, "names no test")]);
        check_rows(
            "| A | 1 | `trimtab_eval::bound` | `trimtab_eval::helper` |\n",
            &[(3, "no test `helper`")],
        );
        check_rows(
            "| A | 1 | `trimtab_eval::bound` | `trimtab_eval::bound` |\n",
            &[(3, "no test `bound`")],
        );
    }

    #[test]
    fn a_missing_document_or_table_is_found() {
        assert_eq!(check(None, &[]).len(), 1);
        assert_eq!(
            check(
                Some(&SourceFile::new(DOCUMENT, "| A | B |\n|--|--|\n| 1 | 2 |\n")),
                &[]
            )
            .len(),
            1
        );
    }
}
