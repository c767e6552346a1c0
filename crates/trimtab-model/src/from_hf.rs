//! `config.json` of the model hub to [`ModelConfig`]. Knows the hub's field names and defaults, no tensors.

use serde::Deserialize;
use serde_json::Value;

use crate::config::{Activation, AttentionSpan, ModelConfig, RopeConfig, RopeScaling};
use crate::error::ModelError;
use crate::score_head::is_sequence_classifier;

/// Architectures by their `model_type`.
pub const SUPPORTED: &str = "llama, qwen2, qwen3, gemma3_text, gemma3";

/// The fields read; others are the training code's business.
#[derive(Debug, Deserialize)]
struct RawConfig {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f32,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_local_base_freq: Option<f64>,
    /// Where newer files keep base and scaling, per kind of layer in Gemma 3.
    rope_parameters: Option<Value>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    max_window_layers: Option<usize>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    query_pre_attn_scalar: Option<f32>,
    hidden_act: Option<String>,
    /// What Gemma 3 reads in place of `hidden_act`.
    hidden_activation: Option<String>,
}

fn default_eps() -> f32 {
    1e-6
}

impl RawConfig {
    /// The object that describes the rotary encoding of one kind of layer, old or new.
    fn rope_object(&self, kind: &str) -> Option<&Value> {
        let Some(parameters) = &self.rope_parameters else {
            return self.rope_scaling.as_ref().filter(|value| !value.is_null());
        };
        Some(parameters.get(kind).unwrap_or(parameters))
    }

    /// Base of the rotary encoding of one kind of layer; `old` is where older files keep it.
    fn rope_theta(&self, kind: &str, old: Option<f64>, default: f64) -> f64 {
        let new = self
            .rope_object(kind)
            .and_then(|object| object.get("rope_theta")?.as_f64());
        new.or(old).unwrap_or(default)
    }
}

/// Reads a published configuration.
///
/// # Errors
/// An unknown `model_type`, a missing or impossible field.
pub fn config_from_hf(json: &Value) -> Result<ModelConfig, ModelError> {
    // Gemma 3's multimodal checkpoints nest the decoder's fields; the text-only ones do not.
    let text = json.get("text_config").unwrap_or(json);
    let raw: RawConfig = serde_json::from_value(text.clone()).map_err(|error| ModelError::BadConfig {
        field: "config.json".into(),
        value: error.to_string(),
        expected: "a published configuration of a supported model".to_owned(),
    })?;
    let is_gemma = matches!(raw.model_type.as_str(), "gemma3_text" | "gemma3");
    let (qkv_bias, qk_norm) = match raw.model_type.as_str() {
        "llama" => (raw.attention_bias.unwrap_or(false), false),
        "qwen2" => (true, false),
        "qwen3" => (raw.attention_bias.unwrap_or(false), true),
        "gemma3_text" | "gemma3" => (false, true),
        _ => {
            return Err(ModelError::UnknownArchitecture {
                name: raw.model_type,
                supported: SUPPORTED,
            });
        }
    };
    let head_dim = match (raw.head_dim, raw.num_attention_heads) {
        (Some(head_dim), _) => head_dim,
        (None, 0) => 0,
        (None, num_heads) => raw.hidden_size / num_heads,
    };
    let rope = RopeConfig {
        theta: raw.rope_theta("full_attention", raw.rope_theta, if is_gemma { 1e6 } else { 1e4 }),
        scaling: rope_scaling(&raw)?,
    };
    let local_rope = is_gemma.then(|| RopeConfig {
        theta: raw.rope_theta("sliding_attention", raw.rope_local_base_freq, 1e4),
        scaling: RopeScaling::None,
    });
    ModelConfig {
        activation: activation(&raw, is_gemma)?,
        layer_spans: layer_spans(&raw, is_gemma)?,
        architecture: raw.model_type,
        vocab_len: raw.vocab_size,
        hidden_len: raw.hidden_size,
        ffn_len: raw.intermediate_size,
        num_heads: raw.num_attention_heads,
        num_kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
        head_dim,
        context_len: raw.max_position_embeddings,
        norm_eps: raw.rms_norm_eps,
        rope,
        local_rope,
        score_scale: 1.0 / raw.query_pre_attn_scalar.unwrap_or(head_dim as f32).sqrt(),
        embedding_scale: if is_gemma {
            (raw.hidden_size as f32).sqrt()
        } else {
            1.0
        },
        qkv_bias,
        qk_norm,
        post_norms: is_gemma,
        // A sequence classifier has no output head, so that there is none to look for.
        tied_head: raw.tie_word_embeddings.unwrap_or(is_gemma) || is_sequence_classifier(json),
    }
    .validate()
}

/// Whether norm weights are stored as `w - 1`, as Gemma's published checkpoints do.
pub fn norms_are_offset(config: &ModelConfig) -> bool {
    config.post_norms
}

/// The gate's activation; each family's own where the file is silent.
fn activation(raw: &RawConfig, is_gemma: bool) -> Result<Activation, ModelError> {
    let (field, named, default) = if is_gemma {
        ("hidden_activation", &raw.hidden_activation, "gelu_pytorch_tanh")
    } else {
        ("hidden_act", &raw.hidden_act, "silu")
    };
    // Two names each: as published, and another of the same formula.
    match named.as_deref().unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        other => Err(bad(field, other, "silu or gelu_pytorch_tanh")),
    }
}

fn layer_spans(raw: &RawConfig, is_gemma: bool) -> Result<Vec<AttentionSpan>, ModelError> {
    let num_layers = raw.num_hidden_layers;
    // An absurd count must not become an allocation before validation sees it.
    if num_layers > 4096 {
        return Err(bad("num_hidden_layers", num_layers, "at most 4096"));
    }
    let global = vec![AttentionSpan::Global; num_layers];
    let window = match raw.sliding_window {
        Some(window) if is_gemma || raw.use_sliding_window => window,
        _ => return Ok(global),
    };
    let sliding = AttentionSpan::Sliding { window };
    if let Some(types) = &raw.layer_types {
        if types.len() != num_layers {
            return Err(bad("layer_types", types.len(), "one entry per layer"));
        }
        let span = |kind: &String| match kind.as_str() {
            "full_attention" => Ok(AttentionSpan::Global),
            "sliding_attention" => Ok(sliding),
            other => Err(bad("layer_types", other, "full_attention or sliding_attention")),
        };
        return types.iter().map(span).collect();
    }
    if !is_gemma {
        // Qwen's first layers stay global; 28 is the published default.
        let first = raw.max_window_layers.unwrap_or(28);
        return Ok((0..num_layers)
            .map(|layer| {
                if layer < first {
                    AttentionSpan::Global
                } else {
                    sliding
                }
            })
            .collect());
    }
    let every = raw.sliding_window_pattern.unwrap_or(6).max(1);
    Ok((1..=num_layers)
        .map(|layer| {
            if layer % every == 0 {
                AttentionSpan::Global
            } else {
                sliding
            }
        })
        .collect())
}

fn rope_scaling(raw: &RawConfig) -> Result<RopeScaling, ModelError> {
    let Some(scaling) = raw.rope_object("full_attention") else {
        return Ok(RopeScaling::None);
    };
    let number = |key: &str| scaling.get(key).and_then(Value::as_f64);
    let need = |key: &'static str| number(key).ok_or_else(|| bad(key, "missing", "a number in rope_scaling"));
    let original = || {
        let stored = scaling
            .get("original_max_position_embeddings")
            .and_then(Value::as_u64);
        stored.map_or(raw.max_position_embeddings, |len| len as usize)
    };
    let kind = scaling
        .get("rope_type")
        .or_else(|| scaling.get("type"))
        .and_then(Value::as_str)
        .unwrap_or("default");
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear {
            factor: need("factor")?,
        }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: need("factor")?,
            low_freq_factor: need("low_freq_factor")?,
            high_freq_factor: need("high_freq_factor")?,
            original_context_len: original(),
        }),
        "yarn" => Ok(RopeScaling::Yarn {
            factor: need("factor")?,
            beta_fast: number("beta_fast").unwrap_or(32.0),
            beta_slow: number("beta_slow").unwrap_or(1.0),
            original_context_len: original(),
            attention_factor: number("attention_factor"),
        }),
        other => Err(bad("rope_scaling type", other, "default, linear, llama3 or yarn")),
    }
}

fn bad(field: &'static str, value: impl std::fmt::Display, expected: &str) -> ModelError {
    ModelError::BadConfig {
        field: field.into(),
        value: value.to_string(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn llama() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
            "tie_word_embeddings": true, "torch_dtype": "bfloat16"
        })
    }

    fn with(mut base: Value, changes: &Value) -> Value {
        for (key, value) in changes.as_object().expect("changes are an object") {
            base[key] = value.clone();
        }
        base
    }

    #[test]
    fn smollm2_has_its_published_number_of_parameters() {
        let config = config_from_hf(&llama()).unwrap();
        assert_eq!(config.num_parameters(), 134_515_008);
        assert_eq!(
            (config.head_dim, config.num_layers(), config.qkv_bias),
            (64, 30, false)
        );
    }

    #[test]
    fn families_differ_in_the_documented_switches() {
        let check = |changes: Value, expect: (bool, bool, bool, Activation)| {
            let config = config_from_hf(&with(llama(), &changes)).unwrap();
            assert_eq!(
                (
                    config.qkv_bias,
                    config.qk_norm,
                    config.post_norms,
                    config.activation
                ),
                expect,
                "{changes}"
            );
        };
        check(
            json!({"model_type": "qwen2"}),
            (true, false, false, Activation::Silu),
        );
        check(
            json!({"model_type": "qwen3", "head_dim": 128}),
            (false, true, false, Activation::Silu),
        );
        check(
            json!({"model_type": "gemma3_text", "sliding_window": 512, "query_pre_attn_scalar": 256}),
            (false, true, true, Activation::GeluTanh),
        );
    }

    #[test]
    fn activations_are_taken_from_the_field_of_the_family() {
        let check = |changes: Value, expect: Result<Activation, &str>| {
            let got = config_from_hf(&with(llama(), &changes)).map(|config| config.activation);
            match (got, expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{changes}"),
                (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{error}"),
                (got, expect) => panic!("{changes}: got {got:?}, expected {expect:?}"),
            }
        };
        check(json!({"hidden_act": "silu"}), Ok(Activation::Silu));
        check(json!({"hidden_act": null}), Ok(Activation::Silu));
        check(
            json!({"hidden_act": "gelu_pytorch_tanh"}),
            Ok(Activation::GeluTanh),
        );
        check(json!({"hidden_act": "gelu"}), Err("hidden_act is gelu"));
        check(
            json!({"hidden_act": "relu2"}),
            Err("expected silu or gelu_pytorch_tanh"),
        );
        let gemma =
            |key: &str, value: &str| json!({"model_type": "gemma3_text", "sliding_window": 512, key: value});
        let published = gemma("hidden_activation", "gelu_pytorch_tanh");
        check(published, Ok(Activation::GeluTanh));
        check(
            gemma("hidden_activation", "gelu"),
            Err("hidden_activation is gelu"),
        );
        // A field that this family's code does not read.
        check(gemma("hidden_act", "gelu"), Ok(Activation::GeluTanh));
    }

    #[test]
    fn gemma3_alternates_five_sliding_layers_with_one_global() {
        let gemma = json!({"model_type": "gemma3_text", "sliding_window": 512, "num_hidden_layers": 12});
        let config = config_from_hf(&with(llama(), &gemma)).unwrap();
        let globals: Vec<usize> = (0..12)
            .filter(|&l| config.layer_spans[l] == AttentionSpan::Global)
            .collect();
        assert_eq!(globals, [5, 11]);
    }

    #[test]
    fn bases_and_scaling_are_found_in_old_and_new_places() {
        let check = |changes: Value, expect: (f64, RopeScaling, Option<f64>)| {
            let config = config_from_hf(&with(llama(), &changes)).unwrap();
            let local = config.local_rope.map(|rope| rope.theta);
            assert_eq!(
                (config.rope.theta, config.rope.scaling, local),
                expect,
                "{changes}"
            );
        };
        let linear = RopeScaling::Linear { factor: 8.0 };
        let old = json!({"rope_scaling": {"rope_type": "linear", "factor": 8.0}});
        check(old, (100_000.0, linear.clone(), None));
        let new = json!({"rope_parameters": {"rope_theta": 500_000.0, "rope_type": "linear", "factor": 8.0}});
        check(new, (500_000.0, linear.clone(), None));
        let gemma = json!({"model_type": "gemma3_text", "rope_theta": null, "sliding_window": 512});
        check(gemma, (1_000_000.0, RopeScaling::None, Some(10_000.0)));
        let new_gemma = json!({"model_type": "gemma3_text", "rope_theta": null, "rope_parameters": {
            "full_attention": {"rope_theta": 2e6, "rope_type": "linear", "factor": 8.0},
            "sliding_attention": {"rope_theta": 3e4, "rope_type": "default"}}});
        check(new_gemma, (2e6, linear, Some(3e4)));
    }

    #[test]
    fn qwen_slides_from_its_last_window_layer_on() {
        let changes = json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 64,
            "max_window_layers": 29});
        let config = config_from_hf(&with(llama(), &changes)).unwrap();
        let sliding: Vec<usize> = (0..30)
            .filter(|&l| config.layer_spans[l] != AttentionSpan::Global)
            .collect();
        assert_eq!(sliding, [29]);
    }

    #[test]
    fn impossible_configurations_are_refused_by_name() {
        let check = |changes: Value, expect: &str| {
            let message = config_from_hf(&with(llama(), &changes))
                .expect_err("must be refused")
                .to_string();
            assert!(message.contains(expect), "{message:?} does not name {expect:?}");
        };
        check(json!({"model_type": "mamba"}), "mamba");
        check(json!({"num_key_value_heads": 4}), "num_kv_heads is 4");
        check(json!({"num_attention_heads": 0}), "num_heads is 0");
        check(
            json!({"num_hidden_layers": 1_000_000_000_u64}),
            "num_hidden_layers is 1000000000",
        );
        check(json!({"head_dim": 7}), "head_dim is 7");
        check(json!({"rms_norm_eps": 0.0}), "norm_eps is 0");
        check(json!({"rope_scaling": {"rope_type": "spiral"}}), "spiral");
        check(
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}),
            "low_freq_factor",
        );
        check(json!({"vocab_size": "many"}), "config.json");
    }
}
