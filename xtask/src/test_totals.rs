//! Counts tests from what `cargo test` and `cargo nextest` print, for one plain closing line. Runs nothing.

use std::sync::LazyLock;

use regex::Regex;

static CARGO_TEST: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored").expect("a constant")
});
static NEXTEST: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*Summary \[.*\] .*tests? run: (\d+) passed(?: \(.*?\))?(?:, (\d+) failed)?(?:, (\d+) timed out)?(?:, (\d+) skipped)?")
        .expect("a constant")
});

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TestTotals {
    /// Passed.
    pub passed: u64,
    /// Failed or timed out.
    pub failed: u64,
    /// Ignored or filtered out.
    pub skipped: u64,
}

impl TestTotals {
    /// Adds what one printed line says; most lines say nothing.
    pub fn read_line(&mut self, line: &str) {
        let line = strip_colours(line);
        let count = |text: Option<regex::Match<'_>>| text.map_or(0, |m| m.as_str().parse().unwrap_or(0));
        if let Some(found) = CARGO_TEST.captures(&line) {
            self.passed += count(found.get(1));
            self.failed += count(found.get(2));
            self.skipped += count(found.get(3));
        } else if let Some(found) = NEXTEST.captures(&line) {
            self.passed += count(found.get(1));
            self.failed += count(found.get(2)) + count(found.get(3));
            self.skipped += count(found.get(4));
        }
    }

    /// True if no line named a test.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// `line` without escape sequences of terminals.
fn strip_colours(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], passed: u64, failed: u64, skipped: u64) {
        let mut totals = TestTotals::default();
        for line in lines {
            totals.read_line(line);
        }
        let expect = TestTotals {
            passed,
            failed,
            skipped,
        };
        assert_eq!(totals, expect, "{lines:?}");
    }

    #[test]
    fn both_runners_are_understood() {
        let first =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        let second = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        check(&[first, "running 5 tests", second], 15, 2, 1);
        check(
            &["     Summary [   1.234s] 30 tests run: 30 passed, 0 skipped"],
            30,
            0,
            0,
        );
        check(
            &["     Summary [   1.2s] 31 tests run: 29 passed (1 slow), 2 failed, 4 skipped"],
            29,
            2,
            4,
        );
        check(
            &["     Summary [   1.2s] 3/31 tests run: 2 passed, 1 timed out, 28 skipped"],
            2,
            1,
            28,
        );
        check(
            &["\u{1b}[32;1m     Summary\u{1b}[0m [ 1.2s] 1 test run: \u{1b}[1m1\u{1b}[0m passed, 0 skipped"],
            1,
            0,
            0,
        );
        check(&["a test that prints: 3 passed; 2 failed"], 0, 0, 0);
    }
}
