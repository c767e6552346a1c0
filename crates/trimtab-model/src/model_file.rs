//! A model on disk: its configuration and its weights, whatever the format. Knows which reader goes with which format.

use std::path::Path;
use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_checkpoint::Checkpoint;
use trimtab_kernels::pool::Pool;

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::from_gguf::config_from_gguf;
use crate::from_hf::config_from_hf;
use crate::from_llama2c::config_from_llama2c;
use crate::load::{Model, WeightSource};
use crate::precision::PrecisionPlan;
use crate::smoothing::SmoothedWeights;
use crate::weights::{CheckpointWeights, RotaryOrder};

/// An open checkpoint whose configuration has been read and whose tensors have all been found.
#[derive(Debug, Clone)]
pub struct ModelFile {
    config: ModelConfig,
    weights: Arc<CheckpointWeights>,
}

impl ModelFile {
    /// Opens a GGUF file, a safetensors folder or file, or a llama2.c file.
    ///
    /// # Errors
    /// A file that cannot be read, an architecture that is not covered, a field that is impossible, a tensor that is
    /// missing or that this decoder would ignore.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::from_checkpoint(Checkpoint::open(path)?)
    }

    /// As [`Self::open`], from a checkpoint that is open already.
    pub fn from_checkpoint(checkpoint: Checkpoint) -> Result<Self, ModelError> {
        let (config, rotary) = read_config(&checkpoint)?;
        let weights = Arc::new(CheckpointWeights::new(checkpoint, &config, rotary)?);
        Ok(Self { config, weights })
    }

    /// What the weights are.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file, for its metadata and its tokenizer.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.weights.checkpoint()
    }

    /// The weights by role.
    pub fn weights(&self) -> Arc<dyn WeightSource> {
        Arc::<CheckpointWeights>::clone(&self.weights)
    }

    /// Packs the weights for running; where the plan asks for smoothing, by the activations' ranges on `calibration`,
    /// token ids of a text such as the model is for.
    ///
    /// # Errors
    /// A tensor whose shape contradicts the configuration; a token outside the vocabulary.
    pub fn load(
        &self,
        plan: PrecisionPlan,
        pool: &Pool,
        calibration: &[TokenId],
    ) -> Result<Model, ModelError> {
        let weights: Arc<dyn WeightSource> = if plan.smoothed {
            Arc::new(SmoothedWeights::calibrate(
                &self.config,
                self.weights(),
                calibration,
                pool,
            )?)
        } else {
            self.weights()
        };
        Model::load(self.config.clone(), weights, plan, pool)
    }
}

fn read_config(checkpoint: &Checkpoint) -> Result<(ModelConfig, RotaryOrder), ModelError> {
    if let Some(metadata) = checkpoint.metadata() {
        return config_from_gguf(checkpoint, metadata);
    }
    if let Some(header) = checkpoint.llama2c_header() {
        return Ok((config_from_llama2c(header)?, RotaryOrder::Interleaved));
    }
    let json = checkpoint
        .config_json()
        .expect("a checkpoint is of one of three formats");
    Ok((config_from_hf(json)?, RotaryOrder::Halves))
}
