//! Training: one loop, objectives as values.

pub mod config;
pub mod decoder;
mod error;
mod events;
mod files;
pub mod prefix_set;
mod run_dir;
mod scorer;

pub use config::{OptimConfig, Schedule, ScorerObjective, ScorerTrainConfig, TargetNetwork};
pub use error::TrainError;
pub use events::{Metrics, TrainEvent};
pub use prefix_set::{PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures};
pub use run_dir::RunDir;
pub use scorer::{TrainedScorer, train_scorer};
