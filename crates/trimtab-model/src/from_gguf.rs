//! GGUF metadata to [`ModelConfig`]. Knows llama.cpp's keys, defaults and fixed choices; no tokens.

use trimtab_checkpoint::{Checkpoint, Metadata};

use crate::config::{Activation, AttentionSpan, ModelConfig, RopeConfig, RopeScaling};
use crate::error::ModelError;
use crate::weights::RotaryOrder;

/// Architectures by their `general.architecture`.
pub const SUPPORTED: &str = "llama, qwen2, qwen3, gemma3";

/// Divisors of the rotary frequencies, stored as a tensor where a model has them (Llama 3.1).
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// More layers than any model has; bounds an allocation.
const MAX_LAYERS: usize = 4096;

/// The families that differ in code rather than in metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
}

/// Keys of one architecture.
struct Keys<'a> {
    metadata: Metadata<'a>,
    architecture: &'a str,
}

/// Reads the metadata of a GGUF checkpoint: the configuration, and the order of a head's rows.
///
/// # Errors
/// An unknown architecture; a key that is missing, of the wrong type or impossible; metadata that ask for something
/// that this decoder does not do.
pub fn config_from_gguf(
    checkpoint: &Checkpoint,
    metadata: Metadata<'_>,
) -> Result<(ModelConfig, RotaryOrder), ModelError> {
    let architecture = metadata
        .text("general.architecture")?
        .ok_or_else(|| missing("general.architecture"))?;
    let family = family(architecture)?;
    let keys = Keys {
        metadata,
        architecture,
    };
    keys.refuse_softcapping()?;
    let sizes = Sizes::read(&keys, checkpoint)?;
    let is_gemma = family == Family::Gemma3;
    let config = ModelConfig {
        architecture: architecture.to_owned(),
        vocab_len: sizes.vocab_len,
        hidden_len: sizes.hidden_len,
        ffn_len: keys.need_len("feed_forward_length")?,
        num_heads: sizes.num_heads,
        num_kv_heads: sizes.num_kv_heads,
        head_dim: sizes.head_dim,
        context_len: keys.need_len("context_length")?,
        norm_eps: keys
            .float("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| keys.missing("attention.layer_norm_rms_epsilon"))? as f32,
        layer_spans: layer_spans(&keys, family, sizes.num_layers)?,
        rope: keys.rope(checkpoint, sizes.head_dim)?,
        local_rope: is_gemma.then(|| keys.local_rope()).transpose()?,
        activation: if is_gemma {
            Activation::GeluTanh
        } else {
            Activation::Silu
        },
        score_scale: score_scale(family, &sizes),
        embedding_scale: if is_gemma {
            (sizes.hidden_len as f32).sqrt()
        } else {
            1.0
        },
        qkv_bias: family == Family::Qwen2 || checkpoint.tensor("blk.0.attn_q.bias").is_ok(),
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        post_norms: is_gemma,
        tied_head: checkpoint.tensor("output.weight").is_err(),
    };
    // llama.cpp's converter permutes the rows of Llama's queries and keys, and of no other family here.
    let rotary = if family == Family::Llama {
        RotaryOrder::Interleaved
    } else {
        RotaryOrder::Halves
    };
    Ok((config.validate()?, rotary))
}

fn family(architecture: &str) -> Result<Family, ModelError> {
    match architecture {
        "llama" => Ok(Family::Llama),
        "qwen2" => Ok(Family::Qwen2),
        "qwen3" => Ok(Family::Qwen3),
        "gemma3" => Ok(Family::Gemma3),
        _ => Err(ModelError::UnknownArchitecture {
            name: architecture.to_owned(),
            supported: SUPPORTED,
        }),
    }
}

/// The lengths that other values depend on.
struct Sizes {
    vocab_len: usize,
    hidden_len: usize,
    num_layers: usize,
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
}

impl Sizes {
    fn read(keys: &Keys<'_>, checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let hidden_len = keys.need_len("embedding_length")?;
        let num_layers = keys.need_len("block_count")?;
        if num_layers > MAX_LAYERS {
            return Err(keys.bad("block_count", num_layers, "at most 4096"));
        }
        let num_heads = keys.need_len("attention.head_count")?;
        let num_kv_heads = keys.len("attention.head_count_kv")?.unwrap_or(num_heads);
        let head_dim = match keys.len("attention.key_length")? {
            Some(head_dim) => head_dim,
            None if num_heads == 0 => 0,
            None => hidden_len / num_heads,
        };
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(len) = keys.len(key)?.filter(|&len| len != head_dim) {
                return Err(keys.bad(key, len, &format!("the width of a head, {head_dim}")));
            }
        }
        // The tensor is what counts: the metadata list tokens, and some files pad the matrix.
        let embedding = checkpoint.tensor("token_embd.weight")?;
        Ok(Self {
            vocab_len: embedding.num_rows(),
            hidden_len,
            num_layers,
            num_heads,
            num_kv_heads,
            head_dim,
        })
    }
}

/// `1 / sqrt(head_dim)`, but for Gemma 3 27B, which llama.cpp recognises by its 62 layers.
fn score_scale(family: Family, sizes: &Sizes) -> f32 {
    let is_gemma_27b = family == Family::Gemma3 && sizes.num_layers == 62 && sizes.num_heads > 0;
    let width = if is_gemma_27b {
        sizes.hidden_len / sizes.num_heads
    } else {
        sizes.head_dim
    };
    1.0 / (width as f32).sqrt()
}

/// Gemma 3 puts a global layer after every five sliding ones; the other families here have none that slide.
fn layer_spans(keys: &Keys<'_>, family: Family, num_layers: usize) -> Result<Vec<AttentionSpan>, ModelError> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    let window = keys.len("attention.sliding_window")?.unwrap_or(0);
    // Some converters store a window that the model does not use (Qwen 2); llama.cpp ignores it as well.
    if family != Family::Gemma3 || window == 0 {
        return Ok(vec![AttentionSpan::Global; num_layers]);
    }
    let span = |slides: bool| {
        if slides {
            AttentionSpan::Sliding { window }
        } else {
            AttentionSpan::Global
        }
    };
    if let Some(slides) = keys.flags(PATTERN)? {
        if slides.len() != num_layers {
            return Err(keys.bad(PATTERN, slides.len(), "one entry per layer"));
        }
        return Ok(slides.into_iter().map(span).collect());
    }
    let every = keys.len(PATTERN)?.unwrap_or(6);
    // llama.cpp reads 0 as "all layers slide".
    Ok((1..=num_layers)
        .map(|layer| span(every == 0 || layer % every != 0))
        .collect())
}

impl Keys<'_> {
    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    fn missing(&self, suffix: &str) -> ModelError {
        missing(&self.key(suffix))
    }

    fn bad(&self, suffix: &str, value: impl std::fmt::Display, expected: &str) -> ModelError {
        ModelError::BadConfig {
            field: self.key(suffix).into(),
            value: value.to_string(),
            expected: expected.to_owned(),
        }
    }

    /// A length. Some files store one per layer; they are read where all are equal.
    fn len(&self, suffix: &str) -> Result<Option<usize>, ModelError> {
        let key = self.key(suffix);
        if !self.metadata.is_array(&key) {
            return Ok(self.metadata.u32(&key)?.map(|len| len as usize));
        }
        let per_layer = self.metadata.i32s(&key)?.unwrap_or_default();
        match per_layer.first() {
            Some(&first) if first >= 0 && per_layer.iter().all(|&len| len == first) => {
                Ok(Some(first as usize))
            }
            _ => Err(self.bad(suffix, format!("{per_layer:?}"), "one length for all layers")),
        }
    }

    fn need_len(&self, suffix: &str) -> Result<usize, ModelError> {
        self.len(suffix)?.ok_or_else(|| self.missing(suffix))
    }

    /// One flag per layer, stored as booleans or as integers; `None` where the key is absent or no array.
    fn flags(&self, suffix: &str) -> Result<Option<Vec<bool>>, ModelError> {
        let key = self.key(suffix);
        if !self.metadata.is_array(&key) {
            return Ok(None);
        }
        if let Ok(flags) = self.metadata.bools(&key) {
            return Ok(flags);
        }
        let numbers = self.metadata.i32s(&key)?;
        Ok(numbers.map(|numbers| numbers.into_iter().map(|number| number != 0).collect()))
    }

    fn float(&self, suffix: &str) -> Result<Option<f64>, ModelError> {
        Ok(self.metadata.f64(&self.key(suffix))?)
    }

    /// Gemma 2 squashes its logits; a Gemma 3 file that asks for it is not what this decoder computes.
    fn refuse_softcapping(&self) -> Result<(), ModelError> {
        for suffix in ["final_logit_softcapping", "attn_logit_softcapping"] {
            if let Some(cap) = self.float(suffix)?.filter(|&cap| cap != 0.0) {
                return Err(self.bad(suffix, cap, "0 or none"));
            }
        }
        Ok(())
    }

    /// Rotary encoding of global layers.
    fn rope(&self, checkpoint: &Checkpoint, head_dim: usize) -> Result<RopeConfig, ModelError> {
        let theta = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        let stored = self.rope_scaling()?;
        let scaling = match (rope_divisors(checkpoint, head_dim)?, stored) {
            (None, scaling) => scaling,
            (Some(divisors), RopeScaling::None) => RopeScaling::PerFrequency { divisors },
            (Some(mut divisors), RopeScaling::Linear { factor }) => {
                for divisor in &mut divisors {
                    *divisor *= factor as f32;
                }
                RopeScaling::PerFrequency { divisors }
            }
            (Some(_), _) => {
                return Err(self.bad(
                    "rope.scaling.type",
                    "yarn",
                    "none or linear beside rope_freqs.weight",
                ));
            }
        };
        Ok(RopeConfig { theta, scaling })
    }

    /// Gemma 3's sliding layers keep the frequencies they were trained with; older files do not store their base.
    fn local_rope(&self) -> Result<RopeConfig, ModelError> {
        Ok(RopeConfig {
            theta: self.float("rope.freq_base_swa")?.unwrap_or(10_000.0),
            scaling: RopeScaling::None,
        })
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let key = self.key("rope.scaling.type");
        let kind = self.metadata.text(&key)?;
        let factor = match self.float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            // The key of files from before 2023-09.
            None => self.float("rope.scale_linear")?,
        };
        // llama.cpp reads 0 as "not set".
        let factor = factor.filter(|&factor| factor != 0.0);
        match (kind.unwrap_or("linear"), factor) {
            ("none", _) | ("linear", None | Some(1.0)) => Ok(RopeScaling::None),
            ("linear", Some(factor)) => Ok(RopeScaling::Linear { factor }),
            ("yarn", factor) => self.yarn(factor),
            (other, _) => Err(self.bad("rope.scaling.type", format!("{other:?}"), "none, linear or yarn")),
        }
    }

    fn yarn(&self, factor: Option<f64>) -> Result<RopeScaling, ModelError> {
        let original = self.len("rope.scaling.original_context_length")?;
        let factor = factor.ok_or_else(|| self.missing("rope.scaling.factor"))?;
        let magnitude = |scale: f64| 0.1 * scale * factor.max(1.0).ln() + 1.0;
        let stored = self.float("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let reduced = magnitude(self.float("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0));
        Ok(RopeScaling::Yarn {
            factor,
            beta_fast: self.float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: self.float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            original_context_len: match original {
                Some(len) => len,
                None => self.need_len("context_length")?,
            },
            // As llama.cpp combines them; without the stored numbers this is the published default.
            attention_factor: Some(stored * magnitude(1.0) / reduced),
        })
    }
}

/// The divisors of the rotary frequencies, if the file has them. `[head_dim / 2]`
fn rope_divisors(checkpoint: &Checkpoint, head_dim: usize) -> Result<Option<Vec<f32>>, ModelError> {
    let Ok(tensor) = checkpoint.tensor(ROPE_DIVISORS) else {
        return Ok(None);
    };
    if tensor.shape() != [head_dim / 2] {
        return Err(ModelError::BadShape {
            tensor: ROPE_DIVISORS.to_owned(),
            expected: vec![head_dim / 2],
            got: tensor.shape().to_vec(),
        });
    }
    let mut divisors = vec![0.0; head_dim / 2];
    tensor.read_row(0, &mut divisors);
    Ok(Some(divisors))
}

fn missing(key: &str) -> ModelError {
    ModelError::BadConfig {
        field: key.to_owned().into(),
        value: "missing".to_owned(),
        expected: "an entry in the file's metadata".to_owned(),
    }
}
