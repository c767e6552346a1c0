//! Integration tests: whole models from files, and jobs with rewards that misbehave.
#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helper functions too"
)]

mod asked;
mod export;
mod golden;
mod jobs;
mod prefix_features;
mod response_kl;
mod text_judge;
mod tiny_model;
