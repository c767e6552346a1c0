//! Tables of an alignment's configuration: which samples and responses there are, and whether they are what its objective
//! needs. Knows no model and no data.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_infalign::Procedure;

use super::config::{AlignConfig, RAW};

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

impl AlignConfig {
    /// Refuses a procedure that the objective or, later, `eval winrate` cannot do.
    pub(super) fn check_procedure(&self) -> Result<()> {
        let name = self.objective_name();
        match self.procedure {
            Procedure::Rewind { .. } | Procedure::Weight(_) => bail!(
                "procedure {} is known to `trimtab analyze` alone, and no policy can be evaluated under it; expected sample, \
                 bon:N or won:N, with the transform that `trimtab analyze design --procedure {}` recommends",
                self.procedure,
                self.procedure
            ),
            Procedure::BestOf { n } if n >= 2 => Ok(()),
            _ if self.learns_from_winners() => bail!(
                "objective {name} learns from winners of best-of-N, and procedure is {}; set procedure = \"bon:4\", or \
                 another N from 2 on",
                self.procedure
            ),
            _ => Ok(()),
        }
    }

    /// Refuses fewer samples of a prompt than what is made of them needs.
    pub(super) fn check_samples(&self) -> Result<()> {
        let num_samples = self.calibration.per_prompt;
        let (least, why) = if self.learns_from_winners() {
            (self.num_candidates(), "to have winners of best-of-N")
        } else if self.objective_name() != "rl" {
            (2, "to be paired")
        } else if self.rollouts.warm_start_from_calibration > 0 && self.transform != RAW {
            (2, "for a sample to have a place among the others of its prompt")
        } else {
            (1, "to be compared with")
        };
        if num_samples < least {
            bail!("calibration.per_prompt is {num_samples}, expected at least {least} {why}");
        }
        Ok(())
    }

    fn learns_from_winners(&self) -> bool {
        ["sft", "bonbon"].contains(&self.objective_name())
    }
}
