//! Rules about one Rust file, judged line by line. Not a parser: text inside string literals can be mistaken for code,
//! which is why the patterns are anchored to how such code is written.

use std::sync::LazyLock;

use regex::Regex;

use crate::finding::Finding;
use crate::sources::SourceFile;

/// Lines of a file without its inline tests; the aim is 100 to 300.
const MAX_LINES: usize = 500;
/// Lines of a file that holds nothing but tests: cases are read one by one, so there may be more of them.
const MAX_TEST_LINES: usize = 800;
/// The one crate that may hold `unsafe`.
const UNSAFE_CRATE: &str = "trimtab-kernels";
/// Holds the patterns as text, and would be found by them.
const THIS_FILE: &str = "xtask/src/tidy/source_rules.rs";
/// Names that say nothing, and so collect everything.
const VAGUE_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "misc", "manager"];

/// A pattern that a line must not have.
struct LineRule {
    pattern: LazyLock<Regex>,
    applies: fn(file: &SourceFile, in_tests: bool) -> bool,
    message: &'static str,
}

static LINE_RULES: [LineRule; 6] = [
    LineRule {
        pattern: LazyLock::new(|| pattern(r"^\s*#\[ignore\b")),
        applies: |_, _| true,
        message: "ignored tests rot; make it fast, or let it skip with a printed reason when its input is absent",
    },
    LineRule {
        pattern: LazyLock::new(|| pattern(r"\bthread::sleep\(|^\s*sleep\(")),
        applies: |_, in_tests| in_tests,
        message: "a test must not sleep; wait for the event itself, or pass the clock in",
    },
    LineRule {
        pattern: LazyLock::new(|| pattern(r"//.*\b(TODO|FIXME|XXX)\b")),
        applies: |_, _| true,
        message: "write an issue instead, or do it now",
    },
    LineRule {
        pattern: LazyLock::new(|| {
            pattern(r"^[^/]*\bunsafe\s*(\{|fn\b|impl\b|extern\b|trait\b)|allow\(unsafe_code")
        }),
        applies: |file, _| file.crate_name() != Some(UNSAFE_CRATE),
        message: "only trimtab-kernels holds unsafe code; add a safe function there",
    },
    LineRule {
        pattern: LazyLock::new(|| pattern(r#"^\s*#!?\[allow\([^="]*\)\]\s*$"#)),
        applies: |_, _| true,
        message: "say why: #[expect(lint, reason = \"...\")]",
    },
    LineRule {
        pattern: LazyLock::new(|| pattern(r"\bdims\(\)\[")),
        applies: |_, _| true,
        message: "read shapes by destructuring all axes, so that a wrong axis does not compile",
    },
];

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant that the tests compile")
}

/// Everything that is wrong with `file`.
pub fn check(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(check_header(file));
    findings.extend(check_name(file));
    findings.extend(check_length(file));
    if file.path != THIS_FILE {
        findings.extend(check_lines(file));
    }
    findings
}

fn check_header(file: &SourceFile) -> Option<Finding> {
    let first = file
        .text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    // A fuzz target starts with `#![no_main]`, which may stand before the header.
    let has_header = first.starts_with("//!")
        || (first.starts_with("#![") && file.text.lines().take(5).any(|line| line.starts_with("//!")));
    let message = "starts without a `//!` header: say what the file knows and what it does not";
    // A `tests.rs` speaks for the file beside it.
    let is_unit_test = file.path.ends_with("/tests.rs") && file.path.contains("/src/");
    (!has_header && !is_unit_test).then(|| Finding::new(&file.path, 1, message))
}

fn check_name(file: &SourceFile) -> Option<Finding> {
    let is_vague = file
        .path
        .split('/')
        .any(|part| VAGUE_NAMES.contains(&part.trim_end_matches(".rs")));
    let message = "the name says nothing about the content; name the file after its one noun";
    is_vague.then(|| Finding::new(&file.path, 0, message))
}

fn check_length(file: &SourceFile) -> Option<Finding> {
    let (num_lines, max_lines, what) = if file.is_test() {
        (file.text.lines().count(), MAX_TEST_LINES, "of tests")
    } else {
        (file.inline_tests_start(), MAX_LINES, "without tests")
    };
    let message = || format!("{num_lines} lines {what}, at most {max_lines} are allowed; split by nouns");
    (num_lines > max_lines).then(|| Finding::new(&file.path, 0, message()))
}

fn check_lines(file: &SourceFile) -> Vec<Finding> {
    let tests_start = if file.is_test() {
        0
    } else {
        file.inline_tests_start()
    };
    let mut findings = Vec::new();
    for (idx, line) in file.text.lines().enumerate() {
        let in_tests = idx >= tests_start;
        for rule in &LINE_RULES {
            if (rule.applies)(file, in_tests) && rule.pattern.is_match(line) {
                findings.push(Finding::new(&file.path, idx + 1, rule.message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines and the first words of what is found in `text`, a header added.
    fn check_body(path: &str, body: &str, expect: &[(usize, &str)]) {
        let found = check(&SourceFile::new(path, format!("//! Knows nothing.\n{body}")));
        assert_eq!(found.len(), expect.len(), "{body:?} in {path}: {found:?}");
        for (finding, (line, start)) in found.iter().zip(expect) {
            assert_eq!(finding.line, *line, "{finding}");
            assert!(finding.message.starts_with(start), "{finding}, expected {start}");
        }
    }

    const LIB: &str = "crates/trimtab-base/src/lib.rs";

    #[test]
    fn clean_code_passes() {
        check_body(
            LIB,
            "fn f() -> f32 {\n    std::thread::sleep(PAUSE);\n    1.0\n}\n",
            &[],
        );
        check_body("crates/trimtab-kernels/src/a.rs", "unsafe { f() }\n", &[]);
        check_body(LIB, "// Nothing here is unsafe { at all.\n", &[]);
        check_body(LIB, "#![allow(clippy::a, reason = \"sound\")]\n", &[]);
    }

    #[test]
    fn a_file_needs_a_header() {
        let check_text = |text: &str| check(&SourceFile::new(LIB, text)).len();
        assert_eq!(check_text("fn f() {}\n"), 1);
        assert_eq!(check_text("\n// A comment.\nfn f() {}\n"), 1);
        assert_eq!(check_text("#![no_main]\n//! Feeds bytes.\n"), 0);
        assert_eq!(check_text("#![no_main]\nfn f() {}\n"), 1);
    }

    #[test]
    fn forbidden_lines_are_found() {
        check_body(LIB, "#[test]\n#[ignore]\nfn f() {}\n", &[(3, "ignored tests")]);
        check_body(LIB, "    #[ignore = \"slow\"]\n", &[(2, "ignored tests")]);
        check_body(LIB, concat!("// TO", "DO: later\n"), &[(2, "write an issue")]);
        check_body(LIB, "let x = unsafe { f() };\n", &[(2, "only trimtab-kernels")]);
        check_body(LIB, "pub unsafe fn f() {}\n", &[(2, "only trimtab-kernels")]);
        check_body(
            LIB,
            "#![allow(unsafe_code, reason = \"I know better\")]\n",
            &[(2, "only trimtab-kernels")],
        );
        check_body(LIB, "#[allow(dead_code)]\n", &[(2, "say why")]);
        check_body(LIB, "let heads = x.dims()[1];\n", &[(2, "read shapes")]);
    }

    #[test]
    fn sleeping_is_forbidden_in_tests_only() {
        let body = concat!("fn f() { thread::", "sleep(P); }\n");
        check_body(LIB, body, &[]);
        check_body(
            "crates/trimtab-base/tests/it/main.rs",
            body,
            &[(2, "a test must not sleep")],
        );
        check_body(
            "crates/trimtab-base/src/a/tests.rs",
            body,
            &[(2, "a test must not sleep")],
        );
        check_body(
            LIB,
            &format!("#[cfg(test)]\nmod tests {{\n{body}}}\n"),
            &[(4, "a test must not sleep")],
        );
    }

    #[test]
    fn vague_names_are_found_in_files_and_folders() {
        for path in [
            "crates/trimtab-base/src/utils.rs",
            "crates/trimtab-base/src/common/mod.rs",
        ] {
            check_body(path, "", &[(0, "the name says nothing")]);
        }
        check_body("crates/trimtab-base/src/common_prefix.rs", "", &[]);
    }

    #[test]
    fn length_is_counted_without_tests() {
        let code = "fn f() {}\n".repeat(MAX_LINES);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        check_body(LIB, &code, &[(0, "501 lines without tests")]);
        check_body(LIB, &tests, &[]);
        for path in [
            "crates/trimtab-base/tests/it/main.rs",
            "crates/trimtab-base/src/a/tests.rs",
        ] {
            check_body(path, &code, &[]);
            check_body(
                path,
                &"fn f() {}\n".repeat(MAX_TEST_LINES),
                &[(0, "801 lines of tests")],
            );
        }
    }
}
