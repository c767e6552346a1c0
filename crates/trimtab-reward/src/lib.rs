//! Rewards: scorers of whole responses, built from a line of text.
//!
//! The key decision is that a reward is data before it is code. [`RewardSpec`] parses
//! `keywords:please|thanks*0.8 + length*-0.3`, prints it back losslessly, and so travels through command lines,
//! configuration files, journals and reports as the one name of what was measured; [`RewardSpec::build`] turns it
//! into a [`RewardModel`](trimtab_base::RewardModel). [`REWARDS`] lists what there is.
//!
//! Rewards see a response's text, its tokens' count, the log-probability the engine attached and the prompt's
//! record. They never see a model, a tokenizer or the environment. Each states its unit; a weighted sum states
//! those of its terms and can report the terms one by one ([`WeightedSum::score_terms`]).
//!
//! NaN means "no reward" and is refused by decoders. Built-in rewards give it where no finite number would rank
//! a response honestly. External scorers speak [`json_lines`]; there anything but a number is an error that names
//! the item, since a scorer that answers `null` has a bug which a skipped candidate would hide.

pub mod json_lines;

mod answer_field;
mod command;
mod exact_answer;
mod external;
mod http;
mod json_validity;
mod keyword_count;
mod kind;
mod length;
mod likelihood;
mod numeric_answer;
mod regex_count;
mod spec;
#[cfg(test)]
mod testing;
mod weighted;

pub use command::Command;
pub use exact_answer::ExactAnswer;
pub use external::ExternalLimits;
pub use http::HttpEndpoint;
pub use json_validity::JsonValidity;
pub use keyword_count::KeywordCount;
pub use kind::{REWARDS, RewardKind};
pub use length::Length;
pub use likelihood::{Likelihood, LikelihoodScale};
pub use numeric_answer::{NumericAnswer, last_number};
pub use regex_count::RegexCount;
pub use spec::{OpenHead, RewardSpec, RewardSpecError, RewardTerm};
pub use weighted::{TermRewards, WeightedSum, WeightedTerm};
