//! The calibration's own samples as the first rounds: they were drawn by the reference, which the policy is when it starts,
//! and they are judged already. Knows samples and rounds, no weights.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use trimtab_base::PromptKey;
use trimtab_runtime::Job;
use trimtab_train::policy::PolicyResponse;

use super::rewarding::{Rewarding, key_of};
use super::rollouts::RoundPlan;
use crate::calibrate::CalibrationFolder;

/// Samples of the reference, in the order in which rounds use them.
#[derive(Debug, Default)]
pub(super) struct WarmStart {
    num_rounds: u64,
    /// Tokens and reward, as it is, of each sample of a prompt.
    of_prompt: HashMap<u64, Vec<(Vec<u32>, f64)>>,
}

impl WarmStart {
    /// The first `num_rounds` rounds of `plan`, from `folder`. None are read for none.
    ///
    /// # Errors
    /// Fewer samples of a prompt than those rounds take, each being used once.
    pub(super) fn read(
        num_rounds: u64,
        folder: Option<&CalibrationFolder>,
        (plan, num_prompts): (&RoundPlan, usize),
    ) -> Result<Self> {
        let mut warm_start = Self {
            num_rounds,
            ..Self::default()
        };
        if num_rounds == 0 {
            return Ok(warm_start);
        }
        let folder = folder.context("a warm start takes samples, and there is no calibration")?;
        let per_round = plan.prompts_per_round.min(num_prompts) as u64;
        let uses = (num_rounds * per_round).div_ceil(num_prompts.max(1) as u64);
        let needed = usize::try_from(uses)? * plan.per_prompt;
        for prompt in folder.prompts()? {
            let prompt = prompt?;
            if prompt.rows.len() < needed {
                bail!(
                    "rollouts.warm_start_from_calibration = {num_rounds} takes {needed} samples of a prompt, and {} has {}; \
                     take fewer rounds, or calibrate with more samples",
                    folder.path.display(),
                    prompt.rows.len()
                );
            }
            let key = key_of(&prompt);
            let samples = prompt.rows.into_iter().zip(prompt.rewards);
            let samples = samples.map(|(row, reward)| (row.response_token_ids, reward));
            warm_start.of_prompt.insert(key, samples.take(needed).collect());
        }
        Ok(warm_start)
    }

    /// The responses of the round before `step`, if it is one of these.
    ///
    /// # Errors
    /// A prompt that was not calibrated.
    pub(super) fn round(
        &self,
        (plan, step): (&RoundPlan, u64),
        prompts: &[Job],
        rewarding: &Rewarding<'_>,
    ) -> Result<Option<Vec<PolicyResponse>>> {
        let round = step / plan.steps_per_round.max(1);
        if round >= self.num_rounds {
            return Ok(None);
        }
        let chosen = |round: u64| plan.prompts(prompts.len(), round * plan.steps_per_round.max(1));
        let mut uses = vec![0; prompts.len()];
        for earlier in 0..round {
            for idx in chosen(earlier) {
                uses[idx] += 1;
            }
        }
        let mut responses = Vec::new();
        for idx in chosen(round) {
            let prompt = &prompts[idx].token_ids;
            let key = PromptKey::of_tokens(prompt).0;
            let samples = self
                .of_prompt
                .get(&key)
                .context("a prompt is not in the calibration; remove its folder or choose another")?;
            let unused = samples
                .iter()
                .skip(uses[idx] * plan.per_prompt)
                .take(plan.per_prompt);
            for (token_ids, reward) in unused {
                responses.push(PolicyResponse {
                    key,
                    prompt_token_ids: prompt.iter().map(|id| id.0).collect(),
                    token_ids: token_ids.clone(),
                    reward: rewarding.of_sample(key, *reward)?.trained_reward,
                    weight: 1.0,
                    is_of_reference: true,
                    ..PolicyResponse::default()
                });
            }
        }
        Ok(Some(responses))
    }
}
