//! Settings of a scorer's training as a user writes them. Knows their ranges and defaults, not what they do.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::decoder::{Depth, LoraConfig};
use crate::device::TrainDevice;
use crate::error::TrainError;

/// How a prefix scorer is trained.
///
/// The defaults train a head on 100,000 to 200,000 prefixes of a 576-wide model in minutes on two cores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScorerTrainConfig {
    /// What is minimised.
    pub objective: ScorerObjective,
    /// Which weights are trained. Default head.
    pub depth: ScorerDepth,
    /// Where steps are computed. Default cpu.
    #[serde(skip_serializing_if = "TrainDevice::is_cpu")]
    pub device: TrainDevice,
    /// Adapters; read where `depth` is lora.
    pub lora: LoraConfig,
    /// Width `H` of the hidden layer of each head; 0 reads the state linearly. Default 512.
    pub trunk_len: usize,
    /// Whether action values are trained beside state values; needs token features. Default true.
    pub action_head: bool,
    /// Passes over the training responses, at least 1. Default 10.
    pub epochs: u64,
    /// Everything about steps: their size, rate and checks.
    pub optim: OptimConfig,
    /// Which weights are kept. Default best.
    pub select: Select,
    /// Share of prompts held out for evaluation, in `(0, 0.5]`. Default 0.1.
    pub eval_fraction: f64,
    /// Seed of weights, order and split. Default 0.
    pub seed: u64,
    /// Memory for decoded states, in bytes; a larger set is read shard by shard in every epoch. Default 4 GiB.
    pub max_memory_bytes: u64,
}

impl Default for ScorerTrainConfig {
    fn default() -> Self {
        Self {
            objective: ScorerObjective::default(),
            depth: ScorerDepth::default(),
            device: TrainDevice::default(),
            lora: LoraConfig::default(),
            trunk_len: 512,
            action_head: true,
            epochs: 10,
            optim: OptimConfig::default(),
            select: Select::Best,
            eval_fraction: 0.1,
            seed: 0,
            max_memory_bytes: 4 << 30,
        }
    }
}

/// Which weights a run keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// Those with the smallest held-out error to the final reward. On responses of another policy that favours values of
    /// that policy: there the last weights are the better choice.
    Best,
    /// Those after the last step.
    Last,
}

/// How deep a scorer's training goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScorerDepth {
    /// Heads on cached states of the generator: fast, and nothing is computed twice when decoding.
    #[default]
    Head,
    /// Heads and low-rank adapters: a model of its own.
    Lora,
    /// Heads and every weight: a model of its own.
    Full,
}

/// Which loss trains the scorer, with its own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScorerObjective {
    /// CD Eq. 4: the final reward at every prefix.
    CdFudge {},
    /// CD Eq. 5: the reference's expected next value, and the reward at the end.
    CdQ {
        /// Extension: the mixing weight lambda of lambda-returns, in `[0, 1]`. 0 is the paper's one-step target; 1 is CD-FUDGE.
        /// Above 0 the reward travels back faster, and responses must come from the reference. On those 0.9 to 0.95 is the
        /// better choice for responses of a hundred tokens: at 0 what the action head gets wrong of tokens nobody drew adds
        /// up from the end to the beginning, and passes are needed in proportion to the length. Default 0.
        #[serde(default)]
        lambda: f64,
        /// Extension: steps until the target reads a value, at least 1. 1 is the paper's target. Above 1 responses must
        /// come from the reference. Not together with `lambda`. Default 1.
        #[serde(default = "one_step")]
        num_steps: usize,
        /// Extension: a slow copy of the heads that makes the targets. Default none, as in the paper.
        #[serde(default)]
        target_network: Option<TargetNetwork>,
    },
}

fn one_step() -> usize {
    1
}

impl Default for ScorerObjective {
    fn default() -> Self {
        Self::CdFudge {}
    }
}

impl ScorerObjective {
    /// The name written into scorer cards.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CdFudge {} => "cd-fudge",
            Self::CdQ { .. } => "cd-q",
        }
    }
}

/// How a reward model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierTrainConfig {
    /// Which weights are trained. Default head: a classifier on kept states.
    pub depth: ScorerDepth,
    /// Where steps are computed. Default cpu.
    #[serde(skip_serializing_if = "TrainDevice::is_cpu")]
    pub device: TrainDevice,
    /// Adapters, where `depth` is lora.
    pub lora: LoraConfig,
    /// Probability that a label or a preference is the wrong way round, in `[0, 0.5)`. Default 0.
    pub label_smoothing: f64,
    /// Width of the hidden layer; 0 reads the state linearly. Default 64: labels are fewer than prefixes.
    pub trunk_len: usize,
    /// Passes over the training part, at least 1. Default 20.
    pub epochs: u64,
    /// Everything about steps. Default batches of 256 and the other defaults of [`OptimConfig`]. Items are counted where
    /// states are kept, tokens with their padding where `depth` is lora or full.
    pub optim: OptimConfig,
    /// Which weights are kept. Default best, by held-out loss.
    pub select: Select,
    /// Share of prompts held out for evaluation, in `(0, 0.5]`. Default 0.1.
    pub eval_fraction: f64,
    /// Seed of weights, order and split. Default 0.
    pub seed: u64,
}

impl Default for ClassifierTrainConfig {
    fn default() -> Self {
        Self {
            depth: ScorerDepth::Head,
            device: TrainDevice::default(),
            lora: LoraConfig::default(),
            label_smoothing: 0.0,
            trunk_len: 64,
            epochs: 20,
            optim: OptimConfig {
                batch_len: 256,
                ..OptimConfig::default()
            },
            select: Select::Best,
            eval_fraction: 0.1,
            seed: 0,
        }
    }
}

impl ClassifierTrainConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting that cannot be used, with its value.
    pub fn validate(&self) -> Result<(), TrainError> {
        check_run(self.epochs, self.eval_fraction, self.trunk_len)?;
        check(
            (0.0..0.5).contains(&self.label_smoothing),
            "label_smoothing",
            self.label_smoothing,
            "a probability in [0, 0.5)",
        )?;
        self.decoder_depth()?;
        self.optim.validate()
    }

    /// Which weights of the decoder under the head are trained.
    ///
    /// # Errors
    /// Adapters that cannot be.
    pub fn decoder_depth(&self) -> Result<Depth, TrainError> {
        self.depth.of_decoder(&self.lora)
    }
}

/// How the copy that makes targets follows the weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TargetNetwork {
    /// Copied every `steps` optimiser steps (DQN).
    Periodic {
        /// Optimiser steps between copies, at least 1.
        steps: u64,
    },
    /// Moves by `rate` of the difference after every step (Polyak averaging).
    Polyak {
        /// In `(0, 1]`; 1 is no target network.
        rate: f64,
    },
}

/// Steps of the optimiser, whatever the objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Items (prefixes, tokens, responses) in one batch, at most; one response is never split. Default 1024:
    /// a step costs little beside its prefixes, and more steps learn more from the same passes.
    pub batch_len: usize,
    /// Batches whose gradients make one step. Default 1.
    pub accumulation: usize,
    /// Peak learning rate of `AdamW`. Default 1e-3.
    pub learning_rate: f64,
    /// Decoupled weight decay on matrices (not on biases). Default 0.01.
    pub weight_decay: f64,
    /// Gradients are scaled to at most this Euclidean norm over all parameters; absent turns it off. Default 1.
    pub clip_norm: Option<f64>,
    /// The rate's course after warm-up. Default cosine.
    pub schedule: Schedule,
    /// Share of all steps over which the rate rises linearly from 0, in `[0, 1)`. Default 0.03.
    pub warmup_fraction: f64,
    /// Steps between evaluations (and checkpoints); absent means once an epoch. Default absent.
    pub eval_every_steps: Option<u64>,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            batch_len: 1024,
            accumulation: 1,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            clip_norm: Some(1.0),
            schedule: Schedule::Cosine,
            warmup_fraction: 0.03,
            eval_every_steps: None,
        }
    }
}

/// Course of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Falls in a line to 0 at the last step.
    Linear,
    /// Falls along half a cosine to 0 at the last step.
    Cosine,
}

impl ScorerTrainConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting that cannot be used, with its value.
    pub fn validate(&self) -> Result<(), TrainError> {
        check_run(self.epochs, self.eval_fraction, self.trunk_len)?;
        self.objective.validate()?;
        self.decoder_depth()?;
        self.optim.validate()
    }

    /// Which weights of the decoder under the heads are trained.
    ///
    /// # Errors
    /// Adapters that cannot be; a target network over a decoder that moves.
    pub fn decoder_depth(&self) -> Result<Depth, TrainError> {
        // A copy of the heads alone would read states that have moved on; a copy of the decoder would double the cost.
        let fits = self.depth == ScorerDepth::Head || !self.objective.has_target_network();
        let none = "none where depth is lora or full";
        check(fits, "objective.target_network", "a target network", none)?;
        self.depth.of_decoder(&self.lora)
    }
}

impl ScorerDepth {
    fn of_decoder(self, lora: &LoraConfig) -> Result<Depth, TrainError> {
        match self {
            Self::Head => Ok(Depth::Frozen),
            Self::Lora => {
                lora.validate()?;
                Ok(Depth::Lora(lora.clone()))
            }
            Self::Full => Ok(Depth::Full),
        }
    }
}

impl ScorerObjective {
    fn has_target_network(&self) -> bool {
        matches!(
            self,
            Self::CdQ {
                target_network: Some(_),
                ..
            }
        )
    }

    fn validate(&self) -> Result<(), TrainError> {
        let Self::CdQ {
            lambda,
            num_steps,
            target_network,
        } = self
        else {
            return Ok(());
        };
        check(
            (0.0..=1.0).contains(lambda),
            "objective.lambda",
            lambda,
            "a number in [0, 1]",
        )?;
        check(*num_steps >= 1, "objective.num_steps", num_steps, "at least 1")?;
        check(
            *num_steps == 1 || *lambda == 0.0,
            "objective.num_steps",
            num_steps,
            "1 where lambda is above 0: they are two ways to look further ahead",
        )?;
        match target_network {
            Some(TargetNetwork::Periodic { steps }) => {
                check(*steps >= 1, "objective.target_network.steps", steps, "at least 1")
            }
            Some(TargetNetwork::Polyak { rate }) => check(
                *rate > 0.0 && *rate <= 1.0,
                "objective.target_network.rate",
                rate,
                "a number in (0, 1]",
            ),
            None => Ok(()),
        }
    }
}

impl OptimConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting that cannot be used, with its value.
    pub fn validate(&self) -> Result<(), TrainError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        check(
            self.batch_len >= 1,
            "optim.batch_len",
            self.batch_len,
            "at least 1",
        )?;
        check(
            self.accumulation >= 1,
            "optim.accumulation",
            self.accumulation,
            "at least 1",
        )?;
        check(
            positive(self.learning_rate),
            "optim.learning_rate",
            self.learning_rate,
            "a positive number",
        )?;
        check(
            self.weight_decay.is_finite() && self.weight_decay >= 0.0,
            "optim.weight_decay",
            self.weight_decay,
            "a number of at least 0",
        )?;
        check(
            self.clip_norm.is_none_or(positive),
            "optim.clip_norm",
            self.clip_norm.unwrap_or_default(),
            "a positive number, or none",
        )?;
        check(
            (0.0..1.0).contains(&self.warmup_fraction),
            "optim.warmup_fraction",
            self.warmup_fraction,
            "a share in [0, 1)",
        )?;
        check(
            self.eval_every_steps != Some(0),
            "optim.eval_every_steps",
            0,
            "at least 1, or none for once an epoch",
        )
    }
}

/// What every run has.
fn check_run(epochs: u64, eval_fraction: f64, trunk_len: usize) -> Result<(), TrainError> {
    check(epochs >= 1, "epochs", epochs, "at least 1")?;
    let is_share = eval_fraction > 0.0 && eval_fraction <= 0.5;
    check(is_share, "eval_fraction", eval_fraction, "a share in (0, 0.5]")?;
    check(trunk_len <= 1 << 16, "trunk_len", trunk_len, "at most 65536")
}

pub(crate) fn check(
    ok: bool,
    field: &'static str,
    got: impl Display + Copy,
    expected: &'static str,
) -> Result<(), TrainError> {
    if ok {
        return Ok(());
    }
    Err(TrainError::BadSetting {
        field,
        got: got.to_string(),
        expected,
    })
}
