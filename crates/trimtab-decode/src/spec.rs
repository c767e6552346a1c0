//! Decoding methods as users write them: `sample:t=0.7`, `greedy`, `bon:16`, `majority:n=8,t=0.7`, `beam:4`,
//! `cd-token:weight=4`, `cd-block:k=6,m=16`.
//!
//! Grammar: `method[:entry,entry,...]`, an entry being `option=value`, or a bare number for the method's main option.
//! `Display` writes the shortest text that parses to the same value. Knows no file and no command line.

mod parse;
mod print;

use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::DecodeError;
use crate::answer::AnswerExtractor;
use crate::beam::{Beam, BeamConfig};
use crate::best_of_n::{BestOfN, BestOfNConfig};
use crate::cd_block::{CdBlock, CdBlockConfig};
use crate::cd_token::{CdToken, CdTokenConfig};
use crate::inputs::DecoderInputs;
use crate::need::Decoder;
use crate::sampling::Sampling;
use crate::selecting::Scoring;
use crate::selection::Selection;

/// A decoding method with its settings, checked.
#[derive(Debug, Clone, PartialEq, SerializeDisplay, DeserializeFromStr)]
pub enum DecodeSpec {
    /// One response drawn from a sampling policy.
    Sample {
        /// The policy.
        sampling: Sampling,
    },
    /// The most probable token at each step.
    Greedy,
    /// The response with the greatest reward among N.
    BestOfN {
        /// N.
        num_candidates: usize,
        /// The policy each is drawn from.
        sampling: Sampling,
    },
    /// The response with the least reward among N.
    WorstOfN {
        /// N.
        num_candidates: usize,
        /// The policy each is drawn from.
        sampling: Sampling,
    },
    /// The response with the most frequent answer among N.
    Majority {
        /// N.
        num_candidates: usize,
        /// The policy each is drawn from.
        sampling: Sampling,
        /// How an answer is read off a response.
        answer: AnswerExtractor,
    },
    /// The most probable response that beam search finds.
    Beam(BeamConfig),
    /// Tokenwise controlled decoding: each token drawn from probabilities tilted by values.
    CdToken(CdTokenConfig),
    /// Blockwise controlled decoding: the best of K blocks after blocks.
    CdBlock(CdBlockConfig),
}

/// A decoding method for help texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodHelp {
    /// Name before the colon.
    pub name: &'static str,
    /// A complete example.
    pub example: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
}

/// Every decoding method.
pub const METHODS: &[MethodHelp] = &[
    MethodHelp {
        name: "sample",
        example: "sample:t=0.7,top_p=0.9",
        summary: "draw one response; options t (temperature), top_k, top_p, min_p, also in bon, won and majority",
    },
    MethodHelp {
        name: "greedy",
        example: "greedy",
        summary: "take the most probable token at each step",
    },
    MethodHelp {
        name: "bon",
        example: "bon:16",
        summary: "draw N responses, answer with the one of greatest reward",
    },
    MethodHelp {
        name: "won",
        example: "won:4",
        summary: "draw N responses, answer with the one of least reward (the view of a jailbreak)",
    },
    MethodHelp {
        name: "majority",
        example: "majority:n=8,t=0.7,answer=number",
        summary: "draw N responses, answer with the most frequent answer; options answer=number|text, pattern=REGEX (last)",
    },
    MethodHelp {
        name: "beam",
        example: "beam:width=4,length_power=0.6",
        summary: "search the most probable response; score is log-probability / tokens^length_power",
    },
    MethodHelp {
        name: "cd-token",
        example: "cd-token:weight=4",
        summary: "draw each token from probabilities tilted by weight times its value under the prefix scorers",
    },
    MethodHelp {
        name: "cd-block",
        example: "cd-block:k=6,m=16",
        summary: "draw K blocks of M tokens, keep the one of greatest value, go on; options m=whole, beams, \
                  choose=proportional, temp, end=sentence|newline, target, budget, audit",
    },
];

impl DecodeSpec {
    /// A decoder for one request; rewards are asked for only where the choice depends on them.
    ///
    /// Methods that no scorer steers leave [`DecoderInputs::steering`] aside.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] if a setting or a stop rule is out of range, [`DecodeError::NoScorer`] if a
    /// steered method has nothing to be steered by.
    pub fn build(&self, inputs: DecoderInputs) -> Result<Box<dyn Decoder>, DecodeError> {
        self.build_with(Scoring::WhenChoosing, inputs)
    }

    /// A decoder for one request that asks for the reward of every candidate, so that reports can show it.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_scored(&self, inputs: DecoderInputs) -> Result<Box<dyn Decoder>, DecodeError> {
        self.build_with(Scoring::Always, inputs)
    }

    fn build_with(&self, scoring: Scoring, inputs: DecoderInputs) -> Result<Box<dyn Decoder>, DecodeError> {
        match *self {
            Self::Beam(config) => return Ok(Box::new(Beam::try_new(config, scoring, inputs)?)),
            Self::CdToken(config) => return Ok(Box::new(CdToken::try_new(config, scoring, inputs)?)),
            Self::CdBlock(config) => return Ok(Box::new(CdBlock::try_new(config, scoring, inputs)?)),
            _ => {}
        }
        let config = BestOfNConfig {
            num_candidates: self.num_candidates(),
            sampling: self.sampling(),
            selection: self.selection(),
            scoring,
        };
        Ok(Box::new(BestOfN::try_new(config, inputs)?))
    }

    /// Name before the colon.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Sample { .. } => "sample",
            Self::Greedy => "greedy",
            Self::BestOfN { .. } => "bon",
            Self::WorstOfN { .. } => "won",
            Self::Majority { .. } => "majority",
            Self::Beam(_) => "beam",
            Self::CdToken(_) => "cd-token",
            Self::CdBlock(_) => "cd-block",
        }
    }

    /// Most candidates that the decoder finishes; of blockwise control the branches that it keeps, not its blocks.
    pub fn num_candidates(&self) -> usize {
        match self {
            Self::Sample { .. } | Self::Greedy | Self::CdToken(_) => 1,
            Self::BestOfN { num_candidates, .. }
            | Self::WorstOfN { num_candidates, .. }
            | Self::Majority { num_candidates, .. } => *num_candidates,
            Self::Beam(config) => config.width,
            Self::CdBlock(config) => config.beams,
        }
    }

    /// The policy candidates are drawn from; beam search, which draws nothing, counts as greedy.
    pub fn sampling(&self) -> Sampling {
        match self {
            Self::Sample { sampling }
            | Self::BestOfN { sampling, .. }
            | Self::WorstOfN { sampling, .. }
            | Self::Majority { sampling, .. } => *sampling,
            Self::CdToken(config) => config.sampling,
            Self::CdBlock(config) => config.sampling,
            Self::Greedy | Self::Beam(_) => Sampling::GREEDY,
        }
    }

    /// The rule that chooses among the candidates.
    pub fn selection(&self) -> Selection {
        match self {
            Self::Sample { .. } | Self::Greedy | Self::Beam(_) | Self::CdToken(_) | Self::CdBlock(_) => {
                Selection::First
            }
            Self::BestOfN { .. } => Selection::Best,
            Self::WorstOfN { .. } => Selection::Worst,
            Self::Majority { answer, .. } => Selection::Majority(answer.clone()),
        }
    }

    /// Whether prefix scorers steer it.
    pub fn needs_scorers(&self) -> bool {
        matches!(self, Self::CdToken(_) | Self::CdBlock(_))
    }

    /// Whether the choice depends on rewards.
    pub fn needs_rewards(&self) -> bool {
        self.selection().needs_rewards()
    }
}

#[cfg(test)]
mod tests;
