//! Scorers with weights of their own: the decoder is trained with the heads and written beside the card.
//!
//! What the reference says of each prefix comes from the same set of states as for heads alone; the states themselves
//! are computed anew in every step.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use trimtab_model::ModelFile;
use trimtab_scorer::TokenFeatures;
use trimtab_train::decoder::{TokenResponse, ValueBase, train_value_model, write_model};
use trimtab_train::{PrefixSet, RunDir, ScorerTrainConfig, TrainEvent, TrainedScorer};

use super::rows::Rows;
use crate::resolve::ReadyModel;

/// Where such a scorer starts.
pub(super) struct Start {
    path: PathBuf,
    sha256: String,
    /// Of each row.
    prompts: Vec<Vec<u32>>,
}

/// A scorer and the entry beside its card that holds its model.
pub(super) struct Own {
    pub(super) scorer: TrainedScorer,
    pub(super) entry: String,
}

impl Start {
    /// The weights of `model`, and the prompts of `rows`.
    pub(super) fn read(model: &ReadyModel, rows: &Rows) -> Result<Self> {
        let prompts = rows.read_from(0)?.map(|row| Ok(row?.prompt_token_ids));
        Ok(Self {
            path: model.stored.path.clone(),
            sha256: model.sha256(),
            prompts: prompts.collect::<Result<_>>()?,
        })
    }

    /// Trains decoder and heads, and writes the decoder into `out`.
    ///
    /// # Errors
    /// Data that do not fit the model, a run folder of another configuration, the file system's.
    pub(super) fn train(
        self,
        training: &ScorerTrainConfig,
        (set, features): (&PrefixSet, Option<&TokenFeatures>),
        out: &Path,
        on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
    ) -> Result<Own> {
        let responses = token_responses(self.prompts, set)?;
        let file = ModelFile::open(&self.path).with_context(|| self.path.display().to_string())?;
        let weights = file.weights();
        let base = ValueBase {
            config: file.config(),
            weights: weights.as_ref(),
            sha256: &self.sha256,
        };
        let run_dir = RunDir::new(out, env!("CARGO_PKG_VERSION"));
        let trained = train_value_model(training, base, &responses, features, &run_dir, on_event)?;
        let merged = trained.decoder.trained_weights(weights);
        let written = write_model(&file, &merged, out)?;
        let entry = written.file_name().context("a written model has a name")?;
        Ok(Own {
            scorer: trained.scorer,
            entry: entry.to_string_lossy().into_owned(),
        })
    }
}

/// Responses of `set` with the prompts they answer, which it does not keep.
fn token_responses(prompts: Vec<Vec<u32>>, set: &PrefixSet) -> Result<Vec<TokenResponse>> {
    let mut responses = Vec::with_capacity(prompts.len());
    let mut prompts = prompts.into_iter();
    for shard_idx in 0..set.shards().len() {
        let shard = set.shard(shard_idx)?;
        for idx in 0..shard.num_responses() {
            let prompt = prompts
                .next()
                .context("the prefix set has more responses than the rollouts")?;
            responses.push(TokenResponse {
                prompt_token_ids: prompt,
                response_token_ids: shard.token_ids(idx).to_vec(),
                expected_features: shard.expected_features(idx).to_vec(),
                reward: shard.reward(idx),
                key: shard.key(idx),
            });
        }
    }
    ensure!(
        prompts.next().is_none(),
        "the prefix set has fewer responses than the rollouts"
    );
    Ok(responses)
}
