//! The command as users meet it: real processes on a tiny model, no network.
#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helper functions too"
)]

mod align;
mod analyze;
mod bad_input;
mod export;
mod frontier;
mod generate;
mod harness;
mod models;
mod rewards;
mod rollout;
mod steered_frontier;
mod train;
mod winrate;
