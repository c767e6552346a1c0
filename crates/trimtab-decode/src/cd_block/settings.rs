//! Settings of blockwise controlled decoding. Knows ranges, no state.

use crate::DecodeError;
use crate::best_of_n::BestOfNConfig;
use crate::sampling::Sampling;
use crate::steering::Floor;

/// What is drawn, how long, and how one is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CdBlockConfig {
    /// K, blocks drawn from each kept branch, at least 1.
    pub num_candidates: usize,
    /// M, most tokens of a block, at least 1; `None` draws whole responses (best-of-K).
    pub block_len: Option<usize>,
    /// B, branches kept after each block (extension: a beam over blocks), at least 1. The first choice is among B K
    /// blocks of the prompt; a branch that has ended keeps its place until B others are better.
    pub beams: usize,
    /// How blocks are kept.
    pub choice: BlockChoice,
    /// Where a block ends besides at M tokens and at the end of the response.
    pub block_end: BlockEnd,
    /// Extension: once a kept block's mixed value is at least this, go on without choosing.
    pub target: Option<f64>,
    /// Extension: most tokens drawn in all, discarded ones included. A choice is made only where its blocks and one
    /// continuation to the token limit fit in, so more are drawn only if a single response has more.
    pub token_budget: Option<u64>,
    /// Blocks drawn beside each choice for the KL estimate alone; they never become the answer. Only where one branch is
    /// kept by the greatest value.
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
    /// scorer as twist. With B branches, B draws with replacement in proportion to the incremental weights
    /// `exp((value - value of the parent) / temperature)`; the answer is the first, which is as good as any because the
    /// draws are exchangeable. As B grows its law goes to `pi(y) exp(value(y) / temperature)`, normalised.
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
    /// After a token that ends a sentence: one with `.`, `!`, `?`, their full-width forms or an ellipsis, alone or before
    /// closing quotes, brackets and white space at its end; or one with a newline.
    Sentence,
}

impl CdBlockConfig {
    /// Most blocks at once that are accepted: far beyond use, small enough that a typing error cannot ask for all memory.
    pub const MAX_DRAWS: usize = BestOfNConfig::MAX_CANDIDATES;

    /// Blocks drawn at once at most, those for the KL estimate included.
    pub(crate) fn num_draws(&self) -> usize {
        self.num_candidates
            .saturating_mul(self.beams)
            .saturating_add(self.audit)
    }

    /// Refuses settings out of range or that exclude each other.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] naming the setting, its range and the value.
    pub fn validate(&self) -> Result<(), DecodeError> {
        let at_least_one = "a whole number that is at least 1";
        let positive = [
            ("cd-block k", Some(self.num_candidates as u64)),
            ("cd-block m", self.block_len.map(|len| len as u64)),
            ("cd-block beams", Some(self.beams as u64)),
            ("cd-block budget", self.token_budget),
        ];
        for (setting, value) in positive {
            if value == Some(0) {
                return Err(DecodeError::invalid(setting, at_least_one, &0));
            }
        }
        if self.num_draws() > Self::MAX_DRAWS {
            let expected = format!("at most {} blocks at once", Self::MAX_DRAWS);
            return Err(DecodeError::invalid(
                "cd-block k * beams + audit",
                &expected,
                &self.num_draws(),
            ));
        }
        if let Some(target) = self.target.filter(|target| !target.is_finite()) {
            let expected = "a finite number, in the unit of the values";
            return Err(DecodeError::invalid("cd-block target", expected, &target));
        }
        self.validate_choice()?;
        self.sampling.validate()
    }

    fn validate_choice(&self) -> Result<(), DecodeError> {
        if let BlockChoice::Proportional { temperature } = self.choice
            && !(temperature.is_finite() && temperature > 0.0)
        {
            let expected = "a finite number above 0 (choose=best is its limit at 0)";
            return Err(DecodeError::invalid("cd-block temp", expected, &temperature));
        }
        if self.audit > 0 && (self.beams > 1 || self.choice != BlockChoice::Best) {
            let expected = "0 with beams or choose=proportional, for which there is a bound only";
            return Err(DecodeError::invalid("cd-block audit", expected, &self.audit));
        }
        Ok(())
    }

    /// Refuses a floor where it has no meaning.
    pub(super) fn check_floor(&self, floor: Option<Floor>) -> Result<(), DecodeError> {
        let Some(floor) = floor else { return Ok(()) };
        if self.choice != BlockChoice::Best {
            let expected =
                "none with choose=proportional (a floor moves the greatest value; take choose=best)";
            return Err(DecodeError::invalid("floor", expected, &floor.at_least));
        }
        if self.audit > 0 {
            let expected = "0 with a floor, for which there is a bound only";
            return Err(DecodeError::invalid("cd-block audit", expected, &self.audit));
        }
        Ok(())
    }
}
