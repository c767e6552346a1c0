//! The crate from outside: laws on the enumerable model, and the files of a report.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails by panicking, as tests do"
)]

mod enumerable;
mod fixture;
mod report;
mod steered;
