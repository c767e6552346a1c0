//! Files as users have them and as runs leave them: forms, damage, resuming, bounds.
#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helper functions too"
)]

mod bad_input;
mod bounds;
mod forms;
mod harness;
mod rewards;
mod writer;
