//! [`ModelConfig`] to `config.json` of the model hub, for the classes of transformers. The inverse of `from_hf`.

use serde_json::{Map, Value, json};
use trimtab_checkpoint::Dtype;

use crate::config::{Activation, AttentionSpan, ModelConfig, RopeConfig, RopeScaling};
use crate::error::ModelError;
use crate::family::{Family, check_same_model};
use crate::from_hf::config_from_hf;

/// What Llama 3.1 and later stretch their rotary frequencies by; GGUF keeps only the result.
const LLAMA3_FACTORS: [f64; 2] = [8.0, 32.0];

/// Writes a published configuration of weights that are stored in `dtype`.
///
/// # Errors
/// A configuration that no class of the family in transformers computes, with the field.
pub fn config_to_hf(config: &ModelConfig, dtype: Dtype) -> Result<Value, ModelError> {
    let family = Family::of(config)?;
    let (class, model_type) = match family {
        Family::Llama => ("LlamaForCausalLM", "llama"),
        Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        Family::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
    };
    refuse_biases(config, family)?;
    let mut json = json!({
        "architectures": [class],
        "model_type": model_type,
        "vocab_size": config.vocab_len,
        "hidden_size": config.hidden_len,
        "intermediate_size": config.ffn_len,
        "num_hidden_layers": config.num_layers(),
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_len,
        "rms_norm_eps": shortest(config.norm_eps),
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": 0.0,
        "torch_dtype": torch_name(dtype),
    });
    let fields = json.as_object_mut().expect("it was written as an object");
    if let Some(scaling) = rope_scaling(config)? {
        fields.insert("rope_scaling".to_owned(), scaling);
    }
    add_activation(fields, config, family);
    add_spans(fields, config, family)?;
    match family {
        Family::Llama => fields.extend(object(json!({ "attention_bias": false, "mlp_bias": false }))),
        Family::Qwen3 => fields.extend(object(json!({ "attention_bias": false }))),
        Family::Qwen2 => {}
        Family::Gemma3 => fields.extend(object(json!({
            "attention_bias": false,
            "query_pre_attn_scalar": query_scalar(config),
            "rope_local_base_freq": config.local_rope.as_ref().map(|rope| rope.theta),
            "attn_logit_softcapping": null,
            "final_logit_softcapping": null,
        }))),
    }
    check_same_model(config, &config_from_hf(&json)?)?;
    Ok(json)
}

/// The hub's name of an element type.
pub fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
        _ => "float32",
    }
}

/// In transformers a Llama or Qwen 3 with biases has one at the attention's output as well.
fn refuse_biases(config: &ModelConfig, family: Family) -> Result<(), ModelError> {
    if config.qkv_bias && family != Family::Qwen2 {
        return Err(ModelError::BadConfig {
            field: "qkv_bias".into(),
            value: "true".to_owned(),
            expected: "false, since transformers has no such model of this family; write GGUF instead"
                .to_owned(),
        });
    }
    Ok(())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The shortest decimal that reads as this number, as people write it: 1e-5, not 9.999999747378752e-6.
fn shortest(value: f32) -> f64 {
    let text = value.to_string();
    text.parse().unwrap_or(f64::from(value))
}

fn add_activation(fields: &mut Map<String, Value>, config: &ModelConfig, family: Family) {
    let key = if family == Family::Gemma3 {
        "hidden_activation"
    } else {
        "hidden_act"
    };
    let name = match config.activation {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    fields.insert(key.to_owned(), json!(name));
}

/// Which layers slide, and how far.
fn add_spans(
    fields: &mut Map<String, Value>,
    config: &ModelConfig,
    family: Family,
) -> Result<(), ModelError> {
    let mut windows = config.layer_spans.iter().filter_map(|span| match span {
        AttentionSpan::Sliding { window } => Some(*window),
        AttentionSpan::Global => None,
    });
    let window = windows.next();
    if let Some(other) = windows.find(|&other| Some(other) != window) {
        return Err(ModelError::BadConfig {
            field: "layer_spans".into(),
            value: format!("windows of {} and {other}", window.unwrap_or_default()),
            expected: "one window for all layers that slide".to_owned(),
        });
    }
    if family == Family::Llama {
        // A window is then refused by the comparison of configurations: Llama's class has none.
        return Ok(());
    }
    let kind = |span: &AttentionSpan| match span {
        AttentionSpan::Global => "full_attention",
        AttentionSpan::Sliding { .. } => "sliding_attention",
    };
    let kinds: Vec<&str> = config.layer_spans.iter().map(kind).collect();
    fields.insert("layer_types".to_owned(), json!(kinds));
    fields.insert("sliding_window".to_owned(), json!(window));
    if family != Family::Gemma3 {
        let first = config
            .layer_spans
            .iter()
            .position(|span| *span != AttentionSpan::Global);
        fields.insert("use_sliding_window".to_owned(), json!(window.is_some()));
        fields.insert(
            "max_window_layers".to_owned(),
            json!(first.unwrap_or(config.num_layers())),
        );
    }
    Ok(())
}

/// The width whose root divides query-key products: an integer in every published file.
fn query_scalar(config: &ModelConfig) -> u64 {
    (1.0 / (f64::from(config.score_scale) * f64::from(config.score_scale))).round() as u64
}

fn rope_scaling(config: &ModelConfig) -> Result<Option<Value>, ModelError> {
    Ok(match &config.rope.scaling {
        RopeScaling::None => None,
        RopeScaling::Linear { factor } => Some(json!({ "rope_type": "linear", "factor": factor })),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context_len,
        } => Some(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original_context_len,
        })),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_context_len,
            attention_factor,
        } => {
            let mut scaling = object(json!({
                "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                "original_max_position_embeddings": original_context_len,
            }));
            if let Some(factor) = attention_factor {
                scaling.insert("attention_factor".to_owned(), json!(factor));
            }
            Some(Value::Object(scaling))
        }
        RopeScaling::PerFrequency { .. } => Some(llama3_scaling(config)?),
    })
}

/// The rule that made the divisors, if it is one of the published ones.
fn llama3_scaling(config: &ModelConfig) -> Result<Value, ModelError> {
    let rule = |factor| RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context_len: 8192,
    };
    let with_rule = |factor| ModelConfig {
        rope: RopeConfig {
            theta: config.rope.theta,
            scaling: rule(factor),
        },
        ..config.clone()
    };
    let made_by = |factor: &f64| check_same_model(config, &with_rule(*factor)).is_ok();
    let Some(factor) = LLAMA3_FACTORS.into_iter().find(made_by) else {
        return Err(ModelError::BadConfig {
            field: "rope_freqs.weight".into(),
            value: "divisors by another rule".to_owned(),
            expected:
                "those of Llama 3.1 (factor 8 or 32, 1, 4, 8192), since config.json names a rule; write GGUF \
                       instead"
                    .to_owned(),
        });
    };
    rope_scaling(&with_rule(factor)).map(Option::unwrap_or_default)
}
