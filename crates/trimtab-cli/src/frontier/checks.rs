//! What must hold before a run begins, so that it is refused whole or not at all. Knows prompts, rewards and the
//! engine's limits, no files.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use trimtab_base::{PromptKey, RewardError, RewardModel, TokenBytes, TokenId};
use trimtab_decode::DecoderInputs;
use trimtab_engine::{Engine, Prompt, Request};
use trimtab_runtime::Job;

use super::entry::Entry;
use crate::prompts::PromptRecord;

/// Refuses records that lack what the reward reads.
pub(super) fn records_fit(source: &str, prompts: &[PromptRecord], reward: &dyn RewardModel) -> Result<()> {
    for prompt in prompts {
        let line = prompt.line;
        match reward.check_record(&prompt.record) {
            Ok(()) => {}
            Err(RewardError::MissingField { reward, field, .. }) => bail!(
                "{source} line {line}: no field {field:?}, which reward {reward} reads; give prompts as .jsonl with \
                 that field"
            ),
            Err(RewardError::BadField {
                reward,
                field,
                expected,
                got,
                ..
            }) => bail!("{source} line {line}: {field} is {got}; reward {reward} expects {expected}"),
            Err(other) => return Err(other).with_context(|| format!("{source} line {line}")),
        }
    }
    Ok(())
}

/// Places of prompts that differ as texts from earlier ones and not as tokens, each with the place of the first: they
/// would draw equal answers.
pub(super) fn equal_to_earlier(tokens: &[Vec<TokenId>]) -> Vec<(usize, usize)> {
    let mut seen: HashMap<&[TokenId], usize> = HashMap::new();
    let mut equal = Vec::new();
    for (idx, ids) in tokens.iter().enumerate() {
        match seen.get(ids.as_slice()) {
            Some(&first) => equal.push((first, idx)),
            None => {
                seen.insert(ids, idx);
            }
        }
    }
    equal
}

/// Refuses prompts that are the same to the model.
pub(super) fn are_distinct(tokens: &[Vec<TokenId>]) -> Result<()> {
    match equal_to_earlier(tokens).first() {
        Some((first, second)) => bail!(
            "prompts {} and {} are the same to the model; remove one, since equal prompts draw equal answers, or set \
             duplicates = \"first\"",
            first + 1,
            second + 1
        ),
        None => Ok(()),
    }
}

/// Refuses prompts that leave no room for an answer, all at once.
pub(super) fn fit_context(tokens: &[Vec<TokenId>], max_new_tokens: usize, context_len: usize) -> Result<()> {
    let too_long: Vec<String> = tokens
        .iter()
        .enumerate()
        .filter(|(_, ids)| ids.len().saturating_add(max_new_tokens) > context_len)
        .map(|(idx, ids)| format!("prompt {} has {}", idx + 1, ids.len()))
        .collect();
    if !too_long.is_empty() {
        bail!(
            "the context of {context_len} tokens does not hold these prompts with max_new_tokens = {max_new_tokens}: \
             {}; shorten them or lower max_new_tokens",
            too_long.join(", ")
        );
    }
    Ok(())
}

/// Lets the engine judge `jobs` without running them.
pub(super) fn fit_engine(engine: &mut Engine, token_bytes: &Arc<dyn TokenBytes>, jobs: &[Job]) -> Result<()> {
    for job in jobs {
        let inputs = DecoderInputs {
            prompt_key: PromptKey::of_tokens(&job.token_ids),
            seed: job.seed,
            stop: job.stop.clone(),
            token_bytes: Arc::clone(token_bytes),
            steering: Arc::clone(&job.steering),
            trace: job.trace,
        };
        let decoder = job
            .decode
            .build_scored(inputs)
            .with_context(|| job.label.clone())?;
        let prompt = Prompt::tokens(job.token_ids.clone());
        let id = engine
            .submit(Request { prompt, decoder })
            .with_context(|| job.label.clone())?;
        engine.cancel(id)?;
    }
    Ok(())
}

/// The entries of a journal, each pair of group and prompt once.
///
/// Lines are whole and belong to this run, so they can only be wrong if somebody edited the file, or if two programs
/// wrote it on a file system that keeps no locks.
///
/// # Errors
/// An entry that the run does not have; two different ones for one pair. The line is named.
pub(super) fn distinct_entries(
    entries: Vec<Entry>,
    num_groups: usize,
    num_prompts: usize,
) -> Result<Vec<Entry>> {
    let mut lines: HashMap<(usize, usize), (usize, Entry)> = HashMap::with_capacity(entries.len());
    for (idx, entry) in entries.into_iter().enumerate() {
        // After the header, counted from 1.
        let line = idx + 2;
        let Entry { group, prompt, .. } = entry;
        if group >= num_groups || prompt >= num_prompts || entry.chosen >= entry.candidates.len() {
            bail!("journal line {line} is for group {group}, prompt {prompt}, which this run does not have");
        }
        match lines.get(&(group, prompt)) {
            Some((first, known)) if *known != entry => bail!(
                "journal line {line} differs from line {first}, and both are for group {group}, prompt {prompt}; \
                 remove the folder to start again"
            ),
            Some(_) => {}
            None => {
                lines.insert((group, prompt), (line, entry));
            }
        }
    }
    Ok(lines.into_values().map(|(_, entry)| entry).collect())
}
