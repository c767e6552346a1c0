//! `train scorer` and `train reward`: from rollouts or judgements to a scorer's folder. Knows files, the runtime and the
//! training crate; how something is learned is theirs.

mod config;
mod config_file;
mod features;
mod own_model;
mod report;
pub(crate) mod reward;
mod rows;
mod run;

pub(crate) use config::{EXAMPLE_CONFIG, ScorerConfig};
pub(crate) use config_file::set_device;
pub(crate) use reward::{RewardConfig, TextSet, text_states, train_reward};
pub(crate) use run::{TrainOptions, scorer_name, show_event, train};
