//! Sizes as data. `test_tiny` is ours, for tests; the others are configurations published with their weights.

use crate::config::{Activation, AttentionSpan, ModelConfig, RopeConfig, RopeScaling};

/// A model small enough for exact tests: 2 layers, 4 heads over 2 key/value heads of width 8.
pub fn test_tiny() -> ModelConfig {
    ModelConfig {
        architecture: "test_tiny".to_owned(),
        vocab_len: 40,
        hidden_len: 32,
        ffn_len: 48,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 8,
        context_len: 256,
        norm_eps: 1e-5,
        layer_spans: vec![AttentionSpan::Global; 2],
        rope: RopeConfig {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        },
        local_rope: None,
        activation: Activation::Silu,
        score_scale: 1.0 / 8.0_f32.sqrt(),
        embedding_scale: 1.0,
        qkv_bias: false,
        qk_norm: false,
        post_norms: false,
        tied_head: true,
    }
}

/// [`test_tiny`] with every switch the other families use turned on, and sliding layers between global ones.
pub fn test_tiny_gemma() -> ModelConfig {
    ModelConfig {
        architecture: "test_tiny_gemma".to_owned(),
        layer_spans: vec![AttentionSpan::Sliding { window: 5 }, AttentionSpan::Global],
        local_rope: Some(RopeConfig {
            theta: 100.0,
            scaling: RopeScaling::None,
        }),
        activation: Activation::GeluTanh,
        embedding_scale: 32.0_f32.sqrt(),
        qk_norm: true,
        post_norms: true,
        ..test_tiny()
    }
}

/// [`test_tiny`] with biases and an untied head, as Qwen 2 has them.
pub fn test_tiny_qwen() -> ModelConfig {
    ModelConfig {
        architecture: "test_tiny_qwen".to_owned(),
        qkv_bias: true,
        tied_head: false,
        ..test_tiny()
    }
}

/// SmolLM2-135M, as published in its `config.json`.
pub fn smollm2_135m() -> ModelConfig {
    ModelConfig {
        architecture: "llama".to_owned(),
        vocab_len: 49_152,
        hidden_len: 576,
        ffn_len: 1536,
        num_heads: 9,
        num_kv_heads: 3,
        head_dim: 64,
        context_len: 8192,
        layer_spans: vec![AttentionSpan::Global; 30],
        rope: plain_rope(100_000.0),
        score_scale: 0.125,
        ..test_tiny()
    }
}

/// SmolLM2-360M, as published in its `config.json`.
pub fn smollm2_360m() -> ModelConfig {
    ModelConfig {
        hidden_len: 960,
        ffn_len: 2560,
        num_heads: 15,
        num_kv_heads: 5,
        layer_spans: vec![AttentionSpan::Global; 32],
        ..smollm2_135m()
    }
}

/// Qwen2.5-0.5B, its instruct and its coder variants, as published in their `config.json`.
pub fn qwen2_5_0_5b() -> ModelConfig {
    ModelConfig {
        architecture: "qwen2".to_owned(),
        vocab_len: 151_936,
        hidden_len: 896,
        ffn_len: 4864,
        num_heads: 14,
        num_kv_heads: 2,
        context_len: 32_768,
        norm_eps: 1e-6,
        layer_spans: vec![AttentionSpan::Global; 24],
        rope: plain_rope(1_000_000.0),
        qkv_bias: true,
        ..smollm2_135m()
    }
}

/// Qwen2.5-1.5B, its instruct and its coder variants, as published in their `config.json`.
pub fn qwen2_5_1_5b() -> ModelConfig {
    ModelConfig {
        hidden_len: 1536,
        ffn_len: 8960,
        num_heads: 12,
        head_dim: 128,
        layer_spans: vec![AttentionSpan::Global; 28],
        score_scale: 1.0 / 128.0_f32.sqrt(),
        ..qwen2_5_0_5b()
    }
}

/// Qwen3-0.6B, as published in its `config.json`.
pub fn qwen3_0_6b() -> ModelConfig {
    ModelConfig {
        architecture: "qwen3".to_owned(),
        hidden_len: 1024,
        ffn_len: 3072,
        num_heads: 16,
        num_kv_heads: 8,
        context_len: 40_960,
        qkv_bias: false,
        qk_norm: true,
        ..qwen2_5_1_5b()
    }
}

/// Gemma-3-270M, as published in its `config.json`.
pub fn gemma3_270m() -> ModelConfig {
    let sliding = AttentionSpan::Sliding { window: 512 };
    ModelConfig {
        architecture: "gemma3_text".to_owned(),
        vocab_len: 262_144,
        hidden_len: 640,
        ffn_len: 2048,
        num_heads: 4,
        num_kv_heads: 1,
        head_dim: 256,
        context_len: 32_768,
        norm_eps: 1e-6,
        layer_spans: (1..=18)
            .map(|layer| {
                if layer % 6 == 0 {
                    AttentionSpan::Global
                } else {
                    sliding
                }
            })
            .collect(),
        rope: plain_rope(1_000_000.0),
        local_rope: Some(plain_rope(10_000.0)),
        score_scale: 1.0 / 16.0,
        embedding_scale: 640.0_f32.sqrt(),
        ..test_tiny_gemma()
    }
}

fn plain_rope(theta: f64) -> RopeConfig {
    RopeConfig {
        theta,
        scaling: RopeScaling::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_models_have_their_published_numbers_of_parameters() {
        let check = |config: ModelConfig, expect: usize| {
            let config = config.validate().unwrap();
            assert_eq!(config.num_parameters(), expect, "{config:?}");
        };
        check(smollm2_135m(), 134_515_008);
        check(smollm2_360m(), 361_821_120);
        check(qwen2_5_0_5b(), 494_032_768);
        check(qwen2_5_1_5b(), 1_543_714_304);
        check(qwen3_0_6b(), 596_049_920);
        check(gemma3_270m(), 268_098_176);
    }

    #[test]
    fn test_models_are_sound() {
        for config in [test_tiny(), test_tiny_gemma(), test_tiny_qwen()] {
            config.validate().unwrap();
        }
    }
}
