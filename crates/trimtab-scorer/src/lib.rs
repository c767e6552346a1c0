//! Prefix scorers: the value of a response as far as it goes, read off the generator's own hidden state.
//!
//! A scorer has two heads on the hidden state `h` after the final norm at the last token of `[x, y^t]`:
//!
//! ```text
//! t                = silu(W1 (h - mean) / std + b1)                                     a trunk a head; t = x without
//! V([x, y^t])      = scale (w . t + b) + offset                                         state value
//! V([x, y^t, z])   = scale (w . t + b + (W_u t + b_u) . F[z]) + offset                  action value, every z
//! ```
//!
//! The key decision is that `F`, one short row of **token features** for every token, is *fixed*: the principal
//! components of the output embedding, and a last column that is 1 for the tokens that end a response. What is trained is
//! a direction in that space. Three things follow. The values of all next tokens are one product of `[len]` by
//! `[len, vocab]`, a tenth of the model's output head at 64 features. Scorers that share `F` are mixed before the
//! product, so many rewards cost one. And the expectation over the vocabulary that CD-Q's target needs,
//! `sum_z p(z) V([x, y^t, z])`, is `V` at the expected features `e_t = sum_z p(z) F[z]`, which is found once for a
//! prefix and kept, so that training never passes over the vocabulary. The alternative, a row of trained weights for
//! each token, has as many parameters as the model's head and would need that pass at each step.
//!
//! [`ScorerWeights`] says what values mean, slowly; [`ScorerSet`] computes them for batches of rows on the kernels. Files are a
//! folder of `scorer.safetensors` and `scorer.json` ([`ScorerCard`]), which says which model the scorer is for.
//!
//! This crate knows no request, no text and no training.

mod card;
mod error;
mod features;
mod files;
mod layer;
mod pca;
mod set;
mod weights;

pub use card::{FORMAT_VERSION, PlantedPhrase, ScorerBase, ScorerCard};
pub use error::ScorerError;
pub use features::TokenFeatures;
pub use files::{CARD_FILE, WEIGHTS_FILE, read_scorer, write_scorer};
pub use layer::Layer;
pub use set::{ActionRows, ScorerSet};
pub use weights::{ActionHead, HeadSizes, ScorerWeights, StateHead};
