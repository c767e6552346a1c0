//! Which of several finished candidates is the answer. Knows candidates, not how they came to be.

use std::collections::HashMap;

use crate::answer::AnswerExtractor;
use crate::need::Candidate;

/// A rule that picks one of several candidates.
///
/// Equals are decided for the lowest candidate index. For candidates drawn independently from one policy that is as
/// good as a fair coin: they are exchangeable, so which of the equals has the lowest index is uniform and does not
/// depend on the response. It needs no randomness and cannot change with the order in which rewards arrive.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// The first: plain sampling.
    First,
    /// The greatest reward: best-of-N.
    Best,
    /// The least reward: worst-of-N, an adversary's best-of-N on the negated reward. With a reward for safety it is
    /// the view of a jailbreak that tries N times (the inference-time procedure of `InfAlign`, arXiv 2412.19792).
    Worst,
    /// The most frequent answer: self-consistency (Wang et al. 2022, arXiv 2203.11171).
    ///
    /// Candidates without an answer do not vote; equal counts go to the answer given first; the candidate chosen is
    /// the first with the winning answer, or the first of all if none has an answer.
    Majority(AnswerExtractor),
}

impl Selection {
    /// Whether candidates must have rewards before [`Self::choose`].
    pub fn needs_rewards(&self) -> bool {
        matches!(self, Self::Best | Self::Worst)
    }

    /// Index of the chosen one of `candidates`, which are in order of their candidate index and not empty.
    ///
    /// A candidate without a reward counts as one with the reward that loses.
    pub fn choose(&self, candidates: &[Candidate]) -> usize {
        match self {
            Self::First => 0,
            Self::Best => first_greatest(candidates, |reward| reward),
            Self::Worst => first_greatest(candidates, |reward| -reward),
            Self::Majority(extractor) => majority(candidates, extractor),
        }
    }
}

fn first_greatest(candidates: &[Candidate], key: impl Fn(f64) -> f64) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (idx, candidate) in candidates.iter().enumerate() {
        let key = candidate.reward.map_or(f64::NEG_INFINITY, &key);
        if key > best.1 {
            best = (idx, key);
        }
    }
    best.0
}

fn majority(candidates: &[Candidate], extractor: &AnswerExtractor) -> usize {
    let answers: Vec<Option<String>> = candidates
        .iter()
        .map(|candidate| extractor.extract(&candidate.text))
        .collect();
    let mut num_votes: HashMap<&str, usize> = HashMap::new();
    for answer in answers.iter().flatten() {
        *num_votes.entry(answer).or_default() += 1;
    }
    let mut winner = (0, 0);
    for (idx, answer) in answers.iter().enumerate() {
        let votes = answer.as_deref().map_or(0, |answer| num_votes[answer]);
        if votes > winner.1 {
            winner = (idx, votes);
        }
    }
    winner.0
}
