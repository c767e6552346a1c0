//! Integration tests of the training crate.
#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helper functions too"
)]

mod classifiers;
mod decoder;
mod decoder_export;
mod decoder_training;
mod exact;
mod gradients;
mod policy_exact;
mod policy_gradients;
mod policy_runs;
mod policy_table;
mod policy_variance;
mod resume;
mod reward_model;
mod sets;
mod settings;
mod table;
mod value_model;
