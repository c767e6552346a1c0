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
        rope: RopeConfig {
            theta: 100_000.0,
            scaling: RopeScaling::None,
        },
        score_scale: 0.125,
        ..test_tiny()
    }
}
