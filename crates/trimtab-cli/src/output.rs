//! Standard output and standard error: the only place that writes to them directly.
#![allow(clippy::print_stderr, reason = "a command line talks to people")]

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}

/// Writes a value as indented JSON to standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string_pretty(value).context("cannot serialise the result")?)
}

/// Writes one line to standard error: progress and remarks.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Columns of the terminal that standard output goes to; `None` for a file or a pipe.
pub(crate) fn terminal_width() -> Option<u16> {
    let stdout = console::Term::stdout();
    stdout
        .is_term()
        .then(|| stdout.size_checked().map(|(_, columns)| columns))
        .flatten()
}

/// Writes an error with its causes in one line.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Whether an error comes from a reader that has closed its end.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_broken = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is_broken)
}
