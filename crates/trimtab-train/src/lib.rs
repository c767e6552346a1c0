//! Training: gradients, and what is made with them. Only this crate names a tensor library.
//!
//! The key decision is that there is one loop ([`trainer::train`]) and that an objective is a value passed to it, as are
//! the data and the evaluation:
//!
//! ```text
//! BatchSource::batch(epoch, idx) -> batch        what to learn from, by name
//! Objective::loss(module, batch) -> sum, items   what to minimise
//! Judge::evaluate(module)        -> metrics      numbers on held-out prompts, one of which chooses the weights
//! ```
//!
//! So accumulation, clipping, schedules, checkpoints, resuming and logs exist once, and an objective is one file of
//! arithmetic that is tested by finite differences without files. The alternative, a trainer for each method that grows
//! its own copy of all that, is how such libraries come to have objectives that differ in ways nobody chose.
//!
//! A run is a function of configuration, data and seed. Batches are named by epoch and index, weights are drawn from
//! keyed streams, the optimiser's state is stored by path: a run that was killed goes on from its checkpoint and ends in
//! the same bytes, metrics included. Times are the caller's: the loop tells of steps ([`TrainEvent`]) and reads no clock.
//!
//! What can be trained:
//!
//! - prefix scorers on cached states ([`train_scorer`]): [CD-FUDGE](objectives::cd_fudge) and [CD-Q](objectives::cd_q), from a
//!   [`PrefixSet`] that holds each prefix's hidden state and the reference's expected token features. Because token features
//!   are fixed, CD-Q's expectation over the vocabulary is one product with those, exact and cached;
//! - reward models from judgements of texts, which are scorers too: classifiers on kept final states
//!   ([`train_classifier`]), or with a decoder of their own and one or several heads ([`train_reward_model`]);
//! - whole decoders with a value head ([`decoder`]), by adapters or in full;
//! - policies ([`policy`]), by reinforcement, from preferences, or from winners.
//!
//! How far CD-Q sees: the paper's target hands the reward back by one token per fit, so the beginning of a response of `T`
//! tokens learns of its end after some `T` fits, and what the action head gets wrong of tokens that nobody drew adds up on
//! the way. `examples/horizon.rs` shows both on a made-up model whose values are known. Lambda-returns
//! ([`ScorerObjective::CdQ`]) shorten the way to about `1 / (1 - lambda)` tokens, at the price that responses must come from
//! the reference.

pub mod batches;
pub mod classifier;
pub mod config;
pub mod decoder;
mod device;
mod error;
mod events;
mod files;
pub mod heads;
pub mod objectives;
pub mod policy;
pub mod prefix_batches;
pub mod prefix_metrics;
pub mod prefix_set;
mod run_dir;
mod scorer;
pub mod tensorboard;
pub mod trainer;

// Products of tensors are this crate's, which leaves AVX-512 off where nobody asks for it.
use gemm as _;

pub use classifier::{
    FinalStates, Judgements, RewardTask, TrainedRewardModel, Verdicts, classifier_data_sha256,
    train_classifier, train_reward_model,
};
pub use config::{
    ClassifierTrainConfig, OptimConfig, Schedule, ScorerDepth, ScorerObjective, ScorerTrainConfig, Select,
    TargetNetwork,
};
pub use device::TrainDevice;
pub use error::TrainError;
pub use events::{Metrics, TrainEvent};
pub use prefix_set::{PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures};
pub use run_dir::{RunDir, RunFacts, RunFolder};
pub use scorer::{TrainedScorer, train_scorer};
