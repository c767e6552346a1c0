//! Blockwise controlled decoding: draw K blocks of M tokens, keep the one of greatest value, go on (CD Eq. 7).

use crate::sampling::Sampling;

/// What is drawn, how long, and how one is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CdBlockConfig {
    /// K, blocks drawn from each kept branch, at least 1.
    pub num_candidates: usize,
    /// M, most tokens of a block, at least 1; `None` draws whole responses (best-of-K).
    pub block_len: Option<usize>,
    /// B, branches kept after each block (extension: a beam over blocks), at least 1.
    pub beams: usize,
    /// How blocks are kept.
    pub choice: BlockChoice,
    /// Where a block ends besides at M tokens and at the end of the response.
    pub block_end: BlockEnd,
    /// Extension: once the kept block's mixed value is at least this, go on without choosing.
    pub target: Option<f64>,
    /// Extension: most tokens drawn in all, discarded ones included; then go on without choosing.
    pub token_budget: Option<u64>,
    /// Blocks drawn beside each choice for the KL estimate alone; they never become the answer.
    pub audit: usize,
    /// The policy that blocks are drawn from.
    pub sampling: Sampling,
}

/// How a block is kept among candidates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BlockChoice {
    /// The greatest mixed value, ties by lower index (CD Eq. 7).
    Best,
    /// Extension: with probability in proportion to `exp(value / temperature)`, a particle filter's resampling with the
    /// scorer as twist.
    Proportional {
        /// Above 0, in the unit of the mixed value.
        temperature: f64,
    },
}

/// Where a block may end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockEnd {
    /// Nowhere.
    Tokens,
    /// After a token with a newline.
    Newline,
    /// After a token that ends a sentence.
    Sentence,
}
