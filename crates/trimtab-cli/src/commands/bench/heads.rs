//! How fast the heads of a prefix scorer train from cached states. Knows no report but its own number.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use trimtab_base::{PromptKey, SampleStream, Seed};
use trimtab_train::{
    PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures, RunDir, ScorerTrainConfig, TrainEvent,
    train_scorer,
};

use super::steered::random_weights;
use crate::resolve::ReadyModel;

/// Responses, and tokens of each: few enough to take seconds, enough for whole batches.
const NUM_RESPONSES: usize = 40;
const RESPONSE_LEN: usize = 127;
const EPOCHS: u64 = 5;

/// Prefixes that CD-FUDGE trains state and action head on in a second, in the width that `train scorer` makes them:
/// the time of steps alone, after the first. States are random, which speed does not depend on.
pub(super) fn trained_prefixes_per_s(model: &ReadyModel) -> Result<f64> {
    let folder = std::env::temp_dir().join(format!("trimtab-bench-heads-{}", std::process::id()));
    let speed = measure(model, &folder);
    // What is left behind there is small, and the number is worth more than a complaint about it.
    let _ = std::fs::remove_dir_all(&folder);
    speed.context("training heads")
}

fn measure(model: &ReadyModel, folder: &Path) -> Result<f64> {
    let weights = random_weights(model);
    let set = random_states(
        model,
        &folder.join("set"),
        weights.token_features.as_ref().map_or(0, |features| features.len),
    )?;
    let config = ScorerTrainConfig {
        epochs: EPOCHS,
        ..ScorerTrainConfig::default()
    };
    let (mut prefixes, mut seconds) = (0, 0.0);
    let mut last: Option<Instant> = None;
    train_scorer(
        &config,
        &set,
        weights.token_features.as_ref(),
        &RunDir::new(folder.join("run"), "bench"),
        &mut |event| {
            if let (TrainEvent::Step { num_items, .. }, Some(last)) = (&event, last) {
                prefixes += num_items;
                seconds += last.elapsed().as_secs_f64();
            }
            last = Some(Instant::now());
            ControlFlow::Continue(())
        },
    )?;
    Ok(prefixes as f64 / seconds)
}

fn random_states(model: &ReadyModel, folder: &Path, feature_len: usize) -> Result<PrefixSet> {
    let config = model.loaded.config();
    let header = PrefixSetHeader {
        base_name: model.stored.name.clone(),
        base_sha256: model.sha256(),
        precision: "random".to_owned(),
        hidden_len: config.hidden_len,
        vocab_len: config.vocab_len,
        feature_len,
        features_sha256: "random".to_owned(),
        rollouts_sha256: "random".to_owned(),
        reward: "random".to_owned(),
        reward_unit: "none".to_owned(),
    };
    let mut writer = PrefixSetWriter::create(folder, header)?;
    for key in 0..NUM_RESPONSES as u64 {
        let coins = SampleStream::new(Seed(0), PromptKey(key), 0, trimtab_base::rng::Purpose::Token);
        let many = |from: usize, count: usize| {
            (from..from + count)
                .map(|step| coins.uniform(step as u64) as f32 - 0.5)
                .collect::<Vec<f32>>()
        };
        let num_states = (RESPONSE_LEN + 1) * config.hidden_len;
        writer.push(&ResponseFeatures {
            hidden: many(0, num_states),
            expected_features: many(num_states, (RESPONSE_LEN + 1) * feature_len),
            token_ids: vec![0; RESPONSE_LEN],
            reward: coins.uniform(u64::MAX),
            key,
        })?;
    }
    Ok(writer.finish()?)
}
