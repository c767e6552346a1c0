//! Policies: decoders trained towards a reward while a KL divergence holds them near their reference.
//!
//! The key decision is that every loss here is a function of two numbers per response token,
//!
//! ```text
//! log pi(y_t | x, y_<t)                        what the policy says of the token that was drawn
//! KL_t = KL(pi(. | x, y_<t) || ref(. | x, y_<t))   exact, a sum over the whole vocabulary
//! ```
//!
//! so that a method ([`rl`], [`dpo`], [`ipo`], [`sft`], [`bonbon`]) is one file of arithmetic that turns those numbers into
//! a value and two derivatives per token ([`TokenLoss`]), tested without a model; and what costs time and memory, the
//! vocabulary, is written once ([`vocab`]): chunk by chunk over response positions, without a tape, with the same
//! gradient that a tape would give. Nothing of size `[tokens, vocab]` ever exists.
//!
//! The loop is [`crate::trainer::train`], as for everything else. On-policy responses are drawn by a source that the loop
//! tells the weights ([`source`]).

pub mod best_of_n;
pub mod bonbon;
pub mod config;
pub mod data;
pub mod dpo;
mod given;
pub mod ipo;
pub mod judge;
pub mod kl_goals;
pub mod model;
pub mod objective;
pub mod pieces;
pub mod reference;
pub mod rl;
mod run;
pub mod sft;
pub mod source;
pub mod step_numbers;
pub mod token_loss;
pub mod vocab;
pub mod vocab_tensor;

pub use best_of_n::{best_and_worst_pairs, best_of_n_weights};
pub use config::{Advantage, Importance, PolicyDepth, PolicyObjective, PolicyTrainConfig};
pub use data::{PolicyResponse, PreferenceTokens, Skipped};
pub use run::{
    KeptPolicy, PolicyBase, PolicyData, PolicyRollouts, TrainedPolicy, kept_policies, load_kept, measured_kl,
    train_policy,
};
pub use token_loss::{ResponseTokens, TokenDerivatives, TokenLoss};
