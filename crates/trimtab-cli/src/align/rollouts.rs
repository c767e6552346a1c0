//! Responses that the policy draws itself: the engine at full batch over the current weights, judged in batches,
//! calibrated and transformed. Knows weights as a source, no gradients.

use std::sync::Arc;

use anyhow::{Context, Result};
use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed};
use trimtab_data::Rollout;
use trimtab_decode::{Candidate, Sampling};
use trimtab_engine::EngineConfig;
use trimtab_model::load::WeightSource;
use trimtab_runtime::{Job, LoadedModel, RunEvent, RunLimits, run_jobs};
use trimtab_train::TrainError;
use trimtab_train::policy::{PolicyResponse, PolicyRollouts};

use super::rewarding::{Rewarded, Rewarding};
use super::warm_start::WarmStart;
use super::watch::{WatchLog, Watched};
use crate::rollout::{Rewards, drawing, rollout};

/// Rows that are scored together.
const SCORED_ROWS: usize = 256;

/// How a round is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundPlan {
    pub(super) prompts_per_round: usize,
    pub(super) per_prompt: usize,
    /// Optimiser steps between rounds.
    pub(super) steps_per_round: u64,
    pub(super) seed: u64,
    pub(super) kv_memory_mib: u32,
}

/// Draws rounds of responses.
pub(super) struct EngineRollouts<'a> {
    /// Tokenizer, precision and threads, with the reference's weights.
    pub(super) base: &'a LoadedModel,
    /// A job a prompt, of which tokens, record and stop rules count.
    pub(super) prompts: &'a [Job],
    /// The one that is trained on first, then those that are watched.
    pub(super) rewards: &'a Rewards,
    pub(super) rewarding: Rewarding<'a>,
    pub(super) plan: RoundPlan,
    /// See [`super::drawing`].
    pub(super) identity: String,
    /// What the first rounds take instead of drawing.
    pub(super) warm_start: WarmStart,
    pub(super) log: WatchLog,
}

impl PolicyRollouts for EngineRollouts<'_> {
    fn rollouts(
        &mut self,
        weights: Arc<dyn WeightSource>,
        step: u64,
    ) -> Result<Vec<PolicyResponse>, TrainError> {
        self.round(weights, step).map_err(|error| not_drawn(step, &error))
    }

    fn look(&mut self, weights: Arc<dyn WeightSource>, step: u64) -> Result<Vec<PolicyResponse>, TrainError> {
        self.drawn(weights, (0, step))
            .map_err(|error| not_drawn(step, &error))
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }
}

fn not_drawn(step: u64, error: &anyhow::Error) -> TrainError {
    TrainError::BadData {
        problem: format!("drawing responses at step {step}: {error:#}"),
    }
}

impl EngineRollouts<'_> {
    /// Watches a round of the reference's own, which later ones are compared with, where the run does not begin with one.
    pub(super) fn watch_reference(&mut self, weights: Arc<dyn WeightSource>) -> Result<()> {
        if self.log.ends().is_none() {
            self.drawn(weights, (0, 0))?;
        }
        Ok(())
    }

    fn round(&mut self, weights: Arc<dyn WeightSource>, step: u64) -> Result<Vec<PolicyResponse>> {
        let round = (&self.plan, step);
        if let Some(responses) = self.warm_start.round(round, self.prompts, &self.rewarding)? {
            return Ok(responses);
        }
        self.drawn(weights, (step, step))
    }

    /// The round before `step`, watched as what `seen_at` steps made.
    fn drawn(
        &mut self,
        weights: Arc<dyn WeightSource>,
        (step, seen_at): (u64, u64),
    ) -> Result<Vec<PolicyResponse>> {
        let policy = self.base.with_weights(weights)?;
        let chosen = self.plan.prompts(self.prompts.len(), step);
        let jobs: Vec<Job> = chosen.iter().map(|&idx| self.job(idx, step)).collect();
        let drawn = draw(&policy, &jobs, self.plan.kv_memory_mib)?;
        // The policy's memory is free again before rewards that are models are asked.
        drop(policy);
        let mut rows: Vec<Rollout> = Vec::new();
        let mut keys: Vec<u64> = Vec::new();
        for ((job, &prompt_idx), candidates) in jobs.iter().zip(&chosen).zip(&drawn) {
            let of = |candidate| rollout(job, prompt_idx as u64, candidate);
            rows.extend(candidates.iter().map(of));
            keys.resize(rows.len(), PromptKey::of_tokens(&job.token_ids).0);
        }
        for batch in rows.chunks_mut(SCORED_ROWS) {
            self.rewards.score(batch)?;
        }
        let name = &self.rewards.columns()[0].name;
        let rewarded: Vec<Rewarded> = rows
            .iter()
            .zip(&keys)
            .map(|(row, &key)| self.rewarding.of(key, row.rewards[name]))
            .collect::<Result<_>>()?;
        self.log.keep(Watched::of(seen_at, name, &rows, &rewarded))?;
        let drawn = drawn.into_iter().flatten().zip(rewarded);
        let response =
            |((row, key), (candidate, rewarded)): ((Rollout, u64), (Candidate, Rewarded))| PolicyResponse {
                key,
                prompt_token_ids: row.prompt_token_ids,
                token_ids: row.response_token_ids,
                sampler_log_probs: candidate.token_log_probs,
                reward: rewarded.trained_reward,
                weight: 1.0,
                is_of_reference: false,
            };
        Ok(rows.into_iter().zip(keys).zip(drawn).map(response).collect())
    }

    fn job(&self, idx: usize, step: u64) -> Job {
        Job {
            decode: drawing(self.plan.per_prompt, Sampling::REFERENCE),
            // Other coins in every round; the odd constant keeps rounds of neighbouring seeds apart.
            seed: Seed(
                self.plan
                    .seed
                    .wrapping_add((step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ),
            ..self.prompts[idx].clone()
        }
    }
}

impl RoundPlan {
    /// Places of the prompts of the round before `step`: all prompts in an order of their own, then all in another.
    pub(super) fn prompts(&self, num_prompts: usize, step: u64) -> Vec<usize> {
        let per_round = self.prompts_per_round.min(num_prompts);
        let first = (step / self.steps_per_round.max(1)) * per_round as u64;
        let mut order: Option<(u64, Vec<usize>)> = None;
        let mut chosen = Vec::with_capacity(per_round);
        let mut place = first;
        while chosen.len() < per_round {
            let (pass, within) = (place / num_prompts as u64, (place % num_prompts as u64) as usize);
            if order.as_ref().is_none_or(|(of, _)| *of != pass) {
                order = Some((pass, self.order(num_prompts, pass)));
            }
            let idx = order.as_ref().map_or(0, |(_, order)| order[within]);
            // Where two passes meet a prompt may come twice; once is enough.
            if !chosen.contains(&idx) {
                chosen.push(idx);
            }
            place += 1;
        }
        chosen
    }

    fn order(&self, num_prompts: usize, pass: u64) -> Vec<usize> {
        let stream = SampleStream::new(Seed(self.seed), PromptKey(pass), 0, Purpose::Training);
        let mut order: Vec<usize> = (0..num_prompts).collect();
        order.sort_by(|&a, &b| stream.uniform(a as u64).total_cmp(&stream.uniform(b as u64)));
        order
    }
}

/// All candidates of each job.
fn draw(policy: &LoadedModel, jobs: &[Job], kv_memory_mib: u32) -> Result<Vec<Vec<Candidate>>> {
    let mut engine = policy.engine((kv_memory_mib as usize) << 20, EngineConfig::standard())?;
    let mut drawn: Vec<Vec<Candidate>> = vec![Vec::new(); jobs.len()];
    run_jobs::<anyhow::Error>(
        &mut engine,
        &policy.token_bytes(),
        jobs,
        None,
        RunLimits::standard(),
        &mut |event| {
            if let RunEvent::Finished(result) = event {
                drawn[result.job_idx] = result.outcome.candidates;
            }
            Ok(())
        },
    )
    .context("the engine")?;
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_through_all_prompts_before_any_comes_again() {
        let plan = RoundPlan {
            prompts_per_round: 3,
            per_prompt: 2,
            steps_per_round: 2,
            seed: 5,
            kv_memory_mib: 1,
        };
        let first: Vec<usize> = [0, 2].iter().flat_map(|&step| plan.prompts(6, step)).collect();
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
        assert_eq!(
            plan.prompts(6, 0),
            plan.prompts(6, 1),
            "a round is of several steps"
        );
        let second: Vec<usize> = [4, 6].iter().flat_map(|&step| plan.prompts(6, step)).collect();
        assert_ne!(first, second);
        // More prompts than there are: each once.
        assert_eq!(plan.prompts(2, 0).len(), 2);
    }
}
