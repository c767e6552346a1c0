//! Moves outliers of activations into the weights, so that 8 bits are enough for both. Knows roles and ranges, no
//! precision: what it gives is a source of weights like any other, for the same function.
//!
//! A few channels of a transformer's activations are tens of times larger than the rest. With one scale per row they
//! cost all others their precision; in weights, which have no such channels, there is room for them. Dividing channel
//! `j` of a projection's input by `s_j` and multiplying column `j` of its weights by `s_j` changes nothing in exact
//! arithmetic, and the division is free where a norm comes before: it is done to the *norm's* weights once, here.
//! Smoothed are the inputs of query/key/value and of gate/up. The input of down could be smoothed through the rows of
//! up, which was tried and helped little: its outliers are in other channels for each token. The head's could only be
//! smoothed through the final norm, whose output scorers read. Both are better served by wider activations.
//!
//! The method of `SmoothQuant` (arXiv 2211.10438): `s_j = max|x_j|^strength / max|w_j|^(1 - strength)`.
//! Differs: each `s_j` is rounded to a power of two, so that in f32 the smoothed model gives the same bits as the
//! original, and so that the last bits of a range, which differ between processors, do not change the weights; and
//! ranges come from a short text when a model is loaded, instead of from a data set beforehand.

use std::sync::{Arc, OnceLock};

use trimtab_base::TokenId;
use trimtab_kernels::gemm::Precision;
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache, KvStorage};
use trimtab_kernels::pool::Pool;

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::forward::{BatchRow, ForwardOutput, RowInput, Workspace};
use crate::load::{Model, WeightSource};
use crate::names::{LayerRole, Role};
use crate::precision::PrecisionPlan;

/// Share of the difficulty that moves from activations to weights, in `[0, 1]`.
///
/// On SmolLM2-135M and held-out text, 0.4 to 0.8 were tried (`trimtab bench precision`): 0.6 and 0.7 are best and alike.
const STRENGTH: f64 = 0.65;
/// Largest exponent of a factor either way: far beyond what ranges ask for, far from where f32 ends.
const MAX_EXPONENT: f64 = 24.0;
/// Positions of one calibration pass.
const CHUNK: usize = 128;

/// Largest magnitudes seen at the inputs of one layer's smoothed projections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerRanges {
    /// Input of query, key and value. `[hidden]`
    pub attention: Vec<f32>,
    /// Input of gate and up. `[hidden]`
    pub ffn: Vec<f32>,
}

impl LayerRanges {
    /// Widens `ranges` by rows of values. `[channels]`, `[rows, channels]`
    pub(crate) fn widen(ranges: &mut Vec<f32>, values: &[f32], num_channels: usize) {
        ranges.resize(num_channels, 0.0);
        for row in values.chunks_exact(num_channels) {
            for (range, value) in ranges.iter_mut().zip(row) {
                *range = range.max(value.abs());
            }
        }
    }
}

/// Exponents of two by which one layer's input channels are divided.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LayerExponents {
    attention: Vec<i8>,
    ffn: Vec<i8>,
}

/// Weights of the same function whose activations have no outliers.
pub struct SmoothedWeights {
    inner: Arc<dyn WeightSource>,
    layers: Vec<LayerExponents>,
}

impl SmoothedWeights {
    /// Smooths `inner` by the ranges that its activations have on `calibration`, one text's token ids.
    ///
    /// # Errors
    /// As [`Model::load`]; a token outside the vocabulary. An empty calibration smooths nothing.
    pub fn calibrate(
        config: &ModelConfig,
        inner: Arc<dyn WeightSource>,
        calibration: &[TokenId],
        pool: &Pool,
    ) -> Result<Self, ModelError> {
        let ranges = measure_ranges(config, Arc::clone(&inner), calibration, pool)?;
        Ok(Self::from_ranges(config, inner, &ranges, pool))
    }

    /// Smooths `inner` for activations of the given ranges, one entry a layer.
    pub fn from_ranges(
        config: &ModelConfig,
        inner: Arc<dyn WeightSource>,
        ranges: &[LayerRanges],
        pool: &Pool,
    ) -> Self {
        let slots: Vec<OnceLock<LayerExponents>> = ranges.iter().map(|_| OnceLock::new()).collect();
        pool.run(ranges.len(), &|idx| {
            // Each task sets its own slot once, so a slot that is already set cannot occur.
            let _ = slots[idx].set(layer_exponents(config, inner.as_ref(), idx, &ranges[idx]));
        });
        let layers = slots.into_iter().filter_map(OnceLock::into_inner).collect();
        Self { inner, layers }
    }
}

/// Ranges of a model's activations on one text.
fn measure_ranges(
    config: &ModelConfig,
    source: Arc<dyn WeightSource>,
    tokens: &[TokenId],
    pool: &Pool,
) -> Result<Vec<LayerRanges>, ModelError> {
    // Outliers do not disturb 15-bit activations, and the weights take a quarter of the memory that f32 would.
    let plan = PrecisionPlan::uniform(Precision::Int8Wide, KvStorage::F16);
    let model = Model::load(config.clone(), source, plan, pool)?;
    let tokens = &tokens[..tokens.len().min(config.context_len)];
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(BLOCK_LEN) as u32).collect();
    let mut kv = KvCache::new(model.kv_layout(), blocks.len());
    let (mut workspace, mut out) = (Workspace::default(), ForwardOutput::default());
    workspace.record_ranges(config.num_layers());
    for (chunk_idx, chunk) in tokens.chunks(CHUNK).enumerate() {
        let row = |(i, &token): (usize, &TokenId)| BatchRow {
            input: RowInput::Token(token),
            position: (chunk_idx * CHUNK + i) as u32,
            blocks: &blocks,
        };
        let rows: Vec<BatchRow<'_>> = chunk.iter().enumerate().map(row).collect();
        model.forward(pool, &mut kv, &rows, &[], &mut workspace, &mut out)?;
    }
    Ok(workspace.take_ranges())
}

fn layer_exponents(
    config: &ModelConfig,
    source: &dyn WeightSource,
    layer: usize,
    ranges: &LayerRanges,
) -> LayerExponents {
    let (q_len, kv_len) = (
        config.num_heads * config.head_dim,
        config.num_kv_heads * config.head_dim,
    );
    let role = |part| Role::Layer(layer, part);
    let qkv = [
        (LayerRole::Query, q_len),
        (LayerRole::Key, kv_len),
        (LayerRole::Value, kv_len),
    ];
    let gate_up = [(LayerRole::Gate, config.ffn_len), (LayerRole::Up, config.ffn_len)];
    let exponents = |ranges: &[f32], parts: &[(LayerRole, usize)]| -> Vec<i8> {
        // Without a text nothing is known of the activations, and no channel is scaled.
        if ranges.is_empty() {
            return Vec::new();
        }
        let mut columns = Vec::new();
        let mut row = vec![0.0; ranges.len()];
        for &(part, num_rows) in parts {
            for row_idx in 0..num_rows {
                source.read_row(role(part), row_idx, &mut row);
                LayerRanges::widen(&mut columns, &row, ranges.len());
            }
        }
        ranges
            .iter()
            .zip(&columns)
            .map(|(&activation, &weight)| exponent(activation, weight))
            .collect()
    };
    LayerExponents {
        attention: exponents(&ranges.attention, &qkv),
        ffn: exponents(&ranges.ffn, &gate_up),
    }
}

/// `log2(s_j)`, rounded; 0 where a channel or its weights are unused or not finite.
fn exponent(max_activation: f32, max_weight: f32) -> i8 {
    let usable = |value: f32| value > 0.0 && value.is_finite();
    if !usable(max_activation) || !usable(max_weight) {
        return 0;
    }
    let (activation, weight) = (f64::from(max_activation).log2(), f64::from(max_weight).log2());
    (STRENGTH * activation - (1.0 - STRENGTH) * weight)
        .round()
        .clamp(-MAX_EXPONENT, MAX_EXPONENT) as i8
}

/// `2^exponent` for exponents within [`MAX_EXPONENT`] either way.
fn power_of_two(exponent: i8) -> f32 {
    f32::from_bits(((127 + i32::from(exponent)) as u32) << 23)
}

/// Multiplies each value by two to the power of its exponent, or divides by it.
fn scale(values: &mut [f32], exponents: &[i8], sign: i8) {
    for (value, &exponent) in values.iter_mut().zip(exponents) {
        *value *= power_of_two(sign * exponent);
    }
}

impl WeightSource for SmoothedWeights {
    fn shape(&self, role: Role) -> Result<Vec<usize>, ModelError> {
        self.inner.shape(role)
    }

    fn read_row(&self, role: Role, row: usize, out: &mut [f32]) {
        self.inner.read_row(role, row, out);
        let Role::Layer(layer, part) = role else { return };
        let Some(exponents) = self.layers.get(layer) else {
            return;
        };
        match part {
            LayerRole::AttentionNorm => scale(out, &exponents.attention, -1),
            LayerRole::Query | LayerRole::Key | LayerRole::Value => scale(out, &exponents.attention, 1),
            LayerRole::FfnNorm => scale(out, &exponents.ffn, -1),
            LayerRole::Gate | LayerRole::Up => scale(out, &exponents.ffn, 1),
            _ => {}
        }
    }

    fn release(&self, role: Role) {
        self.inner.release(role);
    }

    fn describe(&self, role: Role) -> String {
        self.inner.describe(role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_follow_the_formula() {
        // 0.65 * 6 + 0.35 * 2 = 4.6; 0.65 * -1 - 0.35 * 3 = -1.7.
        assert_eq!(exponent(64.0, 0.25), 5);
        assert_eq!(exponent(0.5, 8.0), -2);
        assert_eq!(
            (
                exponent(0.0, 1.0),
                exponent(1.0, 0.0),
                exponent(f32::INFINITY, 1.0)
            ),
            (0, 0, 0)
        );
        assert_eq!(
            (power_of_two(4), power_of_two(-2), power_of_two(0)),
            (16.0, 0.25, 1.0)
        );
    }

    #[test]
    fn ranges_are_largest_magnitudes_by_channel() {
        let mut ranges = Vec::new();
        LayerRanges::widen(&mut ranges, &[1.0, -5.0, -2.0, 3.0], 2);
        assert_eq!(ranges, [2.0, 5.0]);
    }
}
