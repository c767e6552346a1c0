//! Integration tests: whole models from files, and jobs with rewards that misbehave.

mod golden;
mod jobs;
mod tiny_model;
