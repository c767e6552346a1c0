//! Weights by role as the tensors of a file that is made: names, rotary order and offset norms, the inverse of reading.
//!
//! Knows formats as far as they differ in numbers; how bytes are laid out is `trimtab-checkpoint`'s.

use trimtab_checkpoint::{Dtype, Format, NewTensor, TensorRows};

use crate::config::{ModelConfig, RopeScaling};
use crate::error::ModelError;
use crate::load::WeightSource;
use crate::names::{LayerRole, Role, roles, tensor_name};
use crate::rope::rope_divisors;
use crate::weights::RotaryOrder;

/// Divisors of the rotary frequencies, which GGUF stores as a tensor.
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// The tensors of a file with the weights of a model.
pub struct FileTensors<'a> {
    weights: &'a dyn WeightSource,
    roles: Vec<Role>,
    tensors: Vec<NewTensor>,
    /// Of a GGUF file; the last tensor. `[head_dim / 2]`
    divisors: Option<Vec<f32>>,
    rotary: RotaryOrder,
    head_dim: usize,
    /// Subtracted from norm weights.
    norm_offset: f32,
}

impl<'a> FileTensors<'a> {
    /// All tensors that a decoder of `config` reads from a file of `format`. Matrices are stored in `dtype`; vectors as
    /// well, but in GGUF in F32, as llama.cpp wants them.
    ///
    /// # Errors
    /// A weight that `weights` does not have.
    pub fn new(
        config: &ModelConfig,
        weights: &'a dyn WeightSource,
        format: Format,
        dtype: Dtype,
    ) -> Result<Self, ModelError> {
        // The two formats whose converters permute the rows of Llama's queries and keys.
        let is_llama = matches!(config.architecture.as_str(), "llama" | "llama2c");
        let rotary = match format {
            Format::Llama2c => RotaryOrder::Interleaved,
            Format::Gguf if is_llama => RotaryOrder::Interleaved,
            Format::Gguf | Format::SafeTensors => RotaryOrder::Halves,
        };
        let offset = format == Format::SafeTensors && crate::from_hf::norms_are_offset(config);
        let roles = roles(config);
        let tensor = |&role: &Role| {
            let shape = weights.shape(role)?;
            let is_vector = shape.len() < 2;
            Ok(NewTensor {
                name: tensor_name(format, role, config.post_norms),
                dtype: if is_vector && format == Format::Gguf {
                    Dtype::F32
                } else {
                    dtype
                },
                shape,
            })
        };
        let tensors: Result<Vec<NewTensor>, ModelError> = roles.iter().map(tensor).collect();
        let made = Self {
            weights,
            roles,
            tensors: tensors?,
            divisors: None,
            rotary,
            head_dim: config.head_dim,
            norm_offset: if offset { 1.0 } else { 0.0 },
        };
        Ok(match (format, &config.rope.scaling) {
            (Format::Gguf, RopeScaling::PerFrequency { .. } | RopeScaling::Llama3 { .. }) => {
                made.with_divisors(rope_divisors(&config.rope, config.head_dim))
            }
            _ => made,
        })
    }

    /// With these divisors of the rotary frequencies in place of those that the configuration asks for. `[head_dim / 2]`
    #[must_use]
    pub fn with_divisors(mut self, divisors: Vec<f32>) -> Self {
        self.tensors.truncate(self.roles.len());
        self.tensors.push(NewTensor {
            name: ROPE_DIVISORS.to_owned(),
            shape: vec![divisors.len()],
            dtype: Dtype::F32,
        });
        self.divisors = Some(divisors);
        self
    }

    /// Their names, shapes and types.
    pub fn tensors(&self) -> &[NewTensor] {
        &self.tensors
    }

    /// The roles of the first of them, in the same order.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The engine's row that is row `row` of the file.
    fn engine_row(&self, role: Role, row: usize) -> usize {
        let is_rotated = matches!(role, Role::Layer(_, LayerRole::Query | LayerRole::Key));
        if self.rotary == RotaryOrder::Halves || !is_rotated {
            return row;
        }
        let (head, dim) = (row / self.head_dim, row % self.head_dim);
        head * self.head_dim + (dim % 2) * (self.head_dim / 2) + dim / 2
    }
}

impl TensorRows for FileTensors<'_> {
    fn read_row(&self, tensor_idx: usize, row: usize, out: &mut [f32]) {
        let Some(&role) = self.roles.get(tensor_idx) else {
            return out.copy_from_slice(self.divisors.as_deref().unwrap_or_default());
        };
        self.weights.read_row(role, self.engine_row(role, row), out);
        if self.norm_offset != 0.0 && role.is_norm() {
            for value in out {
                *value -= self.norm_offset;
            }
        }
    }

    fn release(&self, tensor_idx: usize) {
        if let Some(&role) = self.roles.get(tensor_idx) {
            self.weights.release(role);
        }
    }
}
