//! Shared nouns of Trimtab: ids, random streams, probabilities on slices, and the traits at crate seams.
//!
//! The key decision is what is *not* here: no tensors, no files, no threads, no clock. A decoder, a metric or a
//! reward that depends on this crate alone can be tested with arrays, and two crates that both depend on it
//! agree on units without depending on each other. Spaces are part of names everywhere: `logits` are
//! unnormalised, `log_probs` are natural logarithms of probabilities, `reward` is raw, `kl_nats` is in nats.

pub mod ids;
pub mod prob;
pub mod rng;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod traits;

pub use ids::{PromptKey, Seed, TokenId};
pub use rng::SampleStream;
pub use traits::{RewardError, RewardModel, ScoreInput, TokenBytes};
