//! Training: one loop, objectives as values.

pub mod batches;
pub mod classifier;
pub mod config;
pub mod decoder;
mod error;
mod events;
mod files;
pub mod heads;
pub mod objectives;
pub mod prefix_batches;
pub mod prefix_metrics;
pub mod prefix_set;
mod run_dir;
mod scorer;
pub mod tensorboard;
pub mod trainer;

pub use classifier::{LabelledStates, PairedStates, train_classifier};
pub use config::{
    ClassifierTrainConfig, OptimConfig, Schedule, ScorerDepth, ScorerObjective, ScorerTrainConfig, Select,
    TargetNetwork,
};
pub use error::TrainError;
pub use events::{Metrics, TrainEvent};
pub use prefix_set::{PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures};
pub use run_dir::{RunDir, RunFacts, RunFolder};
pub use scorer::{TrainedScorer, train_scorer};
