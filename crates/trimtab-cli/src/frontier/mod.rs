//! A frontier run: methods over prompts under a reward, journalled, and its report.
//!
//! `config` is what users write, `plan` says which candidates must be drawn for it, `run` draws and journals them,
//! `points` turns them into the report's numbers. `checks` says what must hold before anything is written, `identity`
//! which runs are one, `folder` what may be written into the output folder, `methods` what the methods' texts stand for. A
//! run is a function of its configuration, prompts and weights, those of scorers included: batch, threads and kills do
//! not change a byte of its results.

mod checks;
mod config;
mod entry;
mod folder;
mod identity;
mod methods;
mod plan;
mod points;
mod run;

pub(crate) use config::{EXAMPLE_CONFIG, FrontierConfig};
pub(crate) use run::{FrontierRun, RunOptions};
