//! The one gate: steps in order of cost, each a command or a rule of this program, up to the first that fails. Knows
//! how to run and report steps; what the rules are is in `tidy` and `licences`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::test_totals::TestTotals;
use crate::{fuzz, licences, tidy};

/// One gate.
#[derive(Debug)]
pub struct Step {
    /// What `--only` and `--skip` call it.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// What to type to see the same failure again, or to repair it.
    pub repair: &'static str,
    /// Part of `--fast`.
    pub is_fast: bool,
    run: fn(&Path) -> anyhow::Result<Outcome>,
}

/// How a step that did not fail ended.
#[derive(Debug)]
enum Outcome {
    Passed(TestTotals),
    Skipped(String),
}

/// Which steps to run.
#[derive(Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// Those that build neither tests nor fuzzers.
    Fast,
    /// These.
    Only(Vec<String>),
    /// All but these.
    Skip(Vec<String>),
    /// None: print them.
    List,
}

impl Selection {
    fn has(&self, step: &Step) -> bool {
        match self {
            Self::All => true,
            Self::Fast => step.is_fast,
            Self::Only(names) => names.iter().any(|name| name == step.name),
            Self::Skip(names) => names.iter().all(|name| name != step.name),
            Self::List => false,
        }
    }
}

/// Every feature but `cuda` and those that refine it, which take minutes to build and need a GPU to be tried.
const FEATURES: &str = "--features trimtab-base/testing,trimtab-decode/testing,trimtab-runtime/testing";

/// Every gate, cheapest first.
pub const STEPS: [Step; 8] = [
    Step {
        name: "fmt",
        about: "formatting",
        repair: "cargo fmt --all",
        is_fast: true,
        run: |root| cargo(root, "fmt --all --check"),
    },
    Step {
        name: "tidy",
        about: "rules of the repository: headers, sizes, dependency direction, PAPERS.md, commands in documents",
        repair: "cargo xtask check --only tidy",
        is_fast: true,
        run: check_tidy,
    },
    Step {
        name: "licences",
        about: "the licence of every package in Cargo.lock",
        repair: "cargo xtask licences",
        is_fast: true,
        run: |root| licences::check(root).map(|()| Outcome::Passed(TestTotals::default())),
    },
    Step {
        name: "clippy",
        about: "lints, warnings are errors",
        repair: "cargo clippy --workspace --all-targets --locked -- -D warnings",
        is_fast: true,
        run: |root| {
            cargo(
                root,
                &format!("clippy --workspace --all-targets {FEATURES} --locked -- -D warnings"),
            )
        },
    },
    Step {
        name: "doc",
        about: "documentation builds without warnings",
        repair: "RUSTDOCFLAGS=\"-D warnings\" cargo doc --workspace --no-deps --locked",
        is_fast: false,
        run: |root| cargo(root, "doc --workspace --no-deps --locked"),
    },
    Step {
        name: "fuzz",
        about: "the fuzz targets compile, and mutations of their seeds break nothing",
        repair: "cargo test --manifest-path fuzz/Cargo.toml --lib",
        is_fast: false,
        run: check_fuzz,
    },
    Step {
        name: "test",
        about: "unit and integration tests",
        repair: "cargo test --workspace --locked",
        is_fast: false,
        run: run_tests,
    },
    Step {
        name: "doctest",
        about: "examples in the documentation",
        repair: "cargo test --workspace --locked --doc",
        is_fast: false,
        run: |root| cargo_tests(root, "test --workspace --locked --doc"),
    },
];

/// Runs the selected steps and prints a table of them; stops at the first that fails.
///
/// # Errors
/// The step that failed, and what to run.
pub fn run(root: &Path, selection: &Selection) -> anyhow::Result<()> {
    if *selection == Selection::List {
        for step in &STEPS {
            println!("{:<9} {}\n{:<9}   {}", step.name, step.about, "", step.repair);
        }
        return Ok(());
    }
    let mut lines = Vec::new();
    let mut totals = TestTotals::default();
    let mut failure = None;
    for step in STEPS.iter().filter(|step| selection.has(step)) {
        eprintln!("==> {}: {}", step.name, step.about);
        let start = Instant::now();
        let result = (step.run)(root);
        lines.push(summary_line(step.name, &result, start.elapsed()));
        match result {
            Ok(Outcome::Passed(more)) => add(&mut totals, more),
            Ok(Outcome::Skipped(_)) => {}
            Err(error) => {
                failure = Some((step, error));
                break;
            }
        }
    }
    println!("\n{}", lines.join("\n"));
    if !totals.is_empty() {
        println!(
            "{} passed, {} failed, {} skipped",
            totals.passed, totals.failed, totals.skipped
        );
    }
    match failure {
        None => Ok(()),
        Some((step, error)) => bail!("step `{}` failed: {error:#}\nnow run: {}", step.name, step.repair),
    }
}

fn add(totals: &mut TestTotals, more: TestTotals) {
    totals.passed += more.passed;
    totals.failed += more.failed;
    totals.skipped += more.skipped;
}

fn summary_line(name: &str, result: &anyhow::Result<Outcome>, elapsed: Duration) -> String {
    let state = match result {
        Ok(Outcome::Passed(_)) => "ok".to_owned(),
        Ok(Outcome::Skipped(reason)) => format!("skipped: {reason}"),
        Err(_) => "FAILED".to_owned(),
    };
    format!("{name:<9} {:>7.1} s  {state}", elapsed.as_secs_f64())
}

fn check_tidy(root: &Path) -> anyhow::Result<Outcome> {
    let findings = tidy::findings(root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!(
            "{} places break a rule of the repository, listed above",
            findings.len()
        );
    }
    Ok(Outcome::Passed(TestTotals::default()))
}

fn check_fuzz(root: &Path) -> anyhow::Result<Outcome> {
    if let Some(reason) = fuzz::missing_tool(root) {
        return Ok(Outcome::Skipped(reason));
    }
    let place = "--manifest-path fuzz/Cargo.toml --locked --target-dir target";
    cargo(root, &format!("check {place}"))?;
    // The library alone: what a target does, without libFuzzer's own `main`.
    cargo_tests(root, &format!("test {place} --lib"))
}

/// nextest if it is installed: it runs the tests of all crates at once. Otherwise what every Rust installation has.
fn run_tests(root: &Path) -> anyhow::Result<Outcome> {
    let probe = Command::new(cargo_path()).args(["nextest", "--version"]).output();
    if probe.is_ok_and(|output| output.status.success()) {
        cargo_tests(
            root,
            &format!("nextest run --workspace {FEATURES} --locked --no-fail-fast --status-level slow"),
        )
    } else {
        cargo_tests(
            root,
            &format!("test --workspace {FEATURES} --locked --lib --bins --tests --no-fail-fast"),
        )
    }
}

/// The cargo that runs this program, so that the pinned toolchain is kept.
pub fn cargo_path() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "cargo names itself to what it runs in the environment"
    )]
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn cargo_command(root: &Path, words: &str) -> Command {
    let mut command = Command::new(cargo_path());
    command
        .args(words.split_whitespace())
        .current_dir(root)
        .env("RUSTDOCFLAGS", "-D warnings");
    command
}

fn cargo(root: &Path, words: &str) -> anyhow::Result<Outcome> {
    let status = cargo_command(root, words)
        .status()
        .with_context(|| format!("cannot start cargo {words}"))?;
    if !status.success() {
        bail!("cargo {words} ended with {status}");
    }
    Ok(Outcome::Passed(TestTotals::default()))
}

/// Like [`cargo`], and counts the tests in what passes by.
fn cargo_tests(root: &Path, words: &str) -> anyhow::Result<Outcome> {
    let mut command = cargo_command(root, words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let errors = child.stderr.take().context("standard error is piped")?;
    // Two pipes are read at once; one after the other would stop a child that fills the second.
    let reader = thread::spawn(move || count_and_echo(errors, |line| eprintln!("{line}")));
    let output = child.stdout.take().context("standard output is piped")?;
    let mut totals = count_and_echo(output, |line| println!("{line}"));
    add(&mut totals, reader.join().expect("reading lines does not panic"));
    let status = child.wait()?;
    if !status.success() {
        bail!(
            "cargo {words} ended with {status}; {} passed, {} failed",
            totals.passed,
            totals.failed
        );
    }
    Ok(Outcome::Passed(totals))
}

fn count_and_echo(pipe: impl std::io::Read, echo: impl Fn(&str)) -> TestTotals {
    let mut totals = TestTotals::default();
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        totals.read_line(&line);
        echo(&line);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selection: &Selection, expect: &str) {
        let names: Vec<_> = STEPS
            .iter()
            .filter(|step| selection.has(step))
            .map(|step| step.name)
            .collect();
        assert_eq!(names.join(" "), expect, "{selection:?}");
    }

    #[test]
    fn selections_keep_the_order_of_cost() {
        check(&Selection::All, "fmt tidy licences clippy doc fuzz test doctest");
        check(&Selection::Fast, "fmt tidy licences clippy");
        check(
            &Selection::Only(vec!["test".to_owned(), "fmt".to_owned()]),
            "fmt test",
        );
        check(
            &Selection::Skip(vec!["clippy".to_owned()]),
            "fmt tidy licences doc fuzz test doctest",
        );
    }

    #[test]
    fn the_summary_tells_what_happened() {
        let second = Duration::from_millis(1250);
        let passed = Ok(Outcome::Passed(TestTotals::default()));
        assert_eq!(summary_line("fmt", &passed, second), "fmt           1.2 s  ok");
        let skipped = Ok(Outcome::Skipped("no compiler".to_owned()));
        assert_eq!(
            summary_line("fuzz", &skipped, second),
            "fuzz          1.2 s  skipped: no compiler"
        );
        assert!(summary_line("test", &Err(anyhow::anyhow!("no")), second).ends_with("FAILED"));
    }

    #[test]
    fn lines_are_counted_and_passed_on() {
        let echoed = std::cell::RefCell::new(Vec::new());
        let text = "a\ntest result: ok. 2 passed; 0 failed; 0 ignored\nlast \u{fffd}";
        let totals = count_and_echo(text.as_bytes(), |line| echoed.borrow_mut().push(line.to_owned()));
        assert_eq!(totals.passed, 2);
        assert_eq!(echoed.into_inner().join("\n"), text);
    }
}
