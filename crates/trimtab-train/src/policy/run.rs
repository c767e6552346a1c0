//! From data to a policy: checks, reference, objective and the one loop together.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trimtab_model::ModelConfig;
use trimtab_model::load::WeightSource;

use super::config::PolicyTrainConfig;
use super::data::{PolicyResponse, PreferenceTokens, Skipped};
use crate::decoder::Decoder;
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::run_dir::RunDir;

/// The model that a policy starts from and is held near to.
#[derive(Clone)]
pub struct PolicyBase {
    /// What it is.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: Arc<dyn WeightSource>,
    /// Their hash: a run goes on only from the same.
    pub sha256: String,
}

/// Draws responses of a policy and rewards them.
pub trait PolicyRollouts {
    /// Responses of the policy with these weights (adapters merged). A function of the weights and `step` alone, so that
    /// a run that was stopped draws the same again. Responses of one prompt share their key.
    ///
    /// # Errors
    /// What drawing or rewarding may say.
    fn rollouts(
        &mut self,
        weights: Arc<dyn WeightSource>,
        step: u64,
    ) -> Result<Vec<PolicyResponse>, TrainError>;
}

/// What a policy learns from.
pub enum PolicyData<'a> {
    /// Responses of its own, drawn as it goes: for `rl`, the only data whose optimum is the one that theory names.
    OnPolicy(&'a mut dyn PolicyRollouts),
    /// Given responses, usually of the reference.
    Responses {
        /// All of them; those of one prompt have one key.
        responses: &'a [PolicyResponse],
        /// Draws from the policy at every evaluation to measure its KL, which given responses cannot tell. Without it
        /// no KL stops the run or keeps weights.
        probe: Option<&'a mut dyn PolicyRollouts>,
    },
    /// Given preferences: for `dpo`, `ipo` and `bonbon`.
    Preferences {
        /// All of them.
        pairs: &'a [PreferenceTokens],
        /// As of responses.
        probe: Option<&'a mut dyn PolicyRollouts>,
    },
}

/// A trained policy.
pub struct TrainedPolicy {
    /// The decoder; [`Self::weights`] is what the engine runs and what files are written from.
    pub decoder: Decoder,
    /// The last numbers: of the last evaluation or, on-policy, of the last step.
    pub metrics: Metrics,
    /// Optimiser steps that made these weights.
    pub step: u64,
    /// Why the run ended early, if it did.
    pub stopped: Option<String>,
    /// Weights that were kept on the way, by rising KL.
    pub kept: Vec<KeptPolicy>,
    /// What of the given data was left out, and why.
    pub skipped: Skipped,
    base: PolicyBase,
}

/// Weights that were kept when the KL reached a value.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptPolicy {
    /// The value of `keep_at_kl_nats`.
    pub target_kl_nats: f64,
    /// The KL that was measured.
    pub kl_nats: f64,
    /// Optimiser steps that made them.
    pub step: u64,
    /// The checkpoint; [`load_kept`] reads it.
    pub path: PathBuf,
}

impl TrainedPolicy {
    /// The merged weights.
    pub fn weights(&self) -> Arc<dyn WeightSource> {
        Arc::new(self.decoder.trained_weights(Arc::clone(&self.base.weights)))
    }
}

/// Trains a policy, or goes on with the run that was stopped in `run_dir`.
///
/// # Errors
/// Settings out of range, data that cannot be used, a folder of another run, a loss that is not finite, a KL that
/// explodes, or [`TrainError::Stopped`] where `on_event` asked to stop.
pub fn train_policy(
    config: &PolicyTrainConfig,
    base: &PolicyBase,
    data: PolicyData<'_>,
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<TrainedPolicy, TrainError> {
    config.validate()?;
    let _ = (base, data, run_dir, on_event);
    todo!("under construction")
}

/// The merged weights that a run kept.
///
/// # Errors
/// A checkpoint that is damaged or of another configuration.
pub fn load_kept(
    config: &PolicyTrainConfig,
    base: &PolicyBase,
    path: &Path,
) -> Result<Arc<dyn WeightSource>, TrainError> {
    let _ = (config, base, path);
    todo!("under construction")
}

/// The weights that the run in this folder has kept, by rising KL.
///
/// # Errors
/// A checkpoint that is damaged.
pub fn kept_policies(run_dir: &Path) -> Result<Vec<KeptPolicy>, TrainError> {
    let _ = run_dir;
    todo!("under construction")
}
