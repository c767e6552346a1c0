//! From a source of weights to a decoder on the tape: each weight frozen, adapted or trained, as the depth says.
//!
//! Knows no file format.

use burn::tensor::{Device, Tensor, TensorData};
use trimtab_base::Seed;
use trimtab_model::ModelError;
use trimtab_model::config::ModelConfig;
use trimtab_model::load::WeightSource;
use trimtab_model::names::{LayerRole, Role};

use super::attention::Attention;
use super::error::DecoderError;
use super::layer::{DecoderLayer, FeedForward};
use super::linear::{Adapter, Linear};
use super::lora::{Depth, initial_down};
use super::model::Decoder;
use super::norm::RmsNorm;
use super::weight::Weight;

/// What of a model is loaded, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderOptions {
    /// Which weights are trained.
    pub depth: Depth,
    /// Whether logits will be asked for; scorers need none.
    pub with_head: bool,
    /// Seed of the adapters' initial values.
    pub seed: Seed,
}

impl Decoder {
    /// Reads the weights of `source` onto `device`, which must have autodiff for anything but a frozen decoder.
    ///
    /// # Errors
    /// A tensor that is missing or whose shape contradicts `config`; adapters that cannot be.
    pub fn load(
        config: ModelConfig,
        source: &dyn WeightSource,
        options: &DecoderOptions,
        device: &Device,
    ) -> Result<Self, DecoderError> {
        let config = config.validate()?;
        if let Depth::Lora(lora) = &options.depth {
            lora.validate()?;
        }
        let loader = Loader {
            config: &config,
            source,
            options,
            device,
        };
        let layers = (0..config.num_layers())
            .map(|idx| loader.layer(idx))
            .collect::<Result<Vec<_>, _>>()?;
        let table = |role| loader.table(role, config.vocab_len, config.hidden_len);
        Ok(Self {
            embedding: table(Role::Embedding)?,
            head: (options.with_head && !config.tied_head)
                .then(|| table(Role::Head))
                .transpose()?,
            final_norm: loader.norm(Role::FinalNorm, config.hidden_len)?,
            layers,
            device: device.clone(),
            config,
        })
    }
}

/// Position of a role in one numbering of all roles, so that no two adapters begin alike.
fn role_idx(role: Role) -> u64 {
    match role {
        Role::Embedding => 0,
        Role::FinalNorm => 1,
        Role::Head => 2,
        Role::Layer(layer, part) => 64 * (layer as u64 + 1) + part as u64,
    }
}

struct Loader<'a> {
    config: &'a ModelConfig,
    source: &'a dyn WeightSource,
    options: &'a DecoderOptions,
    device: &'a Device,
}

impl Loader<'_> {
    fn layer(&self, idx: usize) -> Result<DecoderLayer, DecoderError> {
        let config = self.config;
        let hidden_len = config.hidden_len;
        let norm = |part| self.norm(Role::Layer(idx, part), hidden_len);
        let post_norm = |part| config.post_norms.then(|| norm(part)).transpose();
        let linear = |part, in_len, out_len| self.linear(Role::Layer(idx, part), in_len, out_len, None);
        Ok(DecoderLayer {
            attention_norm: norm(LayerRole::AttentionNorm)?,
            attention: self.attention(idx)?,
            post_attention_norm: post_norm(LayerRole::PostAttentionNorm)?,
            ffn_norm: norm(LayerRole::FfnNorm)?,
            ffn: FeedForward {
                gate: linear(LayerRole::Gate, hidden_len, config.ffn_len)?,
                up: linear(LayerRole::Up, hidden_len, config.ffn_len)?,
                down: linear(LayerRole::Down, config.ffn_len, hidden_len)?,
                activation: config.activation,
            },
            post_ffn_norm: post_norm(LayerRole::PostFfnNorm)?,
        })
    }

    fn attention(&self, idx: usize) -> Result<Attention, DecoderError> {
        let config = self.config;
        let (q_len, kv_len) = (
            config.num_heads * config.head_dim,
            config.num_kv_heads * config.head_dim,
        );
        let projection = |part, bias, out_len| {
            let bias = config.qkv_bias.then_some(Role::Layer(idx, bias));
            self.linear(Role::Layer(idx, part), config.hidden_len, out_len, bias)
        };
        let head_norm = |part| {
            let norm = || self.norm(Role::Layer(idx, part), config.head_dim);
            config.qk_norm.then(norm).transpose()
        };
        Ok(Attention {
            query: projection(LayerRole::Query, LayerRole::QueryBias, q_len)?,
            key: projection(LayerRole::Key, LayerRole::KeyBias, kv_len)?,
            value: projection(LayerRole::Value, LayerRole::ValueBias, kv_len)?,
            output: self.linear(
                Role::Layer(idx, LayerRole::AttentionOutput),
                q_len,
                config.hidden_len,
                None,
            )?,
            query_norm: head_norm(LayerRole::QueryNorm)?,
            key_norm: head_norm(LayerRole::KeyNorm)?,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
        })
    }

    fn norm(&self, role: Role, len: usize) -> Result<RmsNorm, DecoderError> {
        Ok(RmsNorm {
            weight: self.vector(role, len)?,
            eps: f64::from(self.config.norm_eps),
        })
    }

    fn linear(
        &self,
        role: Role,
        in_len: usize,
        out_len: usize,
        bias: Option<Role>,
    ) -> Result<Linear, DecoderError> {
        self.expect_shape(role, &[out_len, in_len])?;
        let mut values = vec![0.0; in_len * out_len];
        let mut row = vec![0.0; in_len];
        for out_idx in 0..out_len {
            self.source.read_row(role, out_idx, &mut row);
            for (in_idx, &value) in row.iter().enumerate() {
                values[in_idx * out_len + out_idx] = value;
            }
        }
        self.source.release(role);
        let matrix = Tensor::from_data(TensorData::new(values, [in_len, out_len]), self.device);
        Ok(Linear {
            matrix: self.weight(matrix),
            bias: bias.map(|role| self.vector(role, out_len)).transpose()?,
            adapter: self.adapter(role, in_len, out_len)?,
        })
    }

    fn adapter(&self, role: Role, in_len: usize, out_len: usize) -> Result<Option<Adapter>, DecoderError> {
        let (Depth::Lora(lora), Role::Layer(_, part)) = (&self.options.depth, role) else {
            return Ok(None);
        };
        if !lora.targets.iter().any(|target| target.role() == part) {
            return Ok(None);
        }
        if lora.rank > in_len.min(out_len) {
            return Err(DecoderError::BadLora {
                field: "rank",
                value: lora.rank.to_string(),
                expected: "at most the smaller side of every target matrix",
            });
        }
        let down = initial_down(self.options.seed, role_idx(role), in_len, lora.rank);
        let down = Tensor::from_data(TensorData::new(down, [in_len, lora.rank]), self.device);
        let up = Tensor::zeros([lora.rank, out_len], self.device);
        Ok(Some(Adapter::new(down, up, lora.alpha / lora.rank as f64)))
    }

    /// A matrix in the order of the file. `[num_rows, len]`
    fn table(&self, role: Role, num_rows: usize, len: usize) -> Result<Weight<2>, DecoderError> {
        self.expect_shape(role, &[num_rows, len])?;
        let mut values = vec![0.0; num_rows * len];
        for (idx, row) in values.chunks_exact_mut(len).enumerate() {
            self.source.read_row(role, idx, row);
        }
        self.source.release(role);
        let table = Tensor::from_data(TensorData::new(values, [num_rows, len]), self.device);
        Ok(self.weight(table))
    }

    fn vector(&self, role: Role, len: usize) -> Result<Weight<1>, DecoderError> {
        self.expect_shape(role, &[len])?;
        let mut values = vec![0.0; len];
        self.source.read_row(role, 0, &mut values);
        let vector = Tensor::from_data(TensorData::new(values, [len]), self.device);
        Ok(self.weight(vector))
    }

    fn weight<const D: usize>(&self, value: Tensor<D>) -> Weight<D> {
        match self.options.depth {
            Depth::Full => Weight::trained(value),
            Depth::Frozen | Depth::Lora(_) => Weight::Frozen(value),
        }
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
