//! Standard output and standard error: the only place that writes to them directly.

use std::io::Write;
use std::panic::PanicHookInfo;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}

/// Writes a part of a line to standard output.
pub(crate) fn piece(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}

/// Writes a value as indented JSON to standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string_pretty(value).context("cannot serialise the result")?)
}

/// Writes one line to standard error: progress and remarks. Nobody can be told if that fails, so it is let be.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
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
    note(&format!("error: {error:#}"));
}

/// What users read when the program breaks one of its own rules.
pub(crate) fn bug_report(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map_or_else(String::new, |location| {
        format!(" ({}:{})", location.file(), location.line())
    });
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("internal error: {message}{place}; this is a bug, please report it")
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn bugs_are_reported_in_one_line() {
        let report = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&report);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            *written.lock().expect("nobody panics holding it") = bug_report(panic);
        }));
        let panicked = std::panic::catch_unwind(|| panic!("expected {} rows,\n got 3", 2));
        std::panic::set_hook(before);
        assert!(panicked.is_err());
        let report = report.lock().expect("nobody panics holding it");
        assert!(
            report.starts_with("internal error: expected 2 rows, got 3 (")
                && report.contains("output.rs:")
                && report.ends_with("; this is a bug, please report it")
                && !report.contains('\n'),
            "{report:?}"
        );
    }
}
