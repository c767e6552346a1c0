//! Random weights for any configuration: tests and benchmarks run the real code without a file.

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::load::WeightSource;
use crate::names::{LayerRole, Role};

/// Weights that are a pure function of (seed, role, row, column).
#[derive(Debug, Clone)]
pub struct SyntheticWeights {
    config: ModelConfig,
    seed: u64,
}

impl SyntheticWeights {
    /// Weights for `config`.
    pub fn new(config: ModelConfig, seed: u64) -> Self {
        Self { config, seed }
    }

    /// Position of a role in one numbering of all roles, so that no two tensors share values.
    fn role_idx(role: Role) -> u64 {
        match role {
            Role::Embedding => 0,
            Role::FinalNorm => 1,
            Role::Head => 2,
            Role::Layer(layer, part) => 64 * (layer as u64 + 1) + part as u64,
        }
    }
}

impl WeightSource for SyntheticWeights {
    fn shape(&self, role: Role) -> Result<Vec<usize>, ModelError> {
        let config = &self.config;
        let (q_len, kv_len) = (
            config.num_heads * config.head_dim,
            config.num_kv_heads * config.head_dim,
        );
        let (hidden, ffn) = (config.hidden_len, config.ffn_len);
        Ok(match role {
            Role::Embedding | Role::Head => vec![config.vocab_len, hidden],
            Role::FinalNorm => vec![hidden],
            Role::Layer(_, part) => match part {
                LayerRole::AttentionNorm
                | LayerRole::FfnNorm
                | LayerRole::PostAttentionNorm
                | LayerRole::PostFfnNorm => vec![hidden],
                LayerRole::QueryNorm | LayerRole::KeyNorm => vec![config.head_dim],
                LayerRole::Query => vec![q_len, hidden],
                LayerRole::Key | LayerRole::Value => vec![kv_len, hidden],
                LayerRole::QueryBias => vec![q_len],
                LayerRole::KeyBias | LayerRole::ValueBias => vec![kv_len],
                LayerRole::AttentionOutput => vec![hidden, q_len],
                LayerRole::Gate | LayerRole::Up => vec![ffn, hidden],
                LayerRole::Down => vec![hidden, ffn],
            },
        })
    }

    fn read_row(&self, role: Role, row: usize, out: &mut [f32]) {
        // Scaled so that activations keep their size through the layers, as trained weights do.
        let scale = 1.7 / (out.len() as f32).sqrt();
        let start = mix(self.seed ^ mix(Self::role_idx(role) << 32 | row as u64));
        for (column, value) in out.iter_mut().enumerate() {
            let bits = mix(start.wrapping_add(column as u64));
            let uniform = (bits >> 40) as f32 / (1_u64 << 24) as f32 * 2.0 - 1.0;
            *value = if role.is_norm() {
                1.0 + 0.2 * uniform
            } else {
                scale * uniform
            };
        }
    }

    fn release(&self, _role: Role) {}
}

/// The finaliser of `SplitMix64`.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
