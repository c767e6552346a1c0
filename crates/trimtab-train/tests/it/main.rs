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
mod resume;
mod sets;
mod settings;
mod table;
mod value_model;
