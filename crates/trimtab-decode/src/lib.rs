//! Inference-time algorithms as sans-IO state machines.
//!
//! A decoder never calls the model. It says what it needs ([`Need`]), is told ([`Answer`]), and says what it needs
//! next; in between it tells which branches to fork, extend and prune ([`Action`]). So one algorithm runs batched
//! in the engine, replayed in an evaluation, or driven by arrays in a test, and a slow reward never blocks the model.
//!
//! What is asked of a row of logits is a value too ([`RowOp`]), with its slow meaning in [`RowOp::apply`]: an engine
//! may run many in parallel and faster, and is tested against it. Randomness reaches a row as one coin per token from
//! a stream named by seed, prompt, candidate and step, so a candidate does not depend on how many others are drawn.
//!
//! Steered methods compare and tilt by values of prefix scorers ([`Steering`]): those of heads on the model's own states
//! come with the row, any other source is asked like a reward ([`Need::Values`]), so a machine does not know which it is.
//!
//! Users name a method in one line of text ([`DecodeSpec`]); each method is one file. The alternative, a decoder that
//! is handed the model and loops, was left because it fixes the batch, the order and the thread inside the algorithm.
//!
//! This crate never names a tensor type, a tokenizer, a clock, a file or a thread.
//!
//! ```
//! use std::sync::Arc;
//! use trimtab_base::testing::LetterTokens;
//! use trimtab_base::{PromptKey, Seed, TokenId};
//! use trimtab_decode::{Answer, DecodeSpec, DecoderInputs, Need, StopRules};
//!
//! let stop = StopRules { stop_tokens: vec![TokenId(0)], stop_strings: vec![], max_new_tokens: 5 };
//! let inputs = DecoderInputs {
//!     prompt_key: PromptKey(1),
//!     seed: Seed(7),
//!     stop,
//!     token_bytes: Arc::new(LetterTokens),
//!     steering: Arc::default(),
//!     trace: false,
//! };
//! let mut decoder = "bon:4,t=0.8".parse::<DecodeSpec>()?.build(inputs)?;
//! loop {
//!     // This model has the same three logits everywhere, so the tree of branches does not matter to it.
//!     decoder.take_actions();
//!     let answer = match decoder.next_need() {
//!         Need::Rows(rows) => {
//!             Answer::Rows(rows.iter().map(|row| row.op.apply(&[0.0, 1.0, 1.5])).collect::<Result<_, _>>()?)
//!         }
//!         Need::Rewards(candidates) => Answer::Rewards(candidates.iter().map(|c| c.text.len() as f64).collect()),
//!         Need::Values(_) => unreachable!("best-of-N has no scorers"),
//!         Need::Done => break,
//!     };
//!     decoder.feed(answer)?;
//! }
//! let outcome = decoder.outcome().expect("it is done");
//! let longest = outcome.candidates.iter().map(|candidate| candidate.text.len()).max();
//! assert_eq!(Some(outcome.candidates[outcome.chosen].text.len()), longest);
//! # Ok::<(), trimtab_decode::DecodeError>(())
//! ```

pub mod answer;
pub mod beam;
pub mod best_of_n;
pub mod cd_block;
pub mod cd_token;
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
pub mod steering;
pub mod stop;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace;

pub use answer::AnswerExtractor;
pub use beam::{Beam, BeamConfig};
pub use best_of_n::{BestOfN, BestOfNConfig};
pub use cd_block::{BlockChoice, BlockEnd, CdBlock, CdBlockConfig};
pub use cd_token::{CdToken, CdTokenConfig};
pub use error::DecodeError;
pub use inputs::DecoderInputs;
pub use need::{
    Action, Answer, BranchId, Candidate, Decoder, FinishReason, Need, Outcome, Prefix, RowRequest,
    SampledToken,
};
pub use row_op::{FLOOR_HALVINGS, Guide, GuideFloor, GuideTerm, GuidedToken, Row, RowAnswer, RowOp};
pub use sampling::Sampling;
pub use selecting::Scoring;
pub use selection::Selection;
pub use spec::{DecodeSpec, METHODS, MethodHelp};
pub use steering::{Floor, Steering, SteeringTerm, ValueSource};
pub use stop::StopRules;
pub use trace::{BlockKl, TraceStep, TracedBlock};
