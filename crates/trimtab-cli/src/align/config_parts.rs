//! Tables of an alignment's configuration: which samples and responses there are. Knows no model and no data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Samples of the reference that rewards are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CalibrationConfig {
    /// Folder; `calibration` below the run's folder if `None`.
    pub(crate) folder: Option<PathBuf>,
    /// K, at least 1.
    pub(crate) per_prompt: usize,
    /// Seed of the samples.
    pub(crate) seed: u64,
    /// Lines between samples instead of steps.
    pub(crate) interpolated: bool,
}

impl Default for CalibrationConfig {
    fn default() -> Self {
        Self {
            folder: None,
            per_prompt: 100,
            seed: 0,
            interpolated: false,
        }
    }
}

/// Responses that the policy draws at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RolloutsConfig {
    /// Prompts of a round, at least 1.
    pub(crate) prompts_per_round: usize,
    /// Responses to each, at least 2: baselines are means of the others. At least 1 with `advantage = "round"`.
    pub(crate) per_prompt: usize,
    /// Rounds at the beginning whose responses are the calibration's own samples, each used once: drawn by the reference, which
    /// the policy is then, and judged already. Their KL is not measured, so that none of them stops a run or keeps weights.
    /// Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) warm_start_from_calibration: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(num: &u64) -> bool {
    *num == 0
}

impl Default for RolloutsConfig {
    fn default() -> Self {
        Self {
            prompts_per_round: 16,
            per_prompt: 8,
            warm_start_from_calibration: 0,
        }
    }
}

/// What is made of the calibration's samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SamplesConfig {
    /// Most pairs or winners of a prompt, at least 1.
    pub(crate) per_prompt: usize,
    /// How samples are paired. Default best against worst.
    pub(crate) pairs: Pairing,
}

impl Default for SamplesConfig {
    fn default() -> Self {
        Self {
            per_prompt: 8,
            pairs: Pairing::BestWorst,
        }
    }
}

/// How samples become pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pairing {
    /// The best against the worst of N.
    BestWorst,
    /// Two samples, the better one chosen.
    Random,
}
