//! A checkpoint as a source of weights by role: names, rotary order and Gemma's offset norms are settled here.

use std::collections::{HashMap, HashSet};

use trimtab_checkpoint::{Checkpoint, Format, Tensor};

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::load::WeightSource;
use crate::names::{LayerRole, Role, roles, tensor_name};
use crate::score_head::{SCORE_WEIGHT, is_sequence_classifier};

/// Order of a head's rows in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryOrder {
    /// Dimension `i` is rotated with `i + head_dim / 2`: the order the kernels use.
    Halves,
    /// Dimension `2i` is rotated with `2i + 1` (llama2.c, and Llama in GGUF).
    Interleaved,
}

/// Before the decoder's names in the model hub's multimodal checkpoints.
const DECODER_PREFIX: &str = "language_model.";

/// Weights read from a checkpoint as they are asked for.
#[derive(Debug)]
pub struct CheckpointWeights {
    checkpoint: Checkpoint,
    tensors: HashMap<Role, Tensor>,
    prefix: &'static str,
    head_dim: usize,
    post_norms: bool,
    rotary: RotaryOrder,
    /// 1 where norm weights are stored as `w - 1`.
    norm_offset: f32,
}

impl CheckpointWeights {
    /// Reads `checkpoint`, whose weights are described by `config`.
    ///
    /// # Errors
    /// A tensor that the configuration asks for and the file lacks, or one that the file has and this decoder would
    /// ignore: biases or experts left out silently would make every answer wrong.
    pub fn new(
        checkpoint: Checkpoint,
        config: &ModelConfig,
        rotary: RotaryOrder,
    ) -> Result<Self, ModelError> {
        // GGUF's converter has added the one already.
        let offset = checkpoint.format() == Format::SafeTensors && crate::from_hf::norms_are_offset(config);
        let mut weights = Self {
            tensors: HashMap::new(),
            prefix: decoder_prefix(&checkpoint),
            head_dim: config.head_dim,
            post_norms: config.post_norms,
            rotary,
            norm_offset: if offset { 1.0 } else { 0.0 },
            checkpoint,
        };
        for role in roles(config) {
            let tensor = weights.checkpoint.tensor(&weights.name(role))?;
            weights.tensors.insert(role, tensor);
        }
        weights.refuse_unused(config)?;
        Ok(weights)
    }

    /// The file.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    fn name(&self, role: Role) -> String {
        let name = tensor_name(self.checkpoint.format(), role, self.post_norms);
        format!("{}{name}", self.prefix)
    }

    fn refuse_unused(&self, config: &ModelConfig) -> Result<(), ModelError> {
        let mut known: HashSet<String> = self.tensors.keys().map(|&role| self.name(role)).collect();
        // Some files store the embedding matrix a second time as the head that it is.
        known.insert(self.name(Role::Head));
        if self.checkpoint.config_json().is_some_and(is_sequence_classifier) {
            known.insert(SCORE_WEIGHT.to_owned());
        }
        let is_known =
            |name: &str| known.contains(name) || is_rotary_table(name) || !name.starts_with(self.prefix);
        match self.checkpoint.tensor_names().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(ModelError::UnusedTensor {
                tensor: name.to_owned(),
                architecture: config.architecture.clone(),
            }),
        }
    }

    /// Row of the file that holds row `row` in the kernels' order.
    fn stored_row(&self, role: Role, row: usize) -> usize {
        let rotated = matches!(role, Role::Layer(_, LayerRole::Query | LayerRole::Key));
        if self.rotary == RotaryOrder::Halves || !rotated {
            return row;
        }
        let (head, dim) = (row / self.head_dim, row % self.head_dim);
        let half = self.head_dim / 2;
        head * self.head_dim + 2 * (dim % half) + dim / half
    }
}

/// Multimodal checkpoints keep the decoder beside the encoders, under a prefix.
fn decoder_prefix(checkpoint: &Checkpoint) -> &'static str {
    let embedding = tensor_name(Format::SafeTensors, Role::Embedding, false);
    let is_nested = checkpoint.tensor(&format!("{DECODER_PREFIX}{embedding}")).is_ok();
    if checkpoint.format() == Format::SafeTensors && is_nested {
        DECODER_PREFIX
    } else {
        ""
    }
}

/// Tables that follow from the configuration: divisors read with it, and old files' copies of the frequencies.
fn is_rotary_table(name: &str) -> bool {
    name == "rope_freqs.weight" || name.ends_with(".rotary_emb.inv_freq")
}

impl WeightSource for CheckpointWeights {
    fn shape(&self, role: Role) -> Result<Vec<usize>, ModelError> {
        match self.tensors.get(&role) {
            Some(tensor) => Ok(tensor.shape().to_vec()),
            None => Ok(self.checkpoint.tensor(&self.name(role))?.shape().to_vec()),
        }
    }

    fn read_row(&self, role: Role, row: usize, out: &mut [f32]) {
        let tensor = self
            .tensors
            .get(&role)
            .expect("the loader asks for roles of the configuration only, all of which new() has found");
        tensor.read_row(self.stored_row(role, row), out);
        if self.norm_offset != 0.0 && role.is_norm() {
            for value in out {
                *value += self.norm_offset;
            }
        }
    }

    fn describe(&self, role: Role) -> String {
        self.name(role)
    }

    fn release(&self, role: Role) {
        if let Some(tensor) = self.tensors.get(&role) {
            tensor.release();
        }
    }
}
