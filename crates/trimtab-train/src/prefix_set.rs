//! A prefix set: what a scorer learns from, as files. Hidden states and expected token features of every prefix of
//! every response, with its reward.
//!
//! A set is a folder of safetensors shards and a manifest that names them with their checksums. It is written in the
//! order of pushing, a shard at a time, and a writer that was killed goes on after its last whole shard. States are
//! stored in f16, because a set of 100,000 prefixes of a 576-wide model is 115 MB so and 230 MB in f32, and the state's
//! noise is far below the reward's.
//!
//! Knows nothing of models or of texts: whoever pushes has run the model.

mod reader;
mod shard;
mod writer;

use serde::{Deserialize, Serialize};

pub use reader::PrefixSet;
pub use shard::Shard;
pub use writer::PrefixSetWriter;

/// Version of the manifest and of the shards' layout.
pub const PREFIX_SET_VERSION: u32 = 1;

/// The manifest's name inside the folder.
pub const MANIFEST_NAME: &str = "prefix_set.json";

/// One response as the model saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseFeatures {
    /// Hidden states `h_0..h_T` after the final norm: `h_0` at the prompt's last token, `h_T` at the response's last.
    /// `[T + 1, hidden_len]`
    pub hidden: Vec<f32>,
    /// `e_t = sum_z pi_ref(z | y^t) F[z]`, the reference's expected token features after each prefix.
    /// `[T + 1, feature_len]`; empty where the header's `feature_len` is 0.
    pub expected_features: Vec<f32>,
    /// Response tokens `y_1..y_T`, the end token included if it was drawn. `[T]`
    pub token_ids: Vec<u32>,
    /// The whole response's reward `r(x, y)`, in the header's unit.
    pub reward: f64,
    /// Identity of the prompt: training and evaluation never share one.
    pub key: u64,
}

impl ResponseFeatures {
    /// Number of prefixes `T + 1`, the empty one included.
    pub fn num_prefixes(&self) -> usize {
        self.token_ids.len() + 1
    }
}

/// What a prefix set was made from; two sets with one header hold the same numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixSetHeader {
    /// Name of the model whose states these are.
    pub base_name: String,
    /// Hash of that model's weights.
    pub base_sha256: String,
    /// Precision it ran in, e.g. "int8".
    pub precision: String,
    /// Width of its hidden states.
    pub hidden_len: usize,
    /// Size of its vocabulary.
    pub vocab_len: usize,
    /// Width of the token features; 0 if there are none (then only state values can be trained).
    pub feature_len: usize,
    /// Hash of the token features; empty if there are none.
    pub features_sha256: String,
    /// Hash of the rollouts' content.
    pub rollouts_sha256: String,
    /// Name of the reward.
    pub reward: String,
    /// Unit of the reward.
    pub reward_unit: String,
}

/// One shard as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name inside the folder.
    pub file: String,
    /// Hash of the file.
    pub sha256: String,
    /// Size of the file.
    pub num_bytes: u64,
    /// Responses in it.
    pub num_responses: u64,
    /// Prefixes in it.
    pub num_prefixes: u64,
}

/// The manifest file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) format_version: u32,
    pub(crate) complete: bool,
    pub(crate) header: PrefixSetHeader,
    pub(crate) shards: Vec<ShardEntry>,
}
