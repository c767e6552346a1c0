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

pub(crate) use prompts::prompt_keys;
pub(crate) use rewards::Rewards;
pub(crate) use sample::{drawing, rollout};
pub(crate) use setup::{jobs, run, run_on};

/// Rows of a shard where nobody says otherwise.
pub(crate) const ROWS_PER_SHARD: usize = 4096;

/// The model as it is, as a method.
pub(crate) fn reference() -> trimtab_decode::DecodeSpec {
    trimtab_decode::DecodeSpec::Sample {
        sampling: trimtab_decode::Sampling::default(),
    }
}
