//! Scorers with weights of their own: adapters or all weights are trained with the heads. Knows the prefix set's order.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result, bail};
use trimtab_model::ModelFile;
use trimtab_scorer::TokenFeatures;
use trimtab_train::decoder::{TokenResponse, ValueBase, train_value_model, write_model};
use trimtab_train::{PrefixSet, RunDir, ScorerTrainConfig, TrainEvent, TrainedScorer};

use super::rows::Rows;

/// What such a scorer is trained on.
pub(super) struct Deep<'a> {
    /// The model that it starts from.
    pub(super) model: &'a Path,
    pub(super) model_sha256: &'a str,
    pub(super) rows: &'a Rows,
    /// Of the same responses in the same order.
    pub(super) set: &'a PrefixSet,
    pub(super) features: Option<&'a TokenFeatures>,
}

/// Trains the scorer and writes its model into the run's folder; gives the name of that entry.
///
/// # Errors
/// Data that cannot be used, a loss that is not finite, the file system's.
pub(super) fn train_deep(
    config: &ScorerTrainConfig,
    deep: &Deep<'_>,
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<(TrainedScorer, String)> {
    let responses = responses(deep)?;
    let file = ModelFile::open(deep.model)?;
    let weights = file.weights();
    let base = ValueBase {
        config: file.config(),
        weights: weights.as_ref(),
        sha256: deep.model_sha256,
    };
    let trained = train_value_model(config, base, &responses, deep.features, run_dir, on_event)?;
    let own = trained.decoder.trained_weights(file.weights());
    let path = write_model(&file, &own, run_dir.path())
        .with_context(|| format!("cannot write the scorer's model in {}", run_dir.path().display()))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok((trained.scorer, name.context("a model has a name")?))
}

/// Every response: prompts from the rollouts, the rest from the set.
fn responses(deep: &Deep<'_>) -> Result<Vec<TokenResponse>> {
    let mut rows = deep.rows.read_from(0)?;
    let mut responses = Vec::new();
    for shard_idx in 0..deep.set.shards().len() {
        let shard = deep.set.shard(shard_idx)?;
        for idx in 0..shard.num_responses() {
            let row = rows.next().transpose()?;
            let row = row.filter(|row| row.response_token_ids == shard.token_ids(idx));
            let Some(row) = row else {
                bail!(
                    "response {} of the prefix set is not that of the rollouts",
                    responses.len() + 1
                );
            };
            responses.push(TokenResponse {
                prompt_token_ids: row.prompt_token_ids,
                response_token_ids: row.response_token_ids,
                expected_features: shard.expected_features(idx).to_vec(),
                reward: shard.reward(idx),
                key: shard.key(idx),
            });
        }
    }
    Ok(responses)
}
