//! Where each tensor lies in a file: one naming scheme per format. Knows names, not shapes or numbers.

use trimtab_checkpoint::Format;

use crate::config::ModelConfig;

/// A tensor's role in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Token embeddings `[vocab, hidden]`.
    Embedding,
    /// Norm before the output head `[hidden]`.
    FinalNorm,
    /// Output head `[vocab, hidden]`, absent where tied.
    Head,
    /// A tensor of layer `layer`.
    Layer(usize, LayerRole),
}

/// A tensor's role in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// Norm before attention.
    AttentionNorm,
    /// Query projection.
    Query,
    /// Its bias.
    QueryBias,
    /// Key projection.
    Key,
    /// Its bias.
    KeyBias,
    /// Value projection.
    Value,
    /// Its bias.
    ValueBias,
    /// Per-head norm of queries.
    QueryNorm,
    /// Per-head norm of keys.
    KeyNorm,
    /// Attention output projection.
    AttentionOutput,
    /// Norm after attention (Gemma).
    PostAttentionNorm,
    /// Norm before the feed-forward layer.
    FfnNorm,
    /// Gate projection.
    Gate,
    /// Up projection.
    Up,
    /// Down projection.
    Down,
    /// Norm after the feed-forward layer (Gemma).
    PostFfnNorm,
}

impl Role {
    /// Whether this is the weight of an RMS norm.
    pub fn is_norm(self) -> bool {
        use LayerRole::{AttentionNorm, FfnNorm, KeyNorm, PostAttentionNorm, PostFfnNorm, QueryNorm};
        match self {
            Self::FinalNorm => true,
            Self::Layer(_, part) => {
                matches!(
                    part,
                    AttentionNorm | FfnNorm | KeyNorm | PostAttentionNorm | PostFfnNorm | QueryNorm
                )
            }
            Self::Embedding | Self::Head => false,
        }
    }
}

/// The roles of all tensors that a decoder of this configuration reads.
pub fn roles(config: &ModelConfig) -> Vec<Role> {
    use LayerRole as L;
    let mut parts = vec![
        L::AttentionNorm,
        L::Query,
        L::Key,
        L::Value,
        L::AttentionOutput,
        L::FfnNorm,
        L::Gate,
        L::Up,
        L::Down,
    ];
    let optional = [
        (config.qkv_bias, &[L::QueryBias, L::KeyBias, L::ValueBias][..]),
        (config.qk_norm, &[L::QueryNorm, L::KeyNorm]),
        (config.post_norms, &[L::PostAttentionNorm, L::PostFfnNorm]),
    ];
    for (wanted, roles) in optional {
        parts.extend(roles.iter().filter(|_| wanted));
    }
    let mut roles = vec![Role::Embedding, Role::FinalNorm];
    if !config.tied_head {
        roles.push(Role::Head);
    }
    for layer in 0..config.num_layers() {
        roles.extend(parts.iter().map(|&part| Role::Layer(layer, part)));
    }
    roles
}

/// Name of a role's tensor. `post_norms` tells Gemma's scheme apart, where one published name means another norm.
pub fn tensor_name(format: Format, role: Role, post_norms: bool) -> String {
    match format {
        Format::Gguf => gguf_name(role),
        Format::SafeTensors => hf_name(role, post_norms),
        Format::Llama2c => llama2c_name(role),
    }
}

fn gguf_name(role: Role) -> String {
    match role {
        Role::Embedding => "token_embd.weight".to_owned(),
        Role::FinalNorm => "output_norm.weight".to_owned(),
        Role::Head => "output.weight".to_owned(),
        Role::Layer(layer, part) => {
            let suffix = match part {
                LayerRole::AttentionNorm => "attn_norm.weight",
                LayerRole::Query => "attn_q.weight",
                LayerRole::QueryBias => "attn_q.bias",
                LayerRole::Key => "attn_k.weight",
                LayerRole::KeyBias => "attn_k.bias",
                LayerRole::Value => "attn_v.weight",
                LayerRole::ValueBias => "attn_v.bias",
                LayerRole::QueryNorm => "attn_q_norm.weight",
                LayerRole::KeyNorm => "attn_k_norm.weight",
                LayerRole::AttentionOutput => "attn_output.weight",
                LayerRole::PostAttentionNorm => "post_attention_norm.weight",
                LayerRole::FfnNorm => "ffn_norm.weight",
                LayerRole::Gate => "ffn_gate.weight",
                LayerRole::Up => "ffn_up.weight",
                LayerRole::Down => "ffn_down.weight",
                LayerRole::PostFfnNorm => "post_ffw_norm.weight",
            };
            format!("blk.{layer}.{suffix}")
        }
    }
}

fn hf_name(role: Role, post_norms: bool) -> String {
    match role {
        Role::Embedding => "model.embed_tokens.weight".to_owned(),
        Role::FinalNorm => "model.norm.weight".to_owned(),
        Role::Head => "lm_head.weight".to_owned(),
        Role::Layer(layer, part) => {
            let suffix = match part {
                LayerRole::AttentionNorm => "input_layernorm.weight",
                LayerRole::Query => "self_attn.q_proj.weight",
                LayerRole::QueryBias => "self_attn.q_proj.bias",
                LayerRole::Key => "self_attn.k_proj.weight",
                LayerRole::KeyBias => "self_attn.k_proj.bias",
                LayerRole::Value => "self_attn.v_proj.weight",
                LayerRole::ValueBias => "self_attn.v_proj.bias",
                LayerRole::QueryNorm => "self_attn.q_norm.weight",
                LayerRole::KeyNorm => "self_attn.k_norm.weight",
                LayerRole::AttentionOutput => "self_attn.o_proj.weight",
                // In Llama and Qwen this name is the norm *before* the feed-forward layer.
                LayerRole::FfnNorm if !post_norms => "post_attention_layernorm.weight",
                LayerRole::FfnNorm => "pre_feedforward_layernorm.weight",
                LayerRole::PostAttentionNorm => "post_attention_layernorm.weight",
                LayerRole::Gate => "mlp.gate_proj.weight",
                LayerRole::Up => "mlp.up_proj.weight",
                LayerRole::Down => "mlp.down_proj.weight",
                LayerRole::PostFfnNorm => "post_feedforward_layernorm.weight",
            };
            format!("model.layers.{layer}.{suffix}")
        }
    }
}

/// llama2.c has neither biases nor per-head or post norms; asking for one gives a name that no file carries.
fn llama2c_name(role: Role) -> String {
    match role {
        Role::Embedding => "tok_embeddings.weight".to_owned(),
        Role::FinalNorm => "norm.weight".to_owned(),
        Role::Head => "output.weight".to_owned(),
        Role::Layer(layer, part) => {
            let suffix = match part {
                LayerRole::AttentionNorm => "attention_norm.weight",
                LayerRole::Query => "attention.wq.weight",
                LayerRole::Key => "attention.wk.weight",
                LayerRole::Value => "attention.wv.weight",
                LayerRole::AttentionOutput => "attention.wo.weight",
                LayerRole::FfnNorm => "ffn_norm.weight",
                LayerRole::Gate => "feed_forward.w1.weight",
                LayerRole::Down => "feed_forward.w2.weight",
                LayerRole::Up => "feed_forward.w3.weight",
                LayerRole::QueryBias | LayerRole::KeyBias | LayerRole::ValueBias => "attention.bias",
                LayerRole::QueryNorm | LayerRole::KeyNorm => "attention.head_norm.weight",
                LayerRole::PostAttentionNorm | LayerRole::PostFfnNorm => "post_norm.weight",
            };
            format!("layers.{layer}.{suffix}")
        }
    }
}
