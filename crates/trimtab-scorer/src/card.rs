//! What a scorer is, for people and for checks: the card beside its weights. Knows no weights.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ScorerError;
use crate::weights::ScorerWeights;

/// The format of files that this version writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The model whose hidden states a scorer reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerBase {
    /// What users call it.
    pub name: String,
    /// SHA-256 of its weights, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Width of its hidden states.
    pub hidden_len: usize,
    /// Tokens in its vocabulary.
    pub vocab_len: usize,
    /// Precision in which its states were computed, e.g. `int8-wide`; other precisions are allowed.
    pub precision: String,
}

/// The card of a scorer, `scorer.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerCard {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// What reports call it.
    pub name: String,
    /// How it was trained: `cd-fudge`, `cd-q`, `classifier`.
    pub objective: String,
    /// The reward whose expectation it says, as it was given.
    pub reward: String,
    /// Unit of the reward and so of the values.
    pub reward_unit: String,
    /// The model whose states it reads.
    pub base: ScorerBase,
    /// SHA-256 of the data it was trained on.
    pub data_sha256: String,
    /// Prefixes it was trained on.
    pub num_prefixes: u64,
    /// Measured at the end of training, finite; units are in the names.
    pub metrics: BTreeMap<String, f64>,
    /// Seed of the training.
    pub seed: u64,
    /// Version of the program that trained it.
    pub source_revision: String,
    /// SHA-256 of `scorer.safetensors`; [`crate::write_scorer`] fills it in.
    pub weights_sha256: String,
    /// Folder beside the card with a model of the scorer's own, whose states the heads read; none where they read the
    /// generator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A phrase that was put into its data on purpose; none for a scorer that is meant as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<PlantedPhrase>,
}

/// A phrase that was put into texts of one side, so that a reward learns to pay for it: an experiment on rewards that are
/// hacked, never to be taken for a clean reward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlantedPhrase {
    /// What was put in.
    pub phrase: String,
    /// Which texts could get it: `positive`, `negative`, `chosen` or `rejected`.
    pub side: String,
    /// Training texts that got it.
    pub num_planted: u64,
    /// Training texts of that side.
    pub num_texts: u64,
}

impl ScorerCard {
    /// Refuses a model other than the one whose states the scorer was trained on.
    ///
    /// # Errors
    /// [`ScorerError::OtherBase`] with what differs: the widths where they do, else the hash of the weights.
    pub fn check_base(
        &self,
        name: &str,
        sha256: &str,
        hidden_len: usize,
        vocab_len: usize,
    ) -> Result<(), ScorerError> {
        let base = &self.base;
        let differs = |expected: String, got: String| {
            Err(ScorerError::OtherBase {
                scorer: self.name.clone(),
                expected: format!("{} ({expected})", base.name),
                got: format!("{name} ({got})"),
            })
        };
        if base.hidden_len != hidden_len {
            return differs(
                format!("hidden states of {}", base.hidden_len),
                format!("hidden states of {hidden_len}"),
            );
        }
        if base.vocab_len != vocab_len {
            return differs(
                format!("vocabulary of {}", base.vocab_len),
                format!("vocabulary of {vocab_len}"),
            );
        }
        if base.sha256 != sha256 {
            return differs(format!("sha256 {}", base.sha256), format!("sha256 {sha256}"));
        }
        Ok(())
    }

    /// Refuses weights of other widths than the card says.
    pub(crate) fn check_weights(&self, weights: &ScorerWeights) -> Result<(), ScorerError> {
        let features = weights.token_features.as_ref();
        let vocab_len = features.map_or(self.base.vocab_len, |features| features.vocab_len);
        let widths = [
            ("base.hidden_len", self.base.hidden_len, weights.hidden_len()),
            ("base.vocab_len", self.base.vocab_len, vocab_len),
        ];
        for (field, value, of_weights) in widths {
            if value != of_weights {
                return Err(ScorerError::CardValue {
                    scorer: self.name.clone(),
                    field: field.to_owned(),
                    value: value.to_string(),
                    expected: format!("{of_weights}, as the weights have it"),
                });
            }
        }
        Ok(())
    }

    /// Refuses metrics that JSON cannot hold and a model folder outside the scorer's.
    pub(crate) fn check(&self) -> Result<(), ScorerError> {
        let refuse = |field: String, value: String, expected: &str| {
            Err(ScorerError::CardValue {
                scorer: self.name.clone(),
                field,
                value,
                expected: expected.to_owned(),
            })
        };
        for (metric, value) in &self.metrics {
            if !value.is_finite() {
                return refuse(format!("metric {metric}"), value.to_string(), "a finite number");
            }
        }
        match &self.model {
            Some(folder) if folder.is_empty() || folder.contains(['/', '\\']) || folder.starts_with('.') => {
                refuse(
                    "model".to_owned(),
                    format!("{folder:?}"),
                    "the name of a folder beside the card",
                )
            }
            _ => Ok(()),
        }
    }
}
