//! What was typed after `cargo xtask`, as a task. Runs nothing.

use anyhow::{Context, bail};

use crate::check::{STEPS, Selection};

/// Shown for no arguments, `help` and `--help`.
pub const HELP: &str = "\
Workspace automation. The one command to run before you push:

  cargo xtask check                 every gate, cheapest first; stops at the first that fails

Quicker ways to the same:

  cargo xtask check --fast          no builds of tests or fuzzers: fmt, tidy, licences, clippy
  cargo xtask check --only clippy   chosen steps, comma-separated, in the order of the gate
  cargo xtask check --skip test     all but these
  cargo xtask check --list          the steps and the command that each runs

Others:

  cargo xtask licences              every package of Cargo.lock, its licence, and where the text lies
  cargo xtask fuzz                  the names of the fuzz targets
  cargo xtask fuzz gguf --seconds 60
                                    build and run one with the pinned toolchain (needs a C++ compiler)

The gate builds nothing for GPUs. After a change to what is trained, also (no GPU or CUDA toolkit is needed to build):

  cargo clippy -p trimtab-train --features cuda --all-targets --locked -- -D warnings
  cargo build --release --features cuda
  trimtab bench train --device cuda --model MODEL      on a machine that has a GPU

CONTRIBUTING.md says what the rules are and why.";

/// The first words that `cargo xtask` understands; the check of the documents' commands reads them.
pub const TASKS: [&str; 4] = ["check", "licences", "fuzz", "help"];

/// How long a fuzzer runs if not told.
const DEFAULT_FUZZ_SECONDS: u32 = 60;

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Print [`HELP`].
    Help,
    /// Run the gate.
    Check(Selection),
    /// Print the licences of all packages.
    Licences,
    /// Run one fuzz target, or list them if there is no name.
    Fuzz {
        /// File name in `fuzz/fuzz_targets` without `.rs`.
        target: Option<String>,
        /// How long to run.
        seconds: u32,
    },
}

/// Reads the words after `cargo xtask`.
///
/// # Errors
/// An unknown task, option or step; the message lists what exists.
pub fn parse(words: &[String]) -> anyhow::Result<Task> {
    let mut words = words.iter().map(String::as_str);
    let task = match words.next() {
        None | Some("help" | "--help" | "-h") => return Ok(Task::Help),
        Some("check") => Task::Check(parse_check(&mut words)?),
        Some("licences") => Task::Licences,
        Some("fuzz") => parse_fuzz(&mut words)?,
        Some(other) => bail!("unknown task `{other}`, expected one of: {}", TASKS.join(", ")),
    };
    match words.next() {
        None => Ok(task),
        Some(extra) => bail!("unexpected argument `{extra}`; `cargo xtask help` shows what exists"),
    }
}

fn parse_check<'a>(words: &mut impl Iterator<Item = &'a str>) -> anyhow::Result<Selection> {
    let mut selection = Selection::All;
    for word in words {
        // `--only=fmt` and `--only fmt` are both common habits; the second form is handled by the caller below.
        selection = match word.split_once('=').unwrap_or((word, "")) {
            ("--fast", _) => Selection::Fast,
            ("--list", _) => Selection::List,
            ("--only", "") => Selection::Only(Vec::new()),
            ("--skip", "") => Selection::Skip(Vec::new()),
            ("--only", names) => Selection::Only(step_names(names)?),
            ("--skip", names) => Selection::Skip(step_names(names)?),
            _ => match selection {
                Selection::Only(names) if names.is_empty() => Selection::Only(step_names(word)?),
                Selection::Skip(names) if names.is_empty() => Selection::Skip(step_names(word)?),
                _ => bail!("unknown argument `{word}`, expected --fast, --only, --skip or --list"),
            },
        };
    }
    match &selection {
        Selection::Only(names) | Selection::Skip(names) if names.is_empty() => {
            bail!("--only and --skip need the names of steps: {}", all_step_names())
        }
        _ => Ok(selection),
    }
}

fn step_names(list: &str) -> anyhow::Result<Vec<String>> {
    list.split(',')
        .map(|name| match STEPS.iter().find(|step| step.name == name) {
            Some(step) => Ok(step.name.to_owned()),
            None => bail!("unknown step `{name}`, expected some of: {}", all_step_names()),
        })
        .collect()
}

fn all_step_names() -> String {
    STEPS.map(|step| step.name).join(", ")
}

fn parse_fuzz<'a>(words: &mut impl Iterator<Item = &'a str>) -> anyhow::Result<Task> {
    let mut target = None;
    let mut seconds = DEFAULT_FUZZ_SECONDS;
    while let Some(word) = words.next() {
        match word {
            "--seconds" => {
                let text = words.next().context("--seconds needs a number")?;
                seconds = text
                    .parse()
                    .with_context(|| format!("expected a number of seconds, got `{text}`"))?;
            }
            name if !name.starts_with('-') && target.is_none() => target = Some(name.to_owned()),
            other => bail!("unknown argument `{other}`, expected a target and --seconds N"),
        }
    }
    Ok(Task::Fuzz { target, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: &str) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let got = match parse(&words) {
            Ok(task) => format!("{task:?}"),
            Err(error) => format!("error: {error}"),
        };
        assert!(got.starts_with(expect), "`{line}`: expected {expect}, got {got}");
    }

    #[test]
    fn words_become_tasks() {
        check("", "Help");
        check("--help", "Help");
        check("check", "Check(All)");
        check("check --fast", "Check(Fast)");
        check("check --only clippy", r#"Check(Only(["clippy"]))"#);
        check("check --only=fmt,tidy", r#"Check(Only(["fmt", "tidy"]))"#);
        check("check --skip test", r#"Check(Skip(["test"]))"#);
        check("fuzz", "Fuzz { target: None, seconds: 60 }");
        check(
            "fuzz gguf --seconds 5",
            r#"Fuzz { target: Some("gguf"), seconds: 5 }"#,
        );
    }

    #[test]
    fn wrong_words_are_refused_with_what_exists() {
        check(
            "chek",
            "error: unknown task `chek`, expected one of: check, licences",
        );
        check(
            "check --only clipy",
            "error: unknown step `clipy`, expected some of: fmt, tidy",
        );
        check(
            "check --only",
            "error: --only and --skip need the names of steps: fmt",
        );
        check("check now", "error: unknown argument `now`");
        check(
            "fuzz gguf --seconds x",
            "error: expected a number of seconds, got `x`",
        );
        check("licences all", "error: unexpected argument `all`");
    }

    #[test]
    fn help_names_every_task() {
        for task in TASKS {
            assert!(
                task == "help" || HELP.contains(&format!("cargo xtask {task}")),
                "{task} is not explained"
            );
        }
    }
}
