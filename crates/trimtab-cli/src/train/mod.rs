//! `train scorer`: from rollouts to a scorer's folder. Knows files, the runtime and the training crate; what is learned
//! how is theirs.

mod config;
mod features;
mod report;
mod rows;
mod run;

pub(crate) use config::{EXAMPLE_CONFIG, ScorerConfig};
pub(crate) use run::{TrainOptions, train};
