//! One shard: several whole responses as tensors in one safetensors file, and back. Knows no manifest.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use burn::tensor::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{PrefixSetHeader, ResponseFeatures};
use crate::error::TrainError;

/// Some responses of a prefix set in memory, states still in f16.
#[derive(Debug, Clone, Default)]
pub struct Shard {
    /// `[prefixes, hidden_len]`
    hidden: Vec<f16>,
    /// `[prefixes, feature_len]`
    expected_features: Vec<f32>,
    /// Tokens of all responses in a row. `[prefixes - responses]`
    token_ids: Vec<u32>,
    /// Where each response's prefixes begin, and their total at the end. `[responses + 1]`
    starts: Vec<u64>,
    /// `[responses]`
    rewards: Vec<f64>,
    /// `[responses]`
    keys: Vec<u64>,
}

impl Shard {
    /// An empty shard to push into.
    pub(super) fn new() -> Self {
        Self {
            starts: vec![0],
            ..Self::default()
        }
    }

    /// Adds a response that was checked against the header; narrows its states to f16.
    pub(super) fn push(&mut self, response: &ResponseFeatures) {
        self.hidden
            .extend(response.hidden.iter().map(|&value| f16::from_f32(value)));
        self.expected_features
            .extend_from_slice(&response.expected_features);
        self.token_ids.extend_from_slice(&response.token_ids);
        let end = self.num_prefixes() + response.num_prefixes();
        self.starts.push(end as u64);
        self.rewards.push(response.reward);
        self.keys.push(response.key);
    }

    /// Number of responses.
    pub fn num_responses(&self) -> usize {
        self.rewards.len()
    }

    /// Number of prefixes of all responses.
    pub fn num_prefixes(&self) -> usize {
        self.starts.last().copied().unwrap_or_default() as usize
    }

    /// Memory of the decoded shard in bytes.
    pub fn num_bytes(&self) -> u64 {
        (self.hidden.len() * 2 + self.expected_features.len() * 4 + self.token_ids.len() * 4) as u64
    }

    /// The rows of response `idx`'s prefixes `t = 0..=T`.
    pub fn prefixes(&self, idx: usize) -> Range<usize> {
        self.starts[idx] as usize..self.starts[idx + 1] as usize
    }

    /// Hidden states of response `idx`. `[T + 1, hidden_len]`
    pub fn hidden(&self, idx: usize) -> &[f16] {
        let width = self.hidden.len() / self.num_prefixes().max(1);
        let rows = self.prefixes(idx);
        &self.hidden[rows.start * width..rows.end * width]
    }

    /// Expected token features of response `idx`. `[T + 1, feature_len]`
    pub fn expected_features(&self, idx: usize) -> &[f32] {
        let width = self.expected_features.len() / self.num_prefixes().max(1);
        let rows = self.prefixes(idx);
        &self.expected_features[rows.start * width..rows.end * width]
    }

    /// Tokens of response `idx`. `[T]`
    pub fn token_ids(&self, idx: usize) -> &[u32] {
        let rows = self.prefixes(idx);
        // Each response before this one has one token less than prefixes.
        &self.token_ids[rows.start - idx..rows.end - idx - 1]
    }

    /// Reward of response `idx`.
    pub fn reward(&self, idx: usize) -> f64 {
        self.rewards[idx]
    }

    /// Prompt of response `idx`.
    pub fn key(&self, idx: usize) -> u64 {
        self.keys[idx]
    }

    /// The shard as the bytes of a safetensors file.
    pub(super) fn to_bytes(&self, header: &PrefixSetHeader, path: &Path) -> Result<Vec<u8>, TrainError> {
        let prefixes = self.num_prefixes();
        let tensors = [
            (
                "hidden",
                Dtype::F16,
                vec![prefixes, header.hidden_len],
                le_bytes(&self.hidden, f16::to_le_bytes),
            ),
            (
                "expected_features",
                Dtype::F32,
                vec![prefixes, header.feature_len],
                le_bytes(&self.expected_features, f32::to_le_bytes),
            ),
            (
                "token_ids",
                Dtype::U32,
                vec![self.token_ids.len()],
                le_bytes(&self.token_ids, u32::to_le_bytes),
            ),
            (
                "response_starts",
                Dtype::U64,
                vec![self.starts.len()],
                le_bytes(&self.starts, u64::to_le_bytes),
            ),
            (
                "rewards",
                Dtype::F64,
                vec![self.rewards.len()],
                le_bytes(&self.rewards, f64::to_le_bytes),
            ),
            (
                "prompt_keys",
                Dtype::U64,
                vec![self.keys.len()],
                le_bytes(&self.keys, u64::to_le_bytes),
            ),
        ];
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (*name, view))
        });
        views
            .collect::<Result<Vec<_>, _>>()
            .and_then(|views| safetensors::serialize(views, None))
            .map_err(|error| TrainError::bad_file(path, error.to_string()))
    }

    /// Reads a shard from the bytes of a file whose checksum was right; still refuses what does not fit together.
    pub(super) fn from_bytes(
        bytes: &[u8],
        header: &PrefixSetHeader,
        path: &Path,
    ) -> Result<Self, TrainError> {
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|error| TrainError::bad_file(path, error.to_string()))?;
        let read = |name, dtype| tensor_bytes(&tensors, name, dtype, path);
        let shard = Self {
            hidden: from_le(&read("hidden", Dtype::F16)?, f16::from_le_bytes),
            expected_features: from_le(&read("expected_features", Dtype::F32)?, f32::from_le_bytes),
            token_ids: from_le(&read("token_ids", Dtype::U32)?, u32::from_le_bytes),
            starts: from_le(&read("response_starts", Dtype::U64)?, u64::from_le_bytes),
            rewards: from_le(&read("rewards", Dtype::F64)?, f64::from_le_bytes),
            keys: from_le(&read("prompt_keys", Dtype::U64)?, u64::from_le_bytes),
        };
        match shard.problem(header) {
            None => Ok(shard),
            Some(problem) => Err(TrainError::bad_file(path, problem)),
        }
    }

    /// What contradicts itself in the shard, if anything does.
    fn problem(&self, header: &PrefixSetHeader) -> Option<String> {
        let (responses, prefixes) = (self.num_responses(), self.num_prefixes());
        // Rising by at least one, since every response has the empty prefix.
        let rising = self.starts.first() == Some(&0) && self.starts.windows(2).all(|pair| pair[0] < pair[1]);
        let expected = [
            ("response_starts", self.starts.len(), Some(responses + 1)),
            ("prompt_keys", self.keys.len(), Some(responses)),
            (
                "hidden",
                self.hidden.len(),
                prefixes.checked_mul(header.hidden_len),
            ),
            (
                "expected_features",
                self.expected_features.len(),
                prefixes.checked_mul(header.feature_len),
            ),
            ("token_ids", self.token_ids.len(), prefixes.checked_sub(responses)),
        ];
        if !rising {
            return Some("response_starts does not begin at 0 and rise".to_owned());
        }
        expected
            .iter()
            .find(|(_, got, expected)| Some(*got) != *expected)
            .map(|(name, got, _)| {
                format!(
                    "{name} has {got} values, which do not fit {responses} responses of {prefixes} prefixes"
                )
            })
    }
}

fn le_bytes<T: Copy, const N: usize>(values: &[T], to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| to(value)).collect()
}

fn from_le<T, const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|chunk| from(*chunk)).collect()
}

fn tensor_bytes<'a>(
    tensors: &SafeTensors<'a>,
    name: &'static str,
    dtype: Dtype,
    path: &Path,
) -> Result<Cow<'a, [u8]>, TrainError> {
    let tensor = tensors
        .tensor(name)
        .map_err(|error| TrainError::bad_file(path, error.to_string()))?;
    if tensor.dtype() != dtype {
        let problem = format!("{name} is {:?}, expected {dtype:?}", tensor.dtype());
        return Err(TrainError::bad_file(path, problem));
    }
    Ok(Cow::Borrowed(tensor.data()))
}
