//! What the evaluation needs of finished responses: numbers per prompt. Knows no text, no token, no journal.

use serde::{Deserialize, Serialize};
use trimtab_decode::{BlockKl, Candidate, Outcome};

use crate::error::{EvalError, all_finite};
use crate::reward_sample::RewardSample;

/// The numbers of one response.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scored {
    /// Reward in its own unit.
    pub reward: f64,
    /// Log-probability under the policy it was drawn from, in nats.
    pub log_prob: f64,
    /// Log-probability under the reference, in nats.
    pub reference_log_prob: f64,
    /// Sum over steps of the exact `KL(policy || reference)`, in nats.
    pub kl_nats: f64,
    /// Its length in tokens.
    pub num_tokens: u32,
}

impl Scored {
    /// The numbers of a candidate.
    ///
    /// # Errors
    /// [`EvalError::Unscored`].
    pub fn of(candidate: &Candidate) -> Result<Self, EvalError> {
        let reward = candidate.reward.ok_or(EvalError::Unscored {
            candidate_idx: candidate.candidate_idx,
        })?;
        Ok(Self {
            reward,
            log_prob: candidate.log_prob,
            reference_log_prob: candidate.reference_log_prob,
            kl_nats: candidate.kl_nats,
            num_tokens: candidate.token_ids.len() as u32,
        })
    }

    /// `log policy(y) - log reference(y)` in nats.
    pub fn log_ratio_nats(&self) -> f64 {
        self.log_prob - self.reference_log_prob
    }
}

/// One method on one prompt.
///
/// The lists after `tokens_generated` are in the answers' order; each has an entry for every answer or none at all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptRun {
    /// The prompt.
    pub prompt_idx: u64,
    /// The method's answers, at least one; several are independent runs of the method and are averaged.
    pub answers: Vec<Scored>,
    /// All independent draws the answers were chosen from, the answers included.
    pub candidates: Vec<Scored>,
    /// Tokens drawn in all, those of discarded candidates included.
    pub tokens_generated: u64,
    /// Drift of answers that are made of chosen blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub block_kl: Vec<BlockKl>,
    /// Tokens drawn, discarded ones included, until the first part of an answer was certain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_commit_tokens: Vec<u64>,
    /// Values of the answers as the prefix scorers last saw them, in their units. `[answers][terms]`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Vec<f64>>,
    /// The answers under the run's further rewards, in their units. `[answers][rewards_also]`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewards_also: Vec<Vec<f64>>,
}

impl PromptRun {
    /// The run of a method that answers with one of its candidates.
    ///
    /// # Errors
    /// [`EvalError::Unscored`].
    pub fn of_outcome(prompt_idx: u64, outcome: &Outcome) -> Result<Self, EvalError> {
        let candidates = outcome
            .candidates
            .iter()
            .map(Scored::of)
            .collect::<Result<Vec<_>, _>>()?;
        let answer = candidates
            .get(outcome.chosen)
            .copied()
            .ok_or(EvalError::Empty { what: "candidates" })?;
        Ok(Self {
            prompt_idx,
            answers: vec![answer],
            candidates,
            tokens_generated: outcome.tokens_generated,
            block_kl: outcome.block_kl.into_iter().collect(),
            first_commit_tokens: outcome.tokens_to_first_commit.into_iter().collect(),
            values: (!outcome.values.is_empty())
                .then(|| outcome.values.clone())
                .into_iter()
                .collect(),
            rewards_also: Vec::new(),
        })
    }

    /// Independent runs of one method on the prompt, each with candidates of its own.
    ///
    /// # Errors
    /// [`EvalError::Unscored`].
    pub fn of_outcomes(prompt_idx: u64, outcomes: &[Outcome]) -> Result<Self, EvalError> {
        let mut all = Self {
            prompt_idx,
            ..Self::default()
        };
        for outcome in outcomes {
            all.append(Self::of_outcome(prompt_idx, outcome)?);
        }
        Ok(all)
    }

    /// Adds independent runs of the same method on the same prompt.
    pub(crate) fn append(&mut self, more: Self) {
        self.answers.extend(more.answers);
        self.candidates.extend(more.candidates);
        self.tokens_generated += more.tokens_generated;
        self.block_kl.extend(more.block_kl);
        self.first_commit_tokens.extend(more.first_commit_tokens);
        self.values.extend(more.values);
        self.rewards_also.extend(more.rewards_also);
    }

    /// Independent samples of one policy, each an answer of its own.
    ///
    /// # Errors
    /// [`EvalError::Unscored`].
    pub fn of_samples(prompt_idx: u64, samples: &[Candidate]) -> Result<Self, EvalError> {
        let answers = samples.iter().map(Scored::of).collect::<Result<Vec<_>, _>>()?;
        let tokens_generated = samples.iter().map(|sample| sample.token_ids.len() as u64).sum();
        Ok(Self {
            prompt_idx,
            candidates: answers.clone(),
            answers,
            tokens_generated,
            ..Self::default()
        })
    }

    /// Tokens spent on one answer.
    pub fn tokens_per_answer(&self) -> f64 {
        self.tokens_generated as f64 / self.answers.len() as f64
    }

    /// Rewards of the answers.
    ///
    /// # Errors
    /// No answers, or a reward that is not finite.
    pub fn answer_sample(&self) -> Result<RewardSample, EvalError> {
        RewardSample::try_new(&rewards(&self.answers))
    }

    /// Rewards of the candidates.
    ///
    /// # Errors
    /// No candidates, or a reward that is not finite.
    pub fn candidate_sample(&self) -> Result<RewardSample, EvalError> {
        RewardSample::try_new(&rewards(&self.candidates))
    }

    /// Mean over the answers of a number that is kept beside them; `None` where answers lack it.
    ///
    /// # Errors
    /// [`EvalError::NotFinite`].
    pub(crate) fn mean_beside<T>(
        &self,
        what: &'static str,
        numbers: &[T],
        of: impl Fn(&T) -> Option<f64>,
    ) -> Result<Option<f64>, EvalError> {
        if numbers.len() != self.answers.len() || numbers.is_empty() {
            return Ok(None);
        }
        let Some(values) = numbers.iter().map(of).collect::<Option<Vec<f64>>>() else {
            return Ok(None);
        };
        all_finite(what, &values)?;
        Ok(Some(crate::confidence::mean_of(&values)))
    }

    /// Mean over the answers of one of their numbers.
    pub(crate) fn answer_mean(
        &self,
        what: &'static str,
        of: impl Fn(&Scored) -> f64,
    ) -> Result<f64, EvalError> {
        mean(what, &self.answers, of)
    }

    /// Mean over the candidates of one of their numbers.
    pub(crate) fn candidate_mean(
        &self,
        what: &'static str,
        of: impl Fn(&Scored) -> f64,
    ) -> Result<f64, EvalError> {
        mean(what, &self.candidates, of)
    }
}

/// Held-out responses of the reference policy to one prompt: independent of every method's candidates, because a
/// method that may choose its opponent would be judged by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceSamples {
    /// The prompt.
    pub prompt_idx: u64,
    /// Rewards, at least one.
    pub rewards: Vec<f64>,
}

fn rewards(scored: &[Scored]) -> Vec<f64> {
    scored.iter().map(|response| response.reward).collect()
}

fn mean(what: &'static str, scored: &[Scored], of: impl Fn(&Scored) -> f64) -> Result<f64, EvalError> {
    let values: Vec<f64> = scored.iter().map(of).collect();
    all_finite(what, &values)?;
    Ok(crate::confidence::mean_of(&values))
}
