//! The command as users meet it: real processes on a tiny model, no network.

mod bad_input;
mod frontier;
mod generate;
mod harness;
mod models;
