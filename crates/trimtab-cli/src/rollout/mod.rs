//! Rollouts: prompts answered or responses taken from data, scored, in a folder that training reads.
//!
//! Everything is read twice: once to refuse what cannot work before a file is written, and to know what the run is; and
//! once to do it, a window of prompts at a time. So a run holds no more of its data than a window and a shard, and the
//! 64-bit keys of its prompts.

mod given;
mod prompts;
mod rewards;
mod sample;
mod setup;
mod summary;

pub(crate) use setup::run;
