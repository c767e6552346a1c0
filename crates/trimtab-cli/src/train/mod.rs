//! `train scorer` and `train reward-head`: from rollouts or preferences to a scorer's folder. Knows files, the runtime
//! and the training crate; how something is learned is theirs.

mod config;
mod features;
mod own_model;
mod pairs;
mod report;
mod reward_head;
mod rows;
mod run;

pub(crate) use config::{EXAMPLE_CONFIG, ScorerConfig};
pub(crate) use pairs::{PairSource, final_states};
pub(crate) use reward_head::{EXAMPLE_CONFIG as REWARD_HEAD_EXAMPLE, RewardHeadConfig, train_reward_head};
pub(crate) use run::{TrainOptions, train};
