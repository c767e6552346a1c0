//! How deep training goes, and how adapters begin. Knows no loop and no tape.

use serde::{Deserialize, Serialize};
use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};
use trimtab_model::names::LayerRole;

use super::error::DecoderError;

/// Which weights of a decoder are trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Depth {
    /// None: hidden states of the base.
    Frozen,
    /// Low-rank adapters beside some matrices; everything else is frozen.
    Lora(LoraConfig),
    /// All of them.
    Full,
}

/// A matrix that may get an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Query projection.
    Query,
    /// Key projection.
    Key,
    /// Value projection.
    Value,
    /// Attention output projection.
    AttentionOutput,
    /// Gate projection.
    Gate,
    /// Up projection.
    Up,
    /// Down projection.
    Down,
}

impl LoraTarget {
    /// Every matrix of a layer.
    pub const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// The matrix that it stands for.
    pub fn role(self) -> LayerRole {
        match self {
            Self::Query => LayerRole::Query,
            Self::Key => LayerRole::Key,
            Self::Value => LayerRole::Value,
            Self::AttentionOutput => LayerRole::AttentionOutput,
            Self::Gate => LayerRole::Gate,
            Self::Up => LayerRole::Up,
            Self::Down => LayerRole::Down,
        }
    }
}

/// Low-rank adapters (`LoRA`, arXiv 2106.09685).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the addition, at least 1 and at most the smaller side of every target. Default 8.
    pub rank: usize,
    /// The addition is multiplied by `alpha / rank`. Positive; default 16.
    pub alpha: f64,
    /// Matrices of each layer that get an adapter. Default all seven.
    pub targets: Vec<LoraTarget>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            targets: LoraTarget::ALL.to_vec(),
        }
    }
}

impl LoraConfig {
    /// Checks what the forward relies on.
    ///
    /// # Errors
    /// The first setting that is impossible.
    pub fn validate(&self) -> Result<(), DecoderError> {
        let bad = |field, value: String, expected| {
            Err(DecoderError::BadLora {
                field,
                value,
                expected,
            })
        };
        if self.rank == 0 {
            return bad("rank", self.rank.to_string(), "at least 1");
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return bad("alpha", self.alpha.to_string(), "positive and finite");
        }
        if self.targets.is_empty() {
            return bad("targets", "empty".to_owned(), "at least one matrix");
        }
        Ok(())
    }
}

/// Initial values of an adapter's `[in, rank]` matrix: normal with standard deviation `1 / sqrt(in)`, so that what it
/// gives has its input's size whatever the width.
///
/// A pure function of `(seed, role_idx)`, on streams beside the heads' (whose key is 0): neither the order of loading nor the other adapters change it.
pub(super) fn initial_down(seed: Seed, role_idx: u64, in_len: usize, rank: usize) -> Vec<f32> {
    let stream = SampleStream::new(seed, PromptKey(1 + role_idx), 0, Purpose::Training);
    let std = 1.0 / (in_len as f64).sqrt();
    // Box and Muller's transform of two uniform draws.
    let normal = |idx: u64| {
        let (first, second) = (stream.uniform(2 * idx), stream.uniform(2 * idx + 1));
        (-2.0 * (1.0 - first).ln()).sqrt() * (std::f64::consts::TAU * second).cos()
    };
    (0..(in_len * rank) as u64)
        .map(|idx| (std * normal(idx)) as f32)
        .collect()
}
