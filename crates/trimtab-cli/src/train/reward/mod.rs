//! `train reward`, and the reading of judgements that `eval preference` shares with it.

mod config;
mod encode;
mod evaluate;
mod report;
mod run;
mod spurious;
mod states;
mod texts;

pub(crate) use config::{DataConfig, EXAMPLE_CONFIG, HeldOut, RewardConfig};
pub(crate) use evaluate::{Agreement, agreement, with_interval};
pub(crate) use run::train_reward;
pub(crate) use states::text_states;
pub(crate) use texts::{Dropped, Reads, TextSet, read_judgements};
