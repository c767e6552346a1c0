//! Steps from given responses, and from responses that the policy draws as it goes. Knows no loss and no decoder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trimtab_base::Seed;

use super::config::Advantage;
use super::data::PolicyResponse;
use super::objective::PolicyBatch;
use super::pieces::{PolicyItem, pieces};
use super::rl::{Elsewhere, advantages};
use crate::batches::shuffle;
use crate::error::TrainError;
use crate::files::{create_dir, write_atomic};
use crate::trainer::{BatchSource, Progress, WeightedSource};

/// Responses that a loss looks at together.
pub type Unit = Vec<PolicyItem>;

/// Draws responses of a module and rewards them.
pub trait DrawResponses<M> {
    /// Usable responses, a function of the weights and the step alone.
    ///
    /// # Errors
    /// What drawing or rewarding may say.
    fn draw(&mut self, module: &M, step: u64) -> Result<Vec<PolicyResponse>, TrainError>;

    /// Responses to look at and not to learn from, after so many steps: always those of step 0, so that what two looks show
    /// differs by the weights alone.
    ///
    /// # Errors
    /// Those of [`Self::draw`].
    fn look(&mut self, module: &M, _step: u64) -> Result<Vec<PolicyResponse>, TrainError> {
        self.draw(module, 0)
    }
}

/// Responses by prompt, each with its advantage among those of its prompt.
pub fn units_by_prompt(responses: Vec<PolicyResponse>, kind: Advantage) -> Vec<Unit> {
    let total: f64 = responses.iter().map(|response| response.reward).sum();
    let num = responses.len() as f64;
    let mut by_prompt: BTreeMap<u64, Vec<PolicyResponse>> = BTreeMap::new();
    for response in responses {
        by_prompt.entry(response.key).or_default().push(response);
    }
    let unit = |group: Vec<PolicyResponse>| {
        let rewards: Vec<f64> = group.iter().map(|response| response.reward).collect();
        let elsewhere = Elsewhere {
            sum: total - rewards.iter().sum::<f64>(),
            num: num - rewards.len() as f64,
        };
        let advantages = advantages(&rewards, kind, elsewhere);
        group
            .into_iter()
            .zip(advantages)
            .map(|(response, advantage)| PolicyItem {
                prompt_token_ids: response.prompt_token_ids,
                token_ids: response.token_ids,
                sampler_log_probs: response.sampler_log_probs,
                reward: response.reward,
                advantage,
                weight: response.weight,
                is_of_reference: response.is_of_reference,
                ..PolicyItem::default()
            })
            .collect()
    };
    by_prompt.into_values().map(unit).collect()
}

/// Given units, shuffled every epoch.
#[derive(Debug)]
pub struct GivenSource {
    units: Vec<Unit>,
    units_per_step: usize,
    piece_tokens: usize,
    seed: Seed,
}

impl GivenSource {
    /// At most `responses_per_step` responses a step, at least one unit; pieces of `piece_tokens` tokens.
    pub fn new(units: Vec<Unit>, responses_per_step: usize, piece_tokens: usize, seed: Seed) -> Self {
        let num_responses: usize = units.iter().map(Vec::len).sum();
        let mean_len = num_responses as f64 / units.len().max(1) as f64;
        let units_per_step = (responses_per_step as f64 / mean_len.max(1.0)) as usize;
        Self {
            units,
            units_per_step: units_per_step.max(1),
            piece_tokens,
            seed,
        }
    }
}

impl BatchSource for GivenSource {
    type Batch = PolicyBatch;

    fn num_batches(&self, _epoch: u64) -> usize {
        self.units.len().div_ceil(self.units_per_step)
    }

    fn num_items(&self) -> u64 {
        self.units.len() as u64
    }

    fn batch(&mut self, epoch: u64, idx: usize) -> Result<PolicyBatch, TrainError> {
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        shuffle(&mut order, self.seed, epoch, 2);
        let members = order.chunks(self.units_per_step).nth(idx).unwrap_or_default();
        let units = members.iter().map(|&unit| self.units[unit].clone()).collect();
        Ok(pieces(units, self.piece_tokens))
    }
}

/// How a round of on-policy responses becomes steps.
#[derive(Debug, Clone)]
pub struct RoundPlan {
    /// Equal parts of a round, a step each.
    pub steps: usize,
    /// Times that a round is gone through.
    pub passes: usize,
    /// What is subtracted from rewards.
    pub advantage: Advantage,
    /// Tokens of a piece.
    pub piece_tokens: usize,
    /// Of the division into parts.
    pub seed: Seed,
    /// Where rounds of several steps are kept, so that a run that stops within one goes on with the same responses.
    pub folder: PathBuf,
}

/// Responses that the policy draws itself, a round an epoch.
pub struct OnPolicySource<'a, M> {
    drawer: &'a mut dyn DrawResponses<M>,
    plan: RoundPlan,
    /// Epoch and units.
    round: Option<(u64, Vec<Unit>)>,
}

impl<'a, M> OnPolicySource<'a, M> {
    /// Rounds by `plan`.
    pub fn new(drawer: &'a mut dyn DrawResponses<M>, plan: RoundPlan) -> Self {
        Self {
            drawer,
            plan,
            round: None,
        }
    }

    fn num_steps(&self) -> usize {
        self.plan.steps * self.plan.passes
    }

    fn responses(&mut self, module: &M, progress: Progress) -> Result<Vec<PolicyResponse>, TrainError> {
        if self.num_steps() == 1 {
            return self.drawer.draw(module, progress.step);
        }
        let path = self.plan.folder.join(format!("{}.json", progress.epoch));
        let is_first = progress.step.is_multiple_of(self.num_steps() as u64);
        if !is_first {
            return StoredRound::read(&path);
        }
        let responses = self.drawer.draw(module, progress.step)?;
        create_dir(&self.plan.folder)?;
        StoredRound::write(&responses, &path)?;
        Ok(responses)
    }

    /// Later steps see other weights than those that drew: without the sampler's log-probs nobody knows how far.
    fn check(&self, responses: &[PolicyResponse]) -> Result<(), TrainError> {
        let problem = if responses.is_empty() {
            "a round gave no response to learn from: look at the prompts and their longest response"
                .to_owned()
        } else if self.num_steps() > 1 && responses.iter().any(is_of_unknown_sampler) {
            "responses without the log-probs of their sampler can be used for one step only: \
             set steps_per_round and passes_per_round to 1"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(TrainError::BadData { problem })
    }
}

impl<M> WeightedSource<M> for OnPolicySource<'_, M> {
    type Batch = PolicyBatch;

    fn num_batches(&self, _epoch: u64) -> usize {
        self.num_steps()
    }

    fn follows_weights(&self) -> bool {
        true
    }

    fn num_items(&self) -> u64 {
        self.num_steps() as u64
    }

    fn prepare(&mut self, module: &M, progress: Progress) -> Result<(), TrainError> {
        if self
            .round
            .as_ref()
            .is_some_and(|(epoch, _)| *epoch == progress.epoch)
        {
            return Ok(());
        }
        let responses = self.responses(module, progress)?;
        self.check(&responses)?;
        self.round = Some((progress.epoch, units_by_prompt(responses, self.plan.advantage)));
        Ok(())
    }

    /// Part `idx % steps` of the round in the order of pass `idx / steps`; a round of fewer prompts than steps leaves
    /// some parts empty.
    fn batch(&mut self, epoch: u64, idx: usize) -> Result<PolicyBatch, TrainError> {
        let (_, units) = self
            .round
            .as_ref()
            .expect("the loop prepares before it asks for batches");
        let mut order: Vec<usize> = (0..units.len()).collect();
        let (pass, part) = (idx / self.plan.steps, idx % self.plan.steps);
        if self.num_steps() > 1 {
            shuffle(&mut order, self.plan.seed, epoch, 3 + pass as u64);
        }
        let bound = |part: usize| part * order.len() / self.plan.steps;
        let members = &order[bound(part)..bound(part + 1)];
        let units = members.iter().map(|&unit| units[unit].clone()).collect();
        Ok(pieces(units, self.plan.piece_tokens))
    }
}

/// Whether nobody could say how far later weights are from those that drew it.
fn is_of_unknown_sampler(response: &PolicyResponse) -> bool {
    response.sampler_log_probs.is_empty() && !response.is_of_reference
}

/// A response as it is kept: floats by their bits, which a text of digits need not give back.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRound {
    key: u64,
    prompt_token_ids: Vec<u32>,
    token_ids: Vec<u32>,
    sampler_log_prob_bits: Vec<u32>,
    reward_bits: u64,
    weight_bits: u64,
    #[serde(default)]
    is_of_reference: bool,
}

impl StoredRound {
    fn write(responses: &[PolicyResponse], path: &Path) -> Result<(), TrainError> {
        let stored: Vec<Self> = responses
            .iter()
            .map(|response| Self {
                key: response.key,
                prompt_token_ids: response.prompt_token_ids.clone(),
                token_ids: response.token_ids.clone(),
                sampler_log_prob_bits: response.sampler_log_probs.iter().map(|p| p.to_bits()).collect(),
                reward_bits: response.reward.to_bits(),
                weight_bits: response.weight.to_bits(),
                is_of_reference: response.is_of_reference,
            })
            .collect();
        let text = serde_json::to_vec(&stored).expect("numbers have a JSON form");
        write_atomic(path, &text)
    }

    fn read(path: &Path) -> Result<Vec<PolicyResponse>, TrainError> {
        let text = fs::read(path).map_err(|error| TrainError::io("read", path, error))?;
        let stored: Vec<Self> =
            serde_json::from_slice(&text).map_err(|error| TrainError::bad_file(path, error.to_string()))?;
        Ok(stored.into_iter().map(Self::restore).collect())
    }

    fn restore(self) -> PolicyResponse {
        PolicyResponse {
            key: self.key,
            prompt_token_ids: self.prompt_token_ids,
            token_ids: self.token_ids,
            sampler_log_probs: self
                .sampler_log_prob_bits
                .into_iter()
                .map(f32::from_bits)
                .collect(),
            reward: f64::from_bits(self.reward_bits),
            weight: f64::from_bits(self.weight_bits),
            is_of_reference: self.is_of_reference,
        }
    }
}
