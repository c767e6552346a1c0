//! What every decoder is given, whatever its method. Knows no method.

use std::sync::Arc;

use trimtab_base::{PromptKey, Seed, TokenBytes};

use crate::steering::Steering;
use crate::stop::StopRules;

/// What the decoder of one request needs to know of the request.
#[derive(Clone)]
pub struct DecoderInputs {
    /// Identity of the prompt in the random streams.
    pub prompt_key: PromptKey,
    /// Seed of the run.
    pub seed: Seed,
    /// What ends a response.
    pub stop: StopRules,
    /// Bytes of each token.
    pub token_bytes: Arc<dyn TokenBytes>,
    /// Prefix scorers and their weights; empty for methods without.
    pub steering: Arc<Steering>,
    /// Whether every decision is kept in [`crate::Outcome::trace`].
    pub trace: bool,
}
