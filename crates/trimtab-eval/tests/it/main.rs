//! The crate from outside: laws on the enumerable model, and the files of a report.

mod enumerable;
mod fixture;
mod report;
