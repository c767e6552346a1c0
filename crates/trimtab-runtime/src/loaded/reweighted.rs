//! A model with other weights of the same shapes: what training has at hand, run without files. Knows no training.

use std::sync::Arc;

use trimtab_model::Model;
use trimtab_model::load::WeightSource;
use trimtab_model::smoothing::SmoothedWeights;

use super::{LoadedModel, calibration_tokens};
use crate::error::RuntimeError;

impl LoadedModel {
    /// This model with `weights` in the places of its own, packed as opening a file of them would: the same precision and
    /// the same smoothing text, so that a policy drawn from in training is the policy that its file will be.
    ///
    /// # Errors
    /// A weight whose shape is not that of the model's configuration.
    pub fn with_weights(&self, weights: Arc<dyn WeightSource>) -> Result<Self, RuntimeError> {
        let plan = *self.model.plan();
        let config = self.model.config().clone();
        let source: Arc<dyn WeightSource> = if plan.smoothed {
            let calibration = calibration_tokens(&self.tokenizer)?;
            let smoothed =
                SmoothedWeights::calibrate(&config, Arc::clone(&weights), &calibration, &self.pool)?;
            Arc::new(smoothed)
        } else {
            Arc::clone(&weights)
        };
        let model = Arc::new(Model::load(config, source, plan, &self.pool)?);
        Ok(Self {
            model,
            weights,
            ..self.clone()
        })
    }

    /// The weights as the file has them, before any smoothing or packing.
    pub fn weights(&self) -> Arc<dyn WeightSource> {
        Arc::clone(&self.weights)
    }
}
