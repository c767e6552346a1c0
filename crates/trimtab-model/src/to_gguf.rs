//! [`ModelConfig`] to the metadata of a GGUF file, as llama.cpp's converters write them. The inverse of `from_gguf`.

use trimtab_checkpoint::{Dtype, GgufEntries};

use crate::config::{AttentionSpan, ModelConfig, RopeScaling};
use crate::error::ModelError;
use crate::family::Family;

/// Gemma's period of layers that do not slide, where a file names none.
const GEMMA_PERIOD: usize = 6;

/// Adds the configuration of weights that are stored in `dtype`; the vocabulary comes from elsewhere. Divisors of the
/// rotary frequencies are a tensor, see [`FileTensors`](crate::file_tensors::FileTensors).
///
/// # Errors
/// A family without a name in llama.cpp, a length above 2^32. What else has no place in such a file is found by comparing
/// what is read again: [`check_same_model`](crate::family::check_same_model).
pub fn config_to_gguf(
    config: &ModelConfig,
    dtype: Dtype,
    entries: &mut GgufEntries,
) -> Result<(), ModelError> {
    let family = Family::of(config)?;
    let architecture = match family {
        Family::Llama => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        Family::Gemma3 => "gemma3",
    };
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    entries.text("general.architecture", architecture);
    entries.text("general.type", "model");
    entries.u32("general.file_type", file_type(dtype));
    let lengths = [
        ("vocab_size", config.vocab_len),
        ("context_length", config.context_len),
        ("embedding_length", config.hidden_len),
        ("block_count", config.num_layers()),
        ("feed_forward_length", config.ffn_len),
        ("attention.head_count", config.num_heads),
        ("attention.head_count_kv", config.num_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ];
    for (suffix, len) in lengths {
        entries.u32(&key(suffix), number(suffix, len)?);
    }
    entries.f32(&key("attention.layer_norm_rms_epsilon"), config.norm_eps);
    entries.f32(&key("rope.freq_base"), config.rope.theta as f32);
    add_scaling(config, &key, entries)?;
    if family == Family::Gemma3 {
        add_spans(config, &key, entries)?;
        if let Some(local) = &config.local_rope {
            entries.f32(&key("rope.freq_base_swa"), local.theta as f32);
        }
    }
    Ok(())
}

/// llama.cpp's number for files whose matrices are of this type (`LLAMA_FTYPE`).
pub fn file_type(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F16 => 1,
        Dtype::Bf16 => 32,
        _ => 0,
    }
}

fn number(field: &str, len: usize) -> Result<u32, ModelError> {
    u32::try_from(len).map_err(|_| ModelError::BadConfig {
        field: field.to_owned().into(),
        value: len.to_string(),
        expected: "a number below 2^32".to_owned(),
    })
}

fn add_scaling(
    config: &ModelConfig,
    key: &dyn Fn(&str) -> String,
    entries: &mut GgufEntries,
) -> Result<(), ModelError> {
    match &config.rope.scaling {
        // The last two are a tensor.
        RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::PerFrequency { .. } => {}
        RopeScaling::Linear { factor } => {
            entries.text(&key("rope.scaling.type"), "linear");
            entries.f32(&key("rope.scaling.factor"), *factor as f32);
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_context_len,
            attention_factor,
        } => {
            entries.text(&key("rope.scaling.type"), "yarn");
            entries.f32(&key("rope.scaling.factor"), *factor as f32);
            let original = "rope.scaling.original_context_length";
            entries.u32(&key(original), number(original, *original_context_len)?);
            entries.f32(&key("rope.scaling.yarn_beta_fast"), *beta_fast as f32);
            entries.f32(&key("rope.scaling.yarn_beta_slow"), *beta_slow as f32);
            if let Some(attention_factor) = attention_factor {
                // llama.cpp multiplies what it reads with the published default.
                let default = 0.1 * factor.max(1.0).ln() + 1.0;
                entries.f32(
                    &key("rope.scaling.attn_factor"),
                    (attention_factor / default) as f32,
                );
            }
        }
    }
    Ok(())
}

/// Which layers slide: a period where there is one, else a flag for each.
fn add_spans(
    config: &ModelConfig,
    key: &dyn Fn(&str) -> String,
    entries: &mut GgufEntries,
) -> Result<(), ModelError> {
    let slides = |span: &AttentionSpan| *span != AttentionSpan::Global;
    let flags: Vec<bool> = config.layer_spans.iter().map(slides).collect();
    let window = config.layer_spans.iter().find_map(|span| match span {
        AttentionSpan::Sliding { window } => Some(*window),
        AttentionSpan::Global => None,
    });
    let Some(window) = window else { return Ok(()) };
    let field = "attention.sliding_window";
    entries.u32(&key(field), number(field, window)?);
    let is_period = |period: &usize| {
        let mut layers = flags.iter().zip(1_usize..);
        layers.all(|(&slides, layer)| slides == (layer % period != 0))
    };
    let pattern = key("attention.sliding_window_pattern");
    match (2..=flags.len() + 1).find(is_period) {
        // Older llama.cpp knows no other and no key for it.
        _ if is_period(&GEMMA_PERIOD) => {}
        Some(period) => entries.u32(&pattern, number("attention.sliding_window_pattern", period)?),
        None => entries.bools(&pattern, &flags),
    }
    Ok(())
}
