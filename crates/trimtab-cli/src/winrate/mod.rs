//! `eval winrate`: policies against their reference, each side under a procedure such as best-of-N (InfAlign B2).
//!
//! ```text
//! settings   the arguments, filled up from the cards of policies
//! training   what is not as in the trainings of the policies, and prompts that they have seen
//! methods    what policies are called: as much of their cards as tells them apart
//! sides      samples of the reference and of every policy, scored, in folders that are resumed like any rollouts
//! divergence KL(policy || reference) along samples of the policy, the full sum at each token
//! steered    answers of each side by blockwise control, which no set of samples gives
//! selection  what best- and worst-of-N make of one set of samples: weights, no resampling
//! results    win rates with intervals by prompt, paired across policies
//! shown      the same as a report and as a table
//! ```
//!
//! Rewards read the reference's states, or their own model's, never a policy's: both sides have one judge.

mod divergence;
mod methods;
mod procedure;
mod results;
mod run;
mod selection;
mod settings;
mod shown;
mod sides;
mod steered;
mod training;

pub(crate) use procedure::EvalProcedure;
pub(crate) use run::run;
pub(crate) use shown::table;
