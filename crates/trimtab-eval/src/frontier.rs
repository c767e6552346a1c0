//! The result of a run: one point per method, with stable keys. Knows numbers; how they are shown is `report`'s.
//!
//! Everything is a function of the samples and the seed: no clock, no machine. Numbers are rounded to six decimals,
//! where the last bits of a logarithm, which differ between platforms' libraries, no longer show.

mod columns;
mod compute;
mod distance;
mod point;
mod pools;
mod seeds;

use serde::{Deserialize, Serialize};
use trimtab_decode::{DecodeSpec, Sampling};

pub use compute::{FrontierInput, MethodRuns, RewardName};
pub use point::{FrontierPoint, NamedMean, SeedValues, ShownAs};

use crate::best_of_n_curve::CurvePoint;

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
    /// Sampling from step distributions that values tilt: mean of exact per-step sums. Its draws are the reference's in no
    /// case, whatever the sampling.
    GuidedSum,
    /// Choices among blocks after blocks: the bound of one choice times the choices that were made, counted in each run,
    /// since blocks end early; with the estimate beside it where blocks were drawn for it.
    Blockwise,
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
            DecodeSpec::CdToken(_) => Self::GuidedSum,
            DecodeSpec::CdBlock(_) => Self::Blockwise,
        }
    }
}

/// Whether a policy has one response to each prompt, so that all draws are equal and no choice adds anything.
fn is_certain(sampling: &Sampling) -> bool {
    sampling.temperature == 0.0 || sampling.top_k == Some(1)
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
    /// All seeds of a run over several; `seed` is the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u64>,
    /// The variable that a figure has on its axis, as the configuration asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_axis: Option<String>,
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
