//! What the weights are: sizes and the few switches in which the supported families differ.
//!
//! Knows nothing of files, threads or precision; those are [`crate::RuntimeConfig`] and the loaders.

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Gate activation of the feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `SwiGLU`: `silu(gate) * up` (Llama, Qwen).
    Silu,
    /// `GeGLU` with the tanh approximation (Gemma).
    GeluTanh,
}

/// Which keys a layer attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionSpan {
    /// All earlier positions.
    Global,
    /// The last `window` positions, the present one included.
    Sliding {
        /// Number of positions.
        window: usize,
    },
}

/// How rotary frequencies are stretched beyond the trained context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// All frequencies divided by `factor` (position interpolation).
    Linear {
        /// Stretch, at least 1.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, smooth in between.
    Llama3 {
        /// Stretch of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context_len / low_freq_factor` are stretched.
        low_freq_factor: f64,
        /// Wavelengths below `original_context_len / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context before stretching.
        original_context_len: usize,
    },
    /// `YaRN` (arXiv 2309.00071): ramp between interpolation and extrapolation, with an attention factor.
    Yarn {
        /// Stretch.
        factor: f64,
        /// Rotations above which a dimension is kept; 32 by default.
        beta_fast: f64,
        /// Rotations below which a dimension is interpolated; 1 by default.
        beta_slow: f64,
        /// Context before stretching.
        original_context_len: usize,
        /// Multiplies cos and sin; `0.1 ln(factor) + 1` by default.
        attention_factor: Option<f64>,
    },
    /// Each frequency divided by a factor stored with the weights.
    PerFrequency {
        /// `[head_dim / 2]`
        divisors: Vec<f32>,
    },
}

/// Rotary position encoding of one kind of layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Stretching.
    pub scaling: RopeScaling,
}

/// A decoder-only transformer. All lengths are numbers of elements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent switch of a family, named in the files it is read from"
)]
pub struct ModelConfig {
    /// Family as the file names it, for reports only; no code branches on it.
    pub architecture: String,
    /// Tokens in the vocabulary.
    pub vocab_len: usize,
    /// Width of the residual stream.
    pub hidden_len: usize,
    /// Width of the feed-forward layers.
    pub ffn_len: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads` (grouped-query attention; 1 is multi-query).
    pub num_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Longest sequence the weights were trained or stretched for.
    pub context_len: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_eps: f32,
    /// Span of each layer; its length is the number of layers.
    pub layer_spans: Vec<AttentionSpan>,
    /// Rotary encoding of global layers.
    pub rope: RopeConfig,
    /// Rotary encoding of sliding layers where it differs (Gemma 3).
    pub local_rope: Option<RopeConfig>,
    /// Gate activation.
    pub activation: Activation,
    /// Multiplies query-key products; `1 / sqrt(head_dim)` in most families.
    pub score_scale: f32,
    /// Multiplies embedding rows; `sqrt(hidden_len)` in Gemma, 1 elsewhere.
    pub embedding_scale: f32,
    /// Query, key and value projections have biases (Qwen 2).
    pub qkv_bias: bool,
    /// Queries and keys are normalised per head (Qwen 3, Gemma 3).
    pub qk_norm: bool,
    /// Attention and feed-forward outputs are normalised before the residual sum (Gemma).
    pub post_norms: bool,
    /// The output head is the embedding matrix.
    pub tied_head: bool,
}

impl ModelConfig {
    /// Number of layers.
    pub fn num_layers(&self) -> usize {
        self.layer_spans.len()
    }

    /// Rotary encoding that a layer of this span uses.
    pub fn rope_of(&self, span: AttentionSpan) -> &RopeConfig {
        match (span, &self.local_rope) {
            (AttentionSpan::Sliding { .. }, Some(local)) => local,
            _ => &self.rope,
        }
    }

    /// Number of weights, biases and norms included, a tied head counted once.
    pub fn num_parameters(&self) -> usize {
        let (q_len, kv_len) = (self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim);
        let attention = self.hidden_len * (q_len + 2 * kv_len) + q_len * self.hidden_len;
        let bias = if self.qkv_bias { q_len + 2 * kv_len } else { 0 };
        let norms = self.hidden_len * if self.post_norms { 4 } else { 2 };
        let head_norms = if self.qk_norm { 2 * self.head_dim } else { 0 };
        let layer = attention + bias + norms + head_norms + 3 * self.hidden_len * self.ffn_len;
        let embeddings = self.vocab_len * self.hidden_len * if self.tied_head { 1 } else { 2 };
        layer * self.num_layers() + embeddings + self.hidden_len
    }

    /// Weights that every position is multiplied with, the head's included: two operations each.
    pub fn num_linear_weights(&self) -> usize {
        let (q_len, kv_len) = (self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim);
        let layer = self.hidden_len * (2 * q_len + 2 * kv_len) + 3 * self.hidden_len * self.ffn_len;
        layer * self.num_layers() + self.vocab_len * self.hidden_len
    }

    /// Checks once, at the edge, what the forward pass relies on.
    ///
    /// # Errors
    /// The first field that is impossible, with its value and what is expected.
    pub fn validate(self) -> Result<Self, ModelError> {
        let positive = [
            ("vocab_len", self.vocab_len),
            ("hidden_len", self.hidden_len),
            ("ffn_len", self.ffn_len),
            ("num_heads", self.num_heads),
            ("num_kv_heads", self.num_kv_heads),
            ("head_dim", self.head_dim),
            ("context_len", self.context_len),
            ("num_layers", self.num_layers()),
        ];
        for (field, value) in positive {
            // The upper bound keeps products of two lengths far from overflow.
            require(value > 0 && value < 1 << 28, field, value, "between 1 and 2^28")?;
        }
        require(
            self.num_heads.is_multiple_of(self.num_kv_heads),
            "num_kv_heads",
            self.num_kv_heads,
            "a divisor of num_heads",
        )?;
        require(
            self.head_dim.is_multiple_of(2),
            "head_dim",
            self.head_dim,
            "an even number",
        )?;
        require(
            self.norm_eps > 0.0 && self.norm_eps < 1.0,
            "norm_eps",
            self.norm_eps,
            "in (0, 1)",
        )?;
        let scale_ok = self.score_scale > 0.0 && self.score_scale.is_finite();
        require(scale_ok, "score_scale", self.score_scale, "positive and finite")?;
        let embedding_ok = self.embedding_scale > 0.0 && self.embedding_scale.is_finite();
        require(
            embedding_ok,
            "embedding_scale",
            self.embedding_scale,
            "positive and finite",
        )?;
        for rope in std::iter::once(&self.rope).chain(&self.local_rope) {
            require(
                rope.theta > 1.0 && rope.theta.is_finite(),
                "rope.theta",
                rope.theta,
                "above 1",
            )?;
            rope.scaling.validate(self.head_dim)?;
        }
        for span in &self.layer_spans {
            if let AttentionSpan::Sliding { window } = *span {
                require(window > 0, "sliding window", window, "at least 1")?;
            }
        }
        Ok(self)
    }
}

impl RopeScaling {
    fn validate(&self, head_dim: usize) -> Result<(), ModelError> {
        let stretch = |factor: f64| {
            require(
                factor >= 1.0 && factor.is_finite(),
                "rope factor",
                factor,
                "at least 1",
            )
        };
        match self {
            Self::None => Ok(()),
            Self::Linear { factor } => stretch(*factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context_len,
            } => {
                stretch(*factor)?;
                let ordered = *low_freq_factor > 0.0 && high_freq_factor > low_freq_factor;
                require(
                    ordered,
                    "rope high_freq_factor",
                    *high_freq_factor,
                    "above low_freq_factor, which is positive",
                )?;
                require(
                    *original_context_len > 0,
                    "rope original_context_len",
                    0,
                    "at least 1",
                )
            }
            Self::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_context_len,
                ..
            } => {
                stretch(*factor)?;
                require(
                    beta_fast > beta_slow && *beta_slow > 0.0,
                    "rope beta_fast",
                    *beta_fast,
                    "above beta_slow",
                )?;
                require(
                    *original_context_len > 0,
                    "rope original_context_len",
                    0,
                    "at least 1",
                )
            }
            Self::PerFrequency { divisors } => {
                let sound =
                    divisors.len() == head_dim / 2 && divisors.iter().all(|d| d.is_finite() && *d > 0.0);
                require(
                    sound,
                    "rope frequency divisors",
                    divisors.len(),
                    "head_dim / 2 positive numbers",
                )
            }
        }
    }
}

fn require(
    holds: bool,
    field: &'static str,
    value: impl std::fmt::Display,
    expected: &str,
) -> Result<(), ModelError> {
    if holds {
        return Ok(());
    }
    Err(ModelError::BadConfig {
        field: field.into(),
        value: value.to_string(),
        expected: expected.to_owned(),
    })
}
