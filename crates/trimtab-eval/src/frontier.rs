//! The result of a run: one point per method, with stable keys. Knows numbers; how they are shown is `report`'s.
//!
//! Everything is a function of the samples and the seed: no clock, no machine. Numbers are rounded to six decimals,
//! where the last bits of a logarithm, which differ between platforms' libraries, no longer show.

mod compute;
mod distance;
mod pools;

use serde::{Deserialize, Serialize};
use trimtab_decode::{DecodeSpec, Sampling};

pub use compute::{FrontierInput, MethodRuns};

use crate::best_of_n_curve::CurvePoint;
use crate::confidence::Interval;
use crate::kl::KlKind;

/// How a method's distance from the reference is accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KlRule {
    /// Sampling from changed step distributions (temperature, truncation, greedy): mean of exact per-step sums.
    TokenwiseSum,
    /// Best of N draws: the bound, with the ties-aware estimate beside it. Candidates drawn from another policy than the
    /// reference leave an estimate only: the ties-aware one plus their answers' mean log-ratio.
    BestOfN {
        /// N.
        num_candidates: u32,
    },
    /// Worst of N draws: best-of-N on the negated reward.
    WorstOfN {
        /// N.
        num_candidates: u32,
    },
    /// Some other choice among N draws, e.g. a majority vote: the bound `log N`; with the log-ratio as above, an estimate.
    Selection {
        /// N.
        num_candidates: u32,
    },
    /// Best of K blocks after blocks: the bound of one choice times the number of choices.
    Blockwise {
        /// K.
        num_candidates: u32,
        /// Tokens in a block.
        block_len: u32,
    },
    /// A response that is a function of the prompt (beam search, any choice among equal draws): exactly minus its
    /// log-probability.
    Deterministic,
    /// Responses with known log-probabilities under both policies: mean log-ratio, an estimate.
    LogRatio,
}

impl KlRule {
    /// The rule for a decoding method.
    pub fn of_spec(spec: &DecodeSpec) -> Self {
        let count = |num_candidates: usize| u32::try_from(num_candidates).unwrap_or(u32::MAX);
        match spec {
            _ if is_certain(&spec.sampling()) => Self::Deterministic,
            _ if spec.num_candidates() == 1 && !spec.needs_scorers() => Self::TokenwiseSum,
            DecodeSpec::Sample { .. } | DecodeSpec::Greedy => Self::TokenwiseSum,
            DecodeSpec::BestOfN { num_candidates, .. } => Self::BestOfN {
                num_candidates: count(*num_candidates),
            },
            DecodeSpec::WorstOfN { num_candidates, .. } => Self::WorstOfN {
                num_candidates: count(*num_candidates),
            },
            DecodeSpec::Majority { num_candidates, .. } => Self::Selection {
                num_candidates: count(*num_candidates),
            },
            DecodeSpec::Beam(_) => Self::Deterministic,
            DecodeSpec::CdToken(_) => Self::TokenwiseSum,
            DecodeSpec::CdBlock(config) => Self::Blockwise {
                num_candidates: count(config.num_candidates),
                block_len: config.block_len.map_or(u32::MAX, count),
            },
        }
    }
}

/// Whether a policy has one response to each prompt, so that all draws are equal and no choice adds anything.
fn is_certain(sampling: &Sampling) -> bool {
    sampling.temperature == 0.0 || sampling.top_k == Some(1)
}

/// A method's place: what it gains, how far it moves, what it costs. All intervals are over prompts; an interval is
/// missing where the prompts say nothing of their spread: there are fewer than two, or all have the same value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontierPoint {
    /// The method as written in the configuration, e.g. `bon:16`.
    pub method: String,
    /// Candidates drawn for an answer.
    pub num_candidates: u32,
    /// Mean reward of the answers, in the reward's unit.
    pub reward_mean: f64,
    /// Its interval; exact, and there even for equal values, if all rewards of the run are 0 or 1.
    pub reward_ci: Option<Interval>,
    /// Probability of a greater reward than an independent reference response, ties half, in `[0, 1]`.
    pub win_rate: f64,
    /// Its interval; exact, and there even for equal values, if all prompts are won or lost.
    pub win_rate_ci: Option<Interval>,
    /// Distance from the reference in nats; `kl_kind` says of what kind.
    pub kl_nats: f64,
    /// What kind of number `kl_nats` is.
    pub kl_kind: KlKind,
    /// Tokens drawn for one answer to each prompt, those of discarded candidates included; a rounded mean where several
    /// answers to a prompt are averaged.
    pub tokens_generated: u64,
    /// Interval of `kl_nats`; missing too for a bound that does not depend on samples.
    pub kl_ci: Option<Interval>,
    /// Ties-aware estimate in nats from all of the run's draws from the reference, where `kl_nats` is the bound of
    /// best-of-N.
    pub kl_estimate_nats: Option<f64>,
    /// Interval of the estimate.
    pub kl_estimate_ci: Option<Interval>,
    /// Mean over prompts of the answers' reward minus the reference's, in the reward's unit.
    pub reward_gain: f64,
    /// Its interval, paired by prompt: narrower than those of the two means.
    pub reward_gain_ci: Option<Interval>,
    /// Tokens drawn for an answer, mean over prompts.
    pub tokens_per_answer: f64,
    /// Its interval.
    pub tokens_per_answer_ci: Option<Interval>,
}

/// What a run was: enough to repeat it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The model's name.
    pub model: String,
    /// SHA-256 of the weights, in hexadecimal.
    pub model_sha256: String,
    /// Seed of the run.
    pub seed: u64,
    /// How the weights were used, e.g. `int8`.
    pub precision: String,
    /// The reward as written in the configuration.
    pub reward: String,
    /// Its unit, e.g. `nats`.
    pub reward_unit: String,
    /// SHA-256 of the configuration, in hexadecimal.
    pub config_sha256: String,
    /// Version of the program.
    pub version: String,
}

/// A run's result; the content of `frontier.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frontier {
    /// One point a method, in the order of the configuration.
    pub points: Vec<FrontierPoint>,
    /// What the run was; its fields stand beside `points`.
    #[serde(flatten)]
    pub facts: RunFacts,
    /// Number of prompts.
    pub num_prompts: u64,
    /// Held-out reference responses in all.
    pub num_references: u64,
    /// Coverage of all intervals.
    pub confidence_level: f64,
    /// Bootstrap resamples behind each interval.
    pub num_resamples: u32,
    /// Best-of-N in closed form, from the reference responses.
    pub best_of_n_curve: Vec<CurvePoint>,
}
