//! The header of a llama2.c file to [`ModelConfig`]. Knows its fixed choices, no tensors.

use trimtab_checkpoint::Llama2cHeader;

use crate::config::{Activation, AttentionSpan, ModelConfig, RopeConfig, RopeScaling};
use crate::error::ModelError;

/// What llama2.c fixes in code rather than in its files.
const NORM_EPS: f32 = 1e-5;
const ROPE_THETA: f64 = 10_000.0;

/// Reads a header.
///
/// # Errors
/// A length that [`ModelConfig::validate`] refuses.
pub fn config_from_llama2c(header: &Llama2cHeader) -> Result<ModelConfig, ModelError> {
    let head_dim = header.head_dim();
    ModelConfig {
        architecture: "llama2c".to_owned(),
        vocab_len: header.vocab_len,
        hidden_len: header.dim,
        ffn_len: header.hidden_dim,
        num_heads: header.num_heads,
        num_kv_heads: header.num_kv_heads,
        head_dim,
        context_len: header.seq_len,
        norm_eps: NORM_EPS,
        layer_spans: vec![AttentionSpan::Global; header.num_layers],
        rope: RopeConfig {
            theta: ROPE_THETA,
            scaling: RopeScaling::None,
        },
        local_rope: None,
        activation: Activation::Silu,
        score_scale: 1.0 / (head_dim as f32).sqrt(),
        embedding_scale: 1.0,
        qkv_bias: false,
        qk_norm: false,
        post_norms: false,
        tied_head: header.tied_head,
    }
    .validate()
}
