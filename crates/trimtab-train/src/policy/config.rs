//! Settings of a policy's training as a user writes them. Knows their ranges and defaults, not what they do.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{OptimConfig, check};
use crate::decoder::{Depth, LoraConfig};
use crate::device::TrainDevice;
use crate::error::TrainError;

/// How a policy is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyTrainConfig {
    /// What is minimised.
    pub objective: PolicyObjective,
    /// Which weights are trained. Default lora.
    pub depth: PolicyDepth,
    /// Where steps are computed. Default cpu.
    #[serde(skip_serializing_if = "TrainDevice::is_cpu")]
    pub device: TrainDevice,
    /// Adapters; read where `depth` is lora.
    pub lora: LoraConfig,
    /// Passes over given responses or pairs; on-policy, rounds of responses that are drawn. At least 1; default 1.
    pub epochs: u64,
    /// Given data: responses in a step (of pairs, half as many pairs), at least 1. Default 64.
    pub responses_per_step: usize,
    /// On-policy: equal parts into which the responses of a round are divided, a step each. At least 1; default 1.
    pub steps_per_round: usize,
    /// On-policy: times that a round's responses are gone through, at least 1. Above 1 responses need the log-probs of
    /// their sampler, and `clip` is the remedy for what they are late. Default 1.
    pub passes_per_round: usize,
    /// Everything about steps. `batch_len` counts the tokens, padding included, whose tape is in memory at once;
    /// responses of one prompt are never divided. Defaults here: batches of 2048 tokens, rate 1e-4, no weight decay,
    /// constant after 3% of warm-up, a checkpoint every 20 steps; a table of some fields leaves the others at these.
    #[serde(deserialize_with = "with_own_defaults")]
    pub optim: OptimConfig,
    /// The run ends with the weights whose responses first show at least this KL (nats per response), by the last
    /// `kl_window_steps` steps. Default none.
    pub kl_stop_nats: Option<f64>,
    /// On-policy: steps from whose responses the KL is told that stops the run or keeps weights, at least 1. The KL of one
    /// step's responses is exact for them and still differs by a factor of two from that of the next ones: a line is laid
    /// through those of the last steps by least squares, and read at the last of them, so that it is not late while the KL
    /// grows. 1 or 2 read the last step alone. Given data: the KL is that of an evaluation's draws, which are always the
    /// same. Default 5.
    pub kl_window_steps: usize,
    /// A KL of one step's responses above this is an explosion, an error (nats per response); policies that are
    /// still of use are far below it. The last good weights are kept, as they are where a loss is not a number: on-policy
    /// those before the last update, on given data those of the last evaluation, at first those of the model. Default 50.
    pub kl_limit_nats: f64,
    /// Weights are kept when the KL, by the last `kl_window_steps` steps, first reaches each of these values (nats per
    /// response), so that one run gives a whole frontier. Default none.
    pub keep_at_kl_nats: Vec<f64>,
    /// Given data: share of prompts held out, in `[0, 0.5]`. Default 0.1.
    pub eval_fraction: f64,
    /// Response positions whose logits exist at once, at least 1: memory of a few times as many times the vocabulary.
    /// Default 256.
    pub logit_rows: usize,
    /// Seed of adapters, order and split. Default 0.
    pub seed: u64,
}

impl Default for PolicyTrainConfig {
    fn default() -> Self {
        Self {
            objective: PolicyObjective::default(),
            depth: PolicyDepth::default(),
            device: TrainDevice::default(),
            lora: LoraConfig::default(),
            epochs: 1,
            responses_per_step: 64,
            steps_per_round: 1,
            passes_per_round: 1,
            optim: own_optim(),
            kl_stop_nats: None,
            kl_window_steps: 5,
            kl_limit_nats: 50.0,
            keep_at_kl_nats: Vec::new(),
            eval_fraction: 0.1,
            logit_rows: 256,
            seed: 0,
        }
    }
}

fn own_optim() -> OptimConfig {
    OptimConfig {
        batch_len: 2048,
        learning_rate: 1e-4,
        weight_decay: 0.0,
        schedule: crate::config::Schedule::Constant,
        eval_every_steps: Some(20),
        ..OptimConfig::default()
    }
}

/// Serde would fill up the fields that are missing from the defaults of [`OptimConfig`], which are those of small heads.
fn with_own_defaults<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OptimConfig, D::Error> {
    let given = toml::Table::deserialize(deserializer)?;
    let mut fields = toml::Table::try_from(own_optim()).map_err(D::Error::custom)?;
    fields.extend(given);
    fields.try_into().map_err(D::Error::custom)
}

/// How deep a policy's training goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyDepth {
    /// Low-rank adapters. The reference is the same decoder without them: no second copy of its weights.
    #[default]
    Lora,
    /// Every weight; the reference is a copy.
    Full,
}

/// Which loss trains the policy, with its own settings. `beta` is the coefficient of the KL everywhere, in units of the
/// reward (DPO, IPO: of the reward that preferences imply).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PolicyObjective {
    /// KL-regularised policy gradient on the responses' rewards: `E[reward] - beta KL(pi || ref)`.
    Rl {
        /// Positive, or 0 for none.
        beta: f64,
        /// What is subtracted from rewards. Default leave-one-out.
        #[serde(default)]
        advantage: Advantage,
        /// PPO's clip range epsilon, in (0, 1). Default none.
        #[serde(default)]
        clip: Option<f64>,
        /// How the difference between sampler and policy is corrected. Default per token, at most 2.
        #[serde(default)]
        importance: Importance,
    },
    /// Direct preference optimisation (Rafailov et al., arXiv 2305.18290).
    Dpo {
        /// Positive.
        beta: f64,
    },
    /// Identity preference optimisation (Azar et al., arXiv 2310.12036); `beta` is its tau.
    Ipo {
        /// Positive.
        beta: f64,
    },
    /// Likelihood of the winners of best-of-N among given responses: best-of-N distillation. The strength is N.
    Sft {
        /// N, at least 1; 1 is the likelihood of all responses.
        num_candidates: usize,
    },
    /// `BoNBoN` (Gui et al., arXiv 2406.00832): the likelihood of winners mixed with a square loss on best against worst.
    #[serde(rename = "bonbon")]
    BonBon {
        /// N, at least 2.
        num_candidates: usize,
        /// Share of the likelihood, in `[0, 1]`. Default 0.005.
        #[serde(default = "usual_alpha")]
        alpha: f64,
    },
}

fn usual_alpha() -> f64 {
    0.005
}

impl Default for PolicyObjective {
    fn default() -> Self {
        Self::Rl {
            beta: 0.1,
            advantage: Advantage::default(),
            clip: None,
            importance: Importance::default(),
        }
    }
}

/// What is subtracted from (and divides) the rewards of one prompt's responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advantage {
    /// The mean of the others (REINFORCE leave-one-out, Ahmadian et al., arXiv 2402.14740): unbiased.
    #[default]
    LeaveOneOut,
    /// The mean of all, divided by their standard deviation (GRPO, Shao et al., arXiv 2402.03300). The division makes
    /// `beta` a coefficient in units of each prompt's own spread.
    Group,
    /// The mean of all other responses of the round, whatever their prompt: unbiased. Less noise than the mean of a few
    /// others to one prompt where rewards are calibrated, because then their mean under the reference is the same for every
    /// prompt; for raw rewards the differences between prompts are noise.
    Round,
    /// Nothing: plain REINFORCE.
    None,
}

/// How responses of another policy (an engine of lower precision, earlier weights) are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Importance {
    /// As if the policy had drawn them itself.
    Off {},
    /// Each token by its own ratio `pi / sampler`, at most `limit`: low variance, blind to what came before the token.
    Token {
        /// At least 1.
        limit: f64,
    },
    /// Each response by the product of its tokens' ratios, at most `limit`: unbiased where the limit is not reached, and
    /// of a variance that grows with the length. Not together with `clip`.
    Sequence {
        /// At least 1.
        limit: f64,
    },
}

impl Default for Importance {
    fn default() -> Self {
        Self::Token { limit: 2.0 }
    }
}

impl Importance {
    fn name(self) -> &'static str {
        match self {
            Self::Off {} => "off",
            Self::Token { .. } => "token",
            Self::Sequence { .. } => "sequence",
        }
    }
}

impl PolicyObjective {
    /// The name written into run folders.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rl { .. } => "rl",
            Self::Dpo { .. } => "dpo",
            Self::Ipo { .. } => "ipo",
            Self::Sft { .. } => "sft",
            Self::BonBon { .. } => "bonbon",
        }
    }

    /// Whether it learns from pairs.
    pub fn wants_pairs(&self) -> bool {
        matches!(self, Self::Dpo { .. } | Self::Ipo { .. } | Self::BonBon { .. })
    }

    fn validate(&self) -> Result<(), TrainError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let beta_ok = |beta: f64| check(positive(beta), "objective.beta", beta, "a positive number");
        match *self {
            Self::Rl {
                beta,
                clip,
                importance,
                advantage: _,
            } => {
                let is_beta = beta.is_finite() && beta >= 0.0;
                check(is_beta, "objective.beta", beta, "a number of at least 0")?;
                let is_clip = clip.is_none_or(|clip| clip > 0.0 && clip < 1.0);
                let got = clip.unwrap_or_default();
                check(is_clip, "objective.clip", got, "a number in (0, 1), or none")?;
                check(
                    clip.is_none() || matches!(importance, Importance::Token { .. }),
                    "objective.importance",
                    importance.name(),
                    "token where there is a clip: it clips ratios of tokens",
                )?;
                let (Importance::Token { limit } | Importance::Sequence { limit }) = importance else {
                    return Ok(());
                };
                let is_limit = limit.is_finite() && limit >= 1.0;
                check(
                    is_limit,
                    "objective.importance.limit",
                    limit,
                    "a number of at least 1",
                )
            }
            Self::Dpo { beta } | Self::Ipo { beta } => beta_ok(beta),
            Self::Sft { num_candidates } => check(
                num_candidates >= 1,
                "objective.num_candidates",
                num_candidates,
                "at least 1",
            ),
            Self::BonBon {
                num_candidates,
                alpha,
            } => {
                let expected = "at least 2: with one candidate best and worst are the same";
                check(
                    num_candidates >= 2,
                    "objective.num_candidates",
                    num_candidates,
                    expected,
                )?;
                check(
                    (0.0..=1.0).contains(&alpha),
                    "objective.alpha",
                    alpha,
                    "a share in [0, 1]",
                )
            }
        }
    }
}

impl PolicyTrainConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting that cannot be used, with its value.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.objective.validate()?;
        self.optim.validate()?;
        self.decoder_depth()?;
        check(self.epochs >= 1, "epochs", self.epochs, "at least 1")?;
        let counts = [
            ("responses_per_step", self.responses_per_step),
            ("steps_per_round", self.steps_per_round),
            ("passes_per_round", self.passes_per_round),
            ("kl_window_steps", self.kl_window_steps),
            ("logit_rows", self.logit_rows),
        ];
        for (field, count) in counts {
            check(count >= 1, field, count, "at least 1")?;
        }
        let is_share = (0.0..=0.5).contains(&self.eval_fraction);
        check(
            is_share,
            "eval_fraction",
            self.eval_fraction,
            "a share in [0, 0.5]",
        )?;
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let stop = self.kl_stop_nats;
        let nats = "a positive number of nats";
        check(
            stop.is_none_or(positive),
            "kl_stop_nats",
            stop.unwrap_or_default(),
            nats,
        )?;
        check(
            positive(self.kl_limit_nats),
            "kl_limit_nats",
            self.kl_limit_nats,
            nats,
        )?;
        match self.keep_at_kl_nats.iter().find(|kl| !positive(**kl)) {
            Some(&kl) => check(false, "keep_at_kl_nats", kl, "positive numbers of nats"),
            None => Ok(()),
        }
    }

    /// Which weights of the decoder are trained.
    ///
    /// # Errors
    /// Adapters that cannot be.
    pub fn decoder_depth(&self) -> Result<Depth, TrainError> {
        match self.depth {
            PolicyDepth::Lora => {
                self.lora.validate()?;
                Ok(Depth::Lora(self.lora.clone()))
            }
            PolicyDepth::Full => Ok(Depth::Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_fields_of_the_optimisation_leave_the_others_at_the_policys_defaults() {
        let parse = |text: &str| toml::from_str::<PolicyTrainConfig>(text);
        let config = parse("optim = { learning_rate = 1e-5 }").unwrap();
        let expected = OptimConfig {
            learning_rate: 1e-5,
            ..PolicyTrainConfig::default().optim
        };
        assert_eq!(config.optim, expected);
        assert_ne!(
            config.optim.schedule,
            OptimConfig::default().schedule,
            "the test could not tell the two defaults apart"
        );
        assert_eq!(parse("").unwrap(), PolicyTrainConfig::default());
        // What a run folder holds is read back as it was.
        let written = toml::to_string(&config).unwrap();
        assert_eq!(parse(&written).unwrap(), config);
        let error = parse("optim = { learning_rat = 1e-5 }").unwrap_err().to_string();
        assert!(error.contains("learning_rat"), "{error}");
    }
}
