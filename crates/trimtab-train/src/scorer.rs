//! From a prefix set to a prefix scorer: the split, the objective and the one loop put together.

use std::ops::ControlFlow;

use trimtab_scorer::{ScorerWeights, TokenFeatures};

use crate::config::ScorerTrainConfig;
use crate::error::TrainError;
use crate::events::{Metrics, TrainEvent};
use crate::prefix_set::PrefixSet;
use crate::run_dir::RunDir;

/// A trained scorer: the best weights of the run on its evaluation part.
#[derive(Debug, Clone)]
pub struct TrainedScorer {
    /// State head, and action head with token features where asked for.
    pub weights: ScorerWeights,
    /// Numbers of the evaluation part at [`Self::best_step`].
    pub metrics: Metrics,
    /// The step whose weights these are.
    pub best_step: u64,
    /// Prefixes in the training part.
    pub num_train_prefixes: u64,
}

/// Trains a prefix scorer on cached states, or goes on with the run that was stopped in `run_dir`.
///
/// # Errors
/// Settings out of range, a set that does not fit `features`, a folder of another run, a loss that is not finite, or
/// [`TrainError::Stopped`] where `on_event` asked to stop.
pub fn train_scorer(
    config: &ScorerTrainConfig,
    set: &PrefixSet,
    features: Option<&TokenFeatures>,
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<TrainedScorer, TrainError> {
    config.validate()?;
    let _ = (set, features, run_dir, on_event);
    Err(TrainError::BadData {
        problem: "not yet".to_owned(),
    })
}
