//! States after the last tokens of texts, read once and kept in the store. Knows tokens and the model, no judgement.
//!
//! They are kept as a prefix set with one prefix a text, so that reading goes on where it was stopped and is not done
//! twice, whatever is trained on them.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use trimtab_base::TokenId;
use trimtab_runtime::{FeatureItem, ReaderLimits, prefix_features};
use trimtab_train::{FinalStates, PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures};

use super::texts::TextSet;
use crate::output;
use crate::progress::ItemProgress;
use crate::resolve::ReadyModel;
use crate::train::features::folder_of;

/// Texts whose states are asked for at once.
const CHUNK_LEN: usize = 512;

/// The state after the last token of each text.
///
/// # Errors
/// A state that is no number, the file system's.
pub(crate) fn text_states(texts: &TextSet, precision: &str, model: &ReadyModel) -> Result<FinalStates> {
    let header = PrefixSetHeader {
        base_name: model.stored.name.clone(),
        base_sha256: model.sha256(),
        precision: precision.to_owned(),
        hidden_len: model.loaded.config().hidden_len,
        vocab_len: model.loaded.config().vocab_len,
        feature_len: 0,
        features_sha256: String::new(),
        rollouts_sha256: sha256_of(&texts.tokens),
        reward: "none".to_owned(),
        reward_unit: "none".to_owned(),
    };
    let folder = folder_of(&header)?;
    let set = read_states(&texts.tokens, model, (&folder, header))
        .with_context(|| format!("prefix set {}", folder.display()))?;
    in_memory(&set)
}

fn sha256_of(texts: &[Vec<TokenId>]) -> String {
    let mut hasher = Sha256::new();
    for tokens in texts {
        hasher.update((tokens.len() as u64).to_le_bytes());
        for token in tokens {
            hasher.update(token.0.to_le_bytes());
        }
    }
    hex::encode(hasher.finalize())
}

fn read_states(
    texts: &[Vec<TokenId>],
    model: &ReadyModel,
    (folder, header): (&Path, PrefixSetHeader),
) -> Result<PrefixSet> {
    let mut writer = PrefixSetWriter::create(folder, header)?;
    if writer.is_complete() {
        return Ok(PrefixSet::open(folder)?);
    }
    let what = "reading states";
    let done = writer.num_durable();
    let mut progress = ItemProgress::new(what, texts.len() as u64, done);
    let (started, mut num_tokens) = (Instant::now(), 0);
    for chunk in texts[done as usize..].chunks(CHUNK_LEN) {
        // The whole text as prompt: its last state is the one after its last token.
        let item = |tokens| FeatureItem {
            prompt: tokens,
            response: &[],
        };
        let items: Vec<FeatureItem<'_>> = chunk.iter().map(|tokens| item(tokens.as_slice())).collect();
        let limits = ReaderLimits::standard();
        prefix_features::<anyhow::Error>(&model.loaded, None, &items, limits, &mut |idx, states| {
            writer.push(&ResponseFeatures {
                hidden: states.hidden,
                expected_features: Vec::new(),
                token_ids: Vec::new(),
                reward: 0.0,
                key: 0,
            })?;
            num_tokens += chunk[idx].len();
            progress.say(format!(
                "{:.0} tokens/s",
                num_tokens as f64 / started.elapsed().as_secs_f64()
            ));
            progress.advance(what);
            Ok(())
        })?;
    }
    progress.finish();
    output::note(&format!(
        "read {} states ({num_tokens} tokens) in {:.0} s",
        texts.len() as u64 - done,
        started.elapsed().as_secs_f64()
    ));
    Ok(writer.finish()?)
}

/// The set's states in memory: `4 * hidden` bytes a text.
fn in_memory(set: &PrefixSet) -> Result<FinalStates> {
    let mut states = FinalStates {
        hidden_len: set.header().hidden_len,
        values: Vec::new(),
    };
    for shard_idx in 0..set.shards().len() {
        let shard = set.shard(shard_idx)?;
        for idx in 0..shard.num_responses() {
            states
                .values
                .extend(shard.hidden(idx).iter().map(|value| value.to_f32()));
        }
    }
    Ok(states)
}
