//! Progress on standard error: bars for people, a few lines for logs. Draws; knows nothing of the work itself.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use trimtab_store::{Event, Progress};

use crate::output;

const BYTES: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
const ITEMS: &str = "{prefix} [{bar:30}] {pos}/{len} {msg}, {eta} left";

fn bar(len: u64, template: &str, prefix: String) -> ProgressBar {
    let bar = ProgressBar::new(len);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(prefix);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Shows a model being fetched.
pub(crate) struct FetchProgress {
    bar: Option<ProgressBar>,
    is_terminal: bool,
    is_fetching: bool,
}

impl FetchProgress {
    pub(crate) fn new() -> Self {
        Self {
            bar: None,
            is_terminal: std::io::stderr().is_terminal(),
            is_fetching: false,
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
                self.is_fetching = true;
                output::note(&format!("fetching from {source}"));
            }
            Event::SourceFailed { source, reason } => {
                self.clear();
                output::note(&format!("{source}: {reason}"));
            }
            Event::Started { what, total_bytes } => {
                self.clear();
                if self.is_terminal {
                    self.bar = Some(bar(total_bytes, BYTES, what.to_owned()));
                } else if self.is_fetching {
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
            output::note(&format!("{what}: {done}/{total}"));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
