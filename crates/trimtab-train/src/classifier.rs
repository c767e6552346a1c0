//! Reward models: from judgements of texts to classifiers, which are scorers with a state head alone.
//!
//! Where the states come from is a value: kept ones of a frozen model ([`train_classifier`]), or
//! those of a decoder that is trained with its heads ([`train_reward_model`]). Loss, batches and evaluation are the same.

mod final_states;
mod judgements;
mod on_items;
mod on_tokens;

use std::ops::ControlFlow;

use trimtab_base::Seed;

pub use final_states::FinalStates;
pub use judgements::{Judgements, Verdicts};
pub use on_tokens::{RewardNet, RewardTask, TrainedRewardModel, train_reward_model};

use crate::config::{ClassifierTrainConfig, ScorerDepth};
use crate::error::TrainError;
use crate::events::TrainEvent;
use crate::heads::{HeadLens, Heads, RewardScale};
use crate::objectives::classifier::ClassifierLoss;
use crate::prefix_batches::Moments;
use crate::run_dir::RunDir;
use crate::scorer::TrainedScorer;
use crate::trainer::{Parts, train};
use final_states::StandardisedStates;
use on_items::{ItemJudge, ItemSource, OnItems, Task};

/// A logit is its own unit.
const LOGIT_SCALE: RewardScale = RewardScale {
    scale: 1.0,
    offset: 0.0,
};

/// Trains a classifier on kept states, or goes on with the run that was stopped in `run_dir`. Its values are logits: the
/// log-odds of the positive class, or a score whose differences are the log-odds of a preference.
///
/// Metrics: `log_loss` (nats an item), `accuracy` with `accuracy_low` and `accuracy_high` (95% interval), all of labels as
/// they are, without smoothing and margins.
///
/// # Errors
/// Settings out of range or of another depth than "head", lengths that do not fit, values that are not finite, a folder of
/// another run, a loss that is not finite, or [`TrainError::Stopped`] where `on_event` asked to stop.
pub fn train_classifier(
    config: &ClassifierTrainConfig,
    (states, judgements): (&FinalStates, &Judgements),
    run_dir: &RunDir,
    on_event: &mut dyn FnMut(TrainEvent) -> ControlFlow<()>,
) -> Result<TrainedScorer, TrainError> {
    config.validate()?;
    if config.depth != ScorerDepth::Head {
        return Err(TrainError::BadSetting {
            field: "depth",
            got: format!("{:?}", config.depth).to_lowercase(),
            expected: "head, where states are kept",
        });
    }
    states.check()?;
    judgements.check(states.num_texts())?;
    let seed = Seed(config.seed);
    let tasks = [Task::new("", judgements, config.eval_fraction, seed)?];
    let mut moments = Moments::new(states.hidden_len);
    for &item in &tasks[0].train {
        for text in judgements.texts(item) {
            moments.add(states.state(text).iter().map(|&value| f64::from(value)));
        }
    }
    let standardisation = moments.finish();
    let device = config.device.open()?;
    let heads = Heads::new(
        head_lens(config, states.hidden_len),
        seed,
        &device.clone().autodiff(),
    );
    let kept = StandardisedStates {
        states,
        standardisation: standardisation.clone(),
        device,
    };
    let parts = Parts {
        objective: &mut OnItems {
            states: &kept,
            loss: loss_of(config),
        },
        source: &mut ItemSource::new(&tasks, &kept, config.optim.batch_len, seed),
        judge: &mut ItemJudge {
            tasks: &tasks,
            states: &kept,
            batch_len: 1024,
            select: config.select,
        },
    };
    let content_sha256 = judgements.content_sha256(&states.sha256());
    let mut folder = run_dir.open("classifier", config, &content_sha256, config.seed)?;
    let outcome = train(
        heads,
        parts,
        (&config.optim, config.epochs),
        &mut folder,
        on_event,
    )?;
    Ok(TrainedScorer {
        weights: outcome.module.to_weights(&standardisation, LOGIT_SCALE, None),
        metrics: outcome.metrics,
        best_step: outcome.step,
        num_train_items: tasks[0].train.len() as u64,
    })
}

/// Hash of what a classifier is trained on.
pub fn classifier_data_sha256(states: &FinalStates, judgements: &Judgements) -> String {
    judgements.content_sha256(&states.sha256())
}

fn head_lens(config: &ClassifierTrainConfig, hidden_len: usize) -> HeadLens {
    HeadLens {
        hidden_len,
        trunk_len: config.trunk_len,
        feature_len: 0,
    }
}

fn loss_of(config: &ClassifierTrainConfig) -> ClassifierLoss {
    ClassifierLoss {
        label_smoothing: config.label_smoothing,
    }
}
