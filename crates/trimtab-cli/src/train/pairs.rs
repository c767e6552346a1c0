//! States at the ends of preferred and rejected responses. Knows pairs, the model's states and where they are kept.
//!
//! States are kept as a prefix set with one prefix a response, chosen and rejected in turn, so that reading them goes on
//! where it was stopped and is not done twice.

use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use trimtab_base::{PromptKey, TokenId};
use trimtab_data::{PreferencePair, PreferenceReader, RowRange};
use trimtab_runtime::{FeatureItem, PromptStyle, ReaderLimits, prefix_features};
use trimtab_train::{PairedStates, PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures};

use super::features::{folder_of, hex};
use crate::output;
use crate::progress::ItemProgress;
use crate::resolve::ReadyModel;

/// Pairs whose tokens are held at once.
const CHUNK_LEN: usize = 256;

/// Which pairs, and how they are read.
pub(crate) struct PairSource<'a> {
    pub(crate) path: &'a Path,
    pub(crate) range: RowRange,
    pub(crate) drop_long: bool,
    pub(crate) precision: &'a str,
}

/// One pair as token ids.
struct Encoded {
    /// Of the prompt.
    key: u64,
    chosen: Vec<TokenId>,
    rejected: Vec<TokenId>,
}

/// The states after the end tokens of all responses.
///
/// # Errors
/// The first pair that cannot be used, before any state is read.
pub(crate) fn final_states(source: &PairSource<'_>, model: &ReadyModel) -> Result<PairedStates> {
    let found = scan(source, model)?;
    let header = PrefixSetHeader {
        base_name: model.stored.name.clone(),
        base_sha256: model.sha256(),
        precision: source.precision.to_owned(),
        hidden_len: model.loaded.config().hidden_len,
        vocab_len: model.loaded.config().vocab_len,
        feature_len: 0,
        features_sha256: String::new(),
        rollouts_sha256: found.sha256.clone(),
        reward: "preference".to_owned(),
        reward_unit: "1 if chosen else 0".to_owned(),
    };
    let folder = folder_of(&header)?;
    let set = read_states(source, model, &found, (&folder, header))
        .with_context(|| format!("prefix set {}", folder.display()))?;
    paired(&set)
}

/// What the first pass finds.
struct Found {
    num_pairs: u64,
    sha256: String,
}

fn scan(source: &PairSource<'_>, model: &ReadyModel) -> Result<Found> {
    let (mut num_pairs, mut num_dropped) = (0, 0);
    let mut hasher = Sha256::new();
    for pair in PreferenceReader::open(source.path, source.range)? {
        match encoded(source, model, &pair?)? {
            Some(pair) => {
                num_pairs += 1;
                for tokens in [&pair.chosen, &pair.rejected] {
                    hasher.update((tokens.len() as u64).to_le_bytes());
                    for token in tokens {
                        hasher.update(token.0.to_le_bytes());
                    }
                }
            }
            None => num_dropped += 1,
        }
    }
    if num_dropped > 0 {
        output::note(&format!(
            "{num_dropped} pairs do not fit the context and are left out"
        ));
    }
    if num_pairs == 0 {
        bail!(
            "{} has no pairs to take after the first {}",
            source.path.display(),
            source.range.skip
        );
    }
    Ok(Found {
        num_pairs,
        sha256: hex(&hasher.finalize()),
    })
}

/// The pair's tokens; `None` for one that is to be left out.
fn encoded(source: &PairSource<'_>, model: &ReadyModel, pair: &PreferencePair) -> Result<Option<Encoded>> {
    let label = || format!("{} row {}", source.path.display(), pair.row);
    let (tokenizer, style) = (model.loaded.tokenizer(), PromptStyle::default());
    let turns = pair.turns();
    let prompt_ids = if tokenizer.chat_template().is_some() {
        let turns: Vec<(&str, &str)> = turns
            .iter()
            .map(|turn| (turn.role.as_str(), turn.content.as_str()))
            .collect();
        style.encode_turns(tokenizer, &turns).with_context(label)?
    } else {
        // A model without a template reads a dialogue as one text.
        style.encode(tokenizer, &pair.prompt).with_context(label)?
    };
    let key = PromptKey::of_tokens(&prompt_ids).0;
    let context = model.loaded.config().context_len;
    let mut whole = Vec::with_capacity(2);
    for response in [&pair.chosen, &pair.rejected] {
        let prompt = (pair.prompt.as_str(), prompt_ids.clone());
        let ids = style
            .encode_behind(tokenizer, prompt, response, true)
            .with_context(label)?;
        let tokens = [ids.prompt_ids, ids.response_ids].concat();
        if tokens.len() > context {
            if source.drop_long {
                return Ok(None);
            }
            bail!(
                "{}: prompt and response have {} tokens, more than the model's context of {context}; leave the row out, \
                 or set drop_long = true",
                label(),
                tokens.len()
            );
        }
        whole.push(tokens);
    }
    let (Some(rejected), Some(chosen)) = (whole.pop(), whole.pop()) else {
        bail!("{}: expected two responses", label());
    };
    if chosen.is_empty() || rejected.is_empty() {
        bail!(
            "{}: prompt and response have no tokens, expected at least one",
            label()
        );
    }
    Ok(Some(Encoded {
        key,
        chosen,
        rejected,
    }))
}

fn read_states(
    source: &PairSource<'_>,
    model: &ReadyModel,
    found: &Found,
    (folder, header): (&Path, PrefixSetHeader),
) -> Result<PrefixSet> {
    let mut writer = PrefixSetWriter::create(folder, header)?;
    if writer.is_complete() {
        return Ok(PrefixSet::open(folder)?);
    }
    let what = "reading states";
    // Shards may end between the two responses of a pair; the pair is then run again and its half not pushed twice.
    let mut done = writer.num_durable();
    let mut progress = ItemProgress::new(what, found.num_pairs, done / 2);
    let pairs = PreferenceReader::open(source.path, source.range)?;
    let mut kept = pairs
        .map(|pair| encoded(source, model, &pair?))
        .filter_map(Result::transpose)
        .skip((done / 2) as usize);
    done %= 2;
    loop {
        let chunk: Vec<Encoded> = kept.by_ref().take(CHUNK_LEN).collect::<Result<_>>()?;
        if chunk.is_empty() {
            break;
        }
        // The whole text as prompt: its last state is the one after the end token.
        let item = |prompt| FeatureItem {
            prompt,
            response: &[],
        };
        let items: Vec<FeatureItem<'_>> = chunk
            .iter()
            .flat_map(|pair| [item(&pair.chosen), item(&pair.rejected)])
            .collect();
        let limits = ReaderLimits::standard();
        prefix_features::<anyhow::Error>(&model.loaded, None, &items, limits, &mut |idx, states| {
            if done > 0 {
                done -= 1;
                return Ok(());
            }
            writer.push(&ResponseFeatures {
                hidden: states.hidden,
                expected_features: Vec::new(),
                token_ids: Vec::new(),
                reward: f64::from(u8::from(idx % 2 == 0)),
                key: chunk[idx / 2].key,
            })?;
            if idx % 2 == 1 {
                progress.say("pairs".to_owned());
                progress.advance(what);
            }
            Ok(())
        })?;
    }
    progress.finish();
    Ok(writer.finish()?)
}

/// The set's states as pairs, in memory: two states of a pair are `8 * hidden` bytes.
fn paired(set: &PrefixSet) -> Result<PairedStates> {
    let mut states = PairedStates {
        hidden_len: set.header().hidden_len,
        ..PairedStates::default()
    };
    for shard_idx in 0..set.shards().len() {
        let shard = set.shard(shard_idx)?;
        for idx in 0..shard.num_responses() {
            let hidden = shard.hidden(idx).iter().map(|value| value.to_f32());
            if shard.reward(idx) > 0.5 {
                states.chosen.extend(hidden);
                states.keys.push(shard.key(idx));
            } else {
                states.rejected.extend(hidden);
            }
        }
    }
    Ok(states)
}
