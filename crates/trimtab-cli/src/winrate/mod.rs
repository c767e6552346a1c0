//! `eval winrate`: policies against their reference, each side under a procedure such as best-of-N (InfAlign B2).
//!
//! ```text
//! sides      samples of the reference and of every policy, scored, in folders that are resumed like any rollouts
//! divergence KL(policy || reference) along samples of the policy, exact at each token
//! steered    answers of each side by blockwise control, which no set of samples gives
//! selection  what best- and worst-of-N make of one set of samples: weights, no resampling
//! results    win rates with intervals by prompt, paired across policies
//! ```
//!
//! Rewards read the reference's states, or their own model's, never a policy's: both sides have one judge.

mod divergence;
mod procedure;
mod results;
mod run;
mod selection;
mod sides;
mod steered;

pub(crate) use procedure::EvalProcedure;
pub(crate) use results::table;
pub(crate) use run::run;
