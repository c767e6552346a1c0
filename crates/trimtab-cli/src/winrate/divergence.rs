//! KL of a policy from its reference along the policy's own samples, in a journal that is resumed. Knows two models.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trimtab_base::TokenId;
use trimtab_data::{Rollout, RolloutReader};
use trimtab_runtime::{FeatureItem, LoadedModel, ReaderLimits, ResponseKl, response_kl};

use crate::journal::{Journal, RunHeader};
use crate::progress::ItemProgress;

/// Prompts whose samples are read together.
const PROMPTS_AT_ONCE: usize = 16;

/// What the numbers depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct KlRun {
    pub(super) version: &'static str,
    pub(super) policy_sha256: String,
    pub(super) reference_sha256: String,
    pub(super) precision: String,
    /// Content of the samples.
    pub(super) samples_sha256: String,
    /// Samples of a prompt that are measured.
    pub(super) per_prompt: usize,
}

impl RunHeader for KlRun {
    fn differences(&self, stored: &Value) -> Vec<String> {
        let ours = serde_json::to_value(self).unwrap_or_default();
        let fields = ours.as_object().into_iter().flatten();
        fields
            .filter(|(name, value)| stored.get(name) != Some(value))
            .map(|(name, value)| format!("{name}: {} there, {value} here", stored[name]))
            .collect()
    }
}

/// One prompt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct PromptKl {
    /// Place of the prompt.
    prompt: u64,
    /// Mean over its samples of the exact KLs at their tokens, in nats.
    pub(super) kl_nats: f64,
    /// Mean of `log pi(y) - log ref(y)`, in nats: the same in expectation, with more noise.
    pub(super) log_ratio_nats: f64,
}

/// Measures what is missing in the journal at `path`; one entry a prompt, in their order.
pub(super) fn measure(
    (policy, reference): (&LoadedModel, &LoadedModel),
    samples: &Path,
    (path, run): (&Path, &KlRun),
) -> Result<Vec<PromptKl>> {
    let (mut journal, mut known): (Journal, Vec<PromptKl>) = Journal::open(path, run)?;
    let reader = RolloutReader::open(samples)?;
    let num_prompts = reader
        .manifest()
        .context("samples lie in a folder with a manifest")?
        .num_prompts();
    let what = "measuring KL";
    let mut progress = ItemProgress::new(what, num_prompts, known.len() as u64);
    let mut waiting: Vec<Vec<Rollout>> = Vec::new();
    let mut flush = |waiting: &mut Vec<Vec<Rollout>>, known: &mut Vec<PromptKl>| -> Result<()> {
        for entry in of_prompts((policy, reference), waiting)? {
            journal.append(&entry)?;
            known.push(entry);
            progress.advance(what);
        }
        waiting.clear();
        Ok(())
    };
    let mut last = None;
    for row in reader {
        let row = row?;
        if known.iter().any(|entry| entry.prompt == row.prompt_idx) {
            continue;
        }
        if last != Some(row.prompt_idx) {
            if waiting.len() == PROMPTS_AT_ONCE {
                flush(&mut waiting, &mut known)?;
            }
            waiting.push(Vec::new());
            last = Some(row.prompt_idx);
        }
        if let Some(group) = waiting.last_mut().filter(|group| group.len() < run.per_prompt) {
            group.push(row);
        }
    }
    flush(&mut waiting, &mut known)?;
    progress.finish();
    known.sort_by_key(|entry| entry.prompt);
    Ok(known)
}

#[cfg(test)]
impl PromptKl {
    pub(super) fn of(kl_nats: f64) -> Self {
        Self {
            prompt: 0,
            kl_nats,
            log_ratio_nats: kl_nats,
        }
    }
}

fn of_prompts(
    (policy, reference): (&LoadedModel, &LoadedModel),
    prompts: &[Vec<Rollout>],
) -> Result<Vec<PromptKl>> {
    let ids = |ids: &[u32]| ids.iter().map(|&id| TokenId(id)).collect::<Vec<_>>();
    let tokens: Vec<(Vec<TokenId>, Vec<TokenId>)> = prompts
        .iter()
        .flatten()
        .map(|row| (ids(&row.prompt_token_ids), ids(&row.response_token_ids)))
        .collect();
    let items: Vec<FeatureItem<'_>> = tokens
        .iter()
        .map(|(prompt, response)| FeatureItem { prompt, response })
        .collect();
    let found = response_kl(policy, reference, &items, ReaderLimits::standard())?;
    let mut found = found.into_iter();
    let of_prompt = |rows: &Vec<Rollout>| {
        let own: Vec<ResponseKl> = found.by_ref().take(rows.len()).collect();
        let mean = |of: fn(&ResponseKl) -> f64| own.iter().map(of).sum::<f64>() / own.len().max(1) as f64;
        PromptKl {
            prompt: rows.first().map_or(0, |row| row.prompt_idx),
            kl_nats: mean(|one| one.kl_nats),
            log_ratio_nats: mean(ResponseKl::log_ratio_nats),
        }
    };
    Ok(prompts.iter().map(of_prompt).collect())
}
