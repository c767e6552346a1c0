//! From a source of weights to a model ready to run: checks shapes, concatenates projections, packs for the kernels.
//!
//! Knows no file format (a [`WeightSource`] answers by role) and no forward pass.

use std::sync::Arc;

use trimtab_kernels::gemm::{Linear, Precision};
use trimtab_kernels::kv_cache::KvLayout;
use trimtab_kernels::pool::Pool;
use trimtab_kernels::rope::RopeTable;

use crate::config::{AttentionSpan, ModelConfig};
use crate::error::ModelError;
use crate::names::{LayerRole, Role};
use crate::precision::PrecisionPlan;
use crate::rope::rope_frequencies;

/// Weights by role, whatever the file they come from. Query and key rows are in the half-split rotary order.
pub trait WeightSource: Send + Sync {
    /// Shape `[out, in]` of a matrix or `[len]` of a vector.
    fn shape(&self, role: Role) -> Result<Vec<usize>, ModelError>;

    /// Writes row `row` of the tensor to `out`; a vector is its own row 0. The row and length must fit [`Self::shape`].
    fn read_row(&self, role: Role, row: usize, out: &mut [f32]);

    /// The tensor's name for messages.
    fn describe(&self, role: Role) -> String {
        format!("{role:?}")
    }

    /// Says that a tensor will not be read again soon, so that its pages may leave memory.
    fn release(&self, role: Role);
}

/// Weights of one layer.
pub(crate) struct Layer {
    pub(crate) span: AttentionSpan,
    pub(crate) attention_norm: Vec<f32>,
    /// `[(heads + 2 kv_heads) * head_dim, hidden]`: query, key and value rows in one matrix.
    pub(crate) qkv: Linear,
    pub(crate) query_norm: Option<Vec<f32>>,
    pub(crate) key_norm: Option<Vec<f32>>,
    pub(crate) attention_output: Linear,
    pub(crate) post_attention_norm: Option<Vec<f32>>,
    pub(crate) ffn_norm: Vec<f32>,
    /// `[2 * ffn, hidden]`: gate rows, then up rows.
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
    pub(crate) post_ffn_norm: Option<Vec<f32>>,
}

/// A decoder ready to run.
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) plan: PrecisionPlan,
    pub(crate) source: Arc<dyn WeightSource>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Vec<f32>,
    pub(crate) head: Linear,
    pub(crate) rope: RopeTable,
    pub(crate) local_rope: Option<RopeTable>,
}

impl Model {
    /// Packs the weights of `source` in the precisions of `plan`, in parallel on `pool`.
    ///
    /// Embedding rows are not packed: they are read from the source as they are needed, exactly as stored.
    ///
    /// # Errors
    /// A tensor that is missing or whose shape contradicts `config`.
    pub fn load(
        config: ModelConfig,
        source: Arc<dyn WeightSource>,
        plan: PrecisionPlan,
        pool: &Pool,
    ) -> Result<Self, ModelError> {
        let config = config.validate()?;
        let packer = Packer {
            config: &config,
            source: source.as_ref(),
            pool,
        };
        packer.expect_shape(Role::Embedding, &[config.vocab_len, config.hidden_len])?;
        let layers = (0..config.num_layers())
            .map(|idx| packer.layer(idx, plan))
            .collect::<Result<Vec<_>, _>>()?;
        let head_role = if config.tied_head {
            Role::Embedding
        } else {
            Role::Head
        };
        let head = packer.linear(
            &[(head_role, config.vocab_len)],
            config.hidden_len,
            plan.head,
            None,
        )?;
        let final_norm = packer.vector(Role::FinalNorm, config.hidden_len)?;
        let table = |rope| {
            let frequencies = rope_frequencies(rope, config.head_dim);
            RopeTable::new(&frequencies.inv_freq, frequencies.attention_factor)
        };
        Ok(Self {
            rope: table(&config.rope),
            local_rope: config.local_rope.as_ref().map(table),
            layers,
            final_norm,
            head,
            plan,
            source,
            config,
        })
    }

    /// What the weights are.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Precision of each kind of layer.
    pub fn plan(&self) -> &PrecisionPlan {
        &self.plan
    }

    /// Layout of the key/value blocks that [`Model::forward`] reads and writes.
    pub fn kv_layout(&self) -> KvLayout {
        KvLayout {
            num_layers: self.config.num_layers(),
            num_kv_heads: self.config.num_kv_heads,
            head_dim: self.config.head_dim,
            storage: self.plan.kv,
        }
    }

    /// Bytes of packed weights, which every decoding step reads once.
    pub fn packed_bytes(&self) -> usize {
        let layer_bytes = |layer: &Layer| {
            [&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down]
                .map(Linear::size_bytes)
                .iter()
                .sum::<usize>()
        };
        self.layers.iter().map(layer_bytes).sum::<usize>() + self.head.size_bytes()
    }
}

/// Reads, checks and packs.
struct Packer<'a> {
    config: &'a ModelConfig,
    source: &'a dyn WeightSource,
    pool: &'a Pool,
}

impl Packer<'_> {
    fn layer(&self, idx: usize, plan: PrecisionPlan) -> Result<Layer, ModelError> {
        let config = self.config;
        let role = |part| Role::Layer(idx, part);
        let (q_len, kv_len) = (
            config.num_heads * config.head_dim,
            config.num_kv_heads * config.head_dim,
        );
        let qkv_parts = [
            (role(LayerRole::Query), q_len),
            (role(LayerRole::Key), kv_len),
            (role(LayerRole::Value), kv_len),
        ];
        let qkv_bias = if config.qkv_bias {
            let mut bias = self.vector(role(LayerRole::QueryBias), q_len)?;
            bias.extend(self.vector(role(LayerRole::KeyBias), kv_len)?);
            bias.extend(self.vector(role(LayerRole::ValueBias), kv_len)?);
            Some(bias)
        } else {
            None
        };
        let gate_up = [
            (role(LayerRole::Gate), config.ffn_len),
            (role(LayerRole::Up), config.ffn_len),
        ];
        let optional = |wanted: bool, part, len| wanted.then(|| self.vector(role(part), len)).transpose();
        Ok(Layer {
            span: config.layer_spans[idx],
            attention_norm: self.vector(role(LayerRole::AttentionNorm), config.hidden_len)?,
            qkv: self.linear(&qkv_parts, config.hidden_len, plan.qkv, qkv_bias)?,
            query_norm: optional(config.qk_norm, LayerRole::QueryNorm, config.head_dim)?,
            key_norm: optional(config.qk_norm, LayerRole::KeyNorm, config.head_dim)?,
            attention_output: self.linear(
                &[(role(LayerRole::AttentionOutput), config.hidden_len)],
                q_len,
                plan.attention_output,
                None,
            )?,
            post_attention_norm: optional(
                config.post_norms,
                LayerRole::PostAttentionNorm,
                config.hidden_len,
            )?,
            ffn_norm: self.vector(role(LayerRole::FfnNorm), config.hidden_len)?,
            gate_up: self.linear(&gate_up, config.hidden_len, plan.gate_up, None)?,
            down: self.linear(
                &[(role(LayerRole::Down), config.hidden_len)],
                config.ffn_len,
                plan.down,
                None,
            )?,
            post_ffn_norm: optional(config.post_norms, LayerRole::PostFfnNorm, config.hidden_len)?,
        })
    }

    /// One packed matrix whose rows are those of `parts` (role, number of rows), one after the other.
    fn linear(
        &self,
        parts: &[(Role, usize)],
        in_len: usize,
        precision: Precision,
        bias: Option<Vec<f32>>,
    ) -> Result<Linear, ModelError> {
        for &(role, num_rows) in parts {
            self.expect_shape(role, &[num_rows, in_len])?;
        }
        let out_len = parts.iter().map(|&(_, num_rows)| num_rows).sum();
        let fill = |out_idx: usize, row: &mut [f32]| {
            let mut row_idx = out_idx;
            for &(role, num_rows) in parts {
                if row_idx < num_rows {
                    return self.source.read_row(role, row_idx, row);
                }
                row_idx -= num_rows;
            }
        };
        let linear = Linear::pack(self.pool, precision, in_len, out_len, &fill, bias);
        for &(role, _) in parts {
            self.source.release(role);
        }
        Ok(linear)
    }

    fn vector(&self, role: Role, len: usize) -> Result<Vec<f32>, ModelError> {
        self.expect_shape(role, &[len])?;
        let mut values = vec![0.0; len];
        self.source.read_row(role, 0, &mut values);
        Ok(values)
    }

    fn expect_shape(&self, role: Role, expected: &[usize]) -> Result<(), ModelError> {
        let got = self.source.shape(role)?;
        if got == expected {
            return Ok(());
        }
        Err(ModelError::BadShape {
            tensor: self.source.describe(role),
            expected: expected.to_vec(),
            got,
        })
    }
}
