//! Inference-time algorithms as sans-IO state machines.
//!
//! A decoder never calls the model. It says what it needs ([`Need`]), is told ([`Answer`]), and says what it needs
//! next; in between it tells which branches to fork, extend and prune ([`Action`]). So one algorithm runs batched
//! in the engine, replayed in an evaluation, or driven by arrays in a test, and a slow reward never blocks the model.
//!
//! This crate never names a tensor type, a tokenizer, a clock, a file or a thread.

pub mod answer;
pub mod beam;
pub mod best_of_n;
mod error;
mod inputs;
#[cfg(test)]
mod laws;
pub mod need;
mod options;
pub mod row_op;
pub mod sampling;
mod selecting;
pub mod selection;
pub mod spec;
pub mod stop;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use answer::AnswerExtractor;
pub use beam::{Beam, BeamConfig};
pub use best_of_n::{BestOfN, BestOfNConfig};
pub use error::DecodeError;
pub use inputs::DecoderInputs;
pub use need::{
    Action, Answer, BranchId, Candidate, Decoder, FinishReason, Need, Outcome, RowRequest, SampledToken,
};
pub use row_op::{RowAnswer, RowOp};
pub use sampling::Sampling;
pub use selecting::Scoring;
pub use selection::Selection;
pub use spec::{DecodeSpec, METHODS, MethodHelp};
pub use stop::StopRules;
