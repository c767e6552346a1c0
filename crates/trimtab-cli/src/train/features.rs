//! Prefix sets by their content: extracted once, found again by every scorer on the same states. Knows the store's place.
//!
//! A set's folder is named by the hash of what it was made from, so that CD-FUDGE and CD-Q on one reward share it, as do
//! runs that differ in their training alone; another reward of the same rollouts takes the states over. A set that was
//! stopped goes on after its last whole shard.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use trimtab_base::{PromptKey, RewardModel, TokenId};
use trimtab_data::Rollout;
use trimtab_runtime::{FeatureItem, ReaderLimits, prefix_features};
use trimtab_scorer::TokenFeatures;
use trimtab_train::{PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures};

use super::rows::Rows;
use crate::progress::ItemProgress;
use crate::resolve::{ReadyModel, open_store};

/// Rollouts whose tokens are held at once.
const CHUNK_LEN: usize = 512;

/// What a prefix set is made from.
pub(super) struct Source<'a> {
    pub(super) model: &'a ReadyModel,
    pub(super) precision: &'a str,
    pub(super) rows: &'a Rows,
    pub(super) reward: &'a dyn RewardModel,
    pub(super) features: Option<&'a TokenFeatures>,
}

impl Source<'_> {
    fn header(&self) -> PrefixSetHeader {
        let config = self.model.loaded.config();
        PrefixSetHeader {
            base_name: self.model.stored.name.clone(),
            base_sha256: self.model.sha256(),
            precision: self.precision.to_owned(),
            hidden_len: config.hidden_len,
            vocab_len: config.vocab_len,
            feature_len: self.features.map_or(0, |features| features.len),
            features_sha256: self.features.map(features_sha256).unwrap_or_default(),
            rollouts_sha256: self.rows.sha256.clone(),
            reward: match &self.rows.rewards_sha256 {
                Some(sha256) => format!("{} {sha256}", self.reward.name()),
                None => self.reward.name().to_owned(),
            },
            reward_unit: self.reward.unit().to_owned(),
        }
    }

    /// The set, from the store or extracted now.
    ///
    /// # Errors
    /// A reward that fails, a state that is no number, the file system's.
    pub(super) fn prefix_set(&self) -> Result<PrefixSet> {
        let header = self.header();
        let folder = folder_of(&header)?;
        self.extract(&folder, header)
            .with_context(|| format!("prefix set {}", folder.display()))
    }

    fn extract(&self, folder: &Path, header: PrefixSetHeader) -> Result<PrefixSet> {
        let known = same_states(folder, &header)?;
        let mut writer = PrefixSetWriter::create(folder, header)?;
        if writer.is_complete() {
            return Ok(PrefixSet::open(folder)?);
        }
        if let Some(known) = known {
            return self.take_over(&known, writer);
        }
        let what = "reading states";
        let mut start = writer.num_durable();
        let mut progress = ItemProgress::new(what, self.rows.len, start);
        let started = std::time::Instant::now();
        let mut num_prefixes = 0;
        let mut rows = self.rows.read_from(start)?;
        loop {
            let chunk: Vec<Rollout> = rows.by_ref().take(CHUNK_LEN).collect::<Result<_>>()?;
            if chunk.is_empty() {
                break;
            }
            let rewards = self.rows.rewards(start, &chunk, self.reward)?;
            start += chunk.len() as u64;
            self.states(&chunk, &rewards, &mut |response| {
                writer.push(&response)?;
                num_prefixes += response.num_prefixes();
                let per_s = num_prefixes as f64 / started.elapsed().as_secs_f64();
                progress.say(format!("{per_s:.0} prefixes/s"));
                progress.advance(what);
                Ok(())
            })?;
        }
        progress.finish();
        Ok(writer.finish()?)
    }

    /// Copies the states of a set that differs in the reward alone.
    fn take_over(&self, known: &PrefixSet, mut writer: PrefixSetWriter) -> Result<PrefixSet> {
        let mut rows = self.rows.read_from(0)?;
        let mut number = 0;
        for shard_idx in 0..known.shards().len() {
            let shard = known.shard(shard_idx)?;
            let chunk: Vec<Rollout> = rows.by_ref().take(shard.num_responses()).collect::<Result<_>>()?;
            let rewards = self.rows.rewards(number, &chunk, self.reward)?;
            let done = writer.num_durable();
            for (idx, &reward) in rewards.iter().enumerate() {
                if number + idx as u64 >= done {
                    writer.push(&ResponseFeatures {
                        hidden: shard.hidden(idx).iter().map(|value| value.to_f32()).collect(),
                        expected_features: shard.expected_features(idx).to_vec(),
                        token_ids: shard.token_ids(idx).to_vec(),
                        reward,
                        key: shard.key(idx),
                    })?;
                }
            }
            number += chunk.len() as u64;
        }
        Ok(writer.finish()?)
    }

    /// Hands out the states of `chunk` in order.
    fn states(
        &self,
        chunk: &[Rollout],
        rewards: &[f64],
        push: &mut dyn FnMut(ResponseFeatures) -> Result<()>,
    ) -> Result<()> {
        let ids = |ids: &[u32]| ids.iter().map(|&id| TokenId(id)).collect::<Vec<TokenId>>();
        let tokens: Vec<(Vec<TokenId>, Vec<TokenId>)> = chunk
            .iter()
            .map(|row| (ids(&row.prompt_token_ids), ids(&row.response_token_ids)))
            .collect();
        let items: Vec<FeatureItem<'_>> = tokens
            .iter()
            .map(|(prompt, response)| FeatureItem { prompt, response })
            .collect();
        prefix_features::<anyhow::Error>(
            &self.model.loaded,
            self.features,
            &items,
            ReaderLimits::standard(),
            &mut |idx, states| {
                push(ResponseFeatures {
                    hidden: states.hidden,
                    expected_features: states.expected_features,
                    token_ids: chunk[idx].response_token_ids.clone(),
                    reward: rewards[idx],
                    key: PromptKey::of_tokens(&tokens[idx].0).0,
                })
            },
        )
    }
}

/// A finished set beside `folder` with the states that `header` describes, whatever their rewards.
fn same_states(folder: &Path, header: &PrefixSetHeader) -> Result<Option<PrefixSet>> {
    let beside = folder.parent().unwrap_or(folder);
    let Ok(entries) = std::fs::read_dir(beside) else {
        return Ok(None);
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("cannot list {}", beside.display()))?;
    paths.sort();
    let fits = |set: &PrefixSet| {
        let of_states = |header: &PrefixSetHeader| PrefixSetHeader {
            reward: String::new(),
            reward_unit: String::new(),
            ..header.clone()
        };
        of_states(set.header()) == of_states(header)
    };
    // What does not open is unfinished, or of another version.
    let known = paths
        .iter()
        .filter_map(|path| PrefixSet::open(path).ok())
        .find(fits);
    // One shard at a time is enough for a copy.
    if let Some(set) = &known {
        set.limit_memory(0);
    }
    Ok(known)
}

/// Where the set of `header` lies.
pub(super) fn folder_of(header: &PrefixSetHeader) -> Result<PathBuf> {
    let json = serde_json::to_vec(header).context("cannot serialise a header")?;
    let name: String = hex::encode(Sha256::digest(json)).chars().take(32).collect();
    Ok(open_store()?.root().join("prefix-sets").join(name))
}

fn features_sha256(features: &TokenFeatures) -> String {
    let mut hasher = Sha256::new();
    for value in &features.values {
        hasher.update(value.to_le_bytes());
    }
    hex::encode(hasher.finalize())
}
