//! What depends on positions alone: rotations and which keys a query sees. Computed once per pass for all layers.

use std::cell::OnceCell;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use trimtab_model::config::{AttentionSpan, ModelConfig, RopeConfig};
use trimtab_model::rope::rope_frequencies;

/// Cosines and sines of positions `0..seq`, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct RotationTable {
    /// `[seq, head_dim / 2]`
    cos: Vec<f32>,
    /// `[seq, head_dim / 2]`
    sin: Vec<f32>,
    half: usize,
}

impl RotationTable {
    /// Angles are computed in f64, as in the engine, and rounded once, after they are scaled by `scale`.
    pub fn new(rope: &RopeConfig, head_dim: usize, seq: usize, scale: f64) -> Self {
        let frequencies = rope_frequencies(rope, head_dim);
        let table = |of_angle: fn(f64) -> f64| {
            (0..seq)
                .flat_map(|position| frequencies.inv_freq.iter().map(move |f| position as f64 * f))
                .map(|angle| (of_angle(angle) * frequencies.attention_factor * scale) as f32)
                .collect()
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
            half: head_dim / 2,
        }
    }

    /// Cosines and sines of a position. Each `[head_dim / 2]`
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let here = position * self.half..(position + 1) * self.half;
        (&self.cos[here.clone()], &self.sin[here])
    }
}

/// Cosines and sines of positions `0..seq`.
#[derive(Debug, Clone)]
pub struct Rotation {
    pub(super) table: Arc<RotationTable>,
    /// `[1, 1, seq, head_dim / 2]`
    cos: Tensor<4>,
    /// `[1, 1, seq, head_dim / 2]`
    sin: Tensor<4>,
}

impl Rotation {
    /// Rotations of `rope`, scaled by `scale`: the factor on query-key products costs nothing here.
    pub fn new(rope: &RopeConfig, head_dim: usize, seq: usize, scale: f64, device: &Device) -> Self {
        let table = RotationTable::new(rope, head_dim, seq, scale);
        let on_device = |values: &Vec<f32>| {
            Tensor::from_data(TensorData::new(values.clone(), [1, 1, seq, head_dim / 2]), device)
        };
        Self {
            cos: on_device(&table.cos),
            sin: on_device(&table.sin),
            table: Arc::new(table),
        }
    }

    /// Rotates dimension `i` with `i + head_dim / 2`. `[batch, heads, seq, head_dim]`
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [_batch, _heads, _seq, head_dim] = x.dims();
        let half = head_dim / 2;
        let first = x.clone().narrow(3, 0, half); // [batch, heads, seq, head_dim / 2]
        let second = x.narrow(3, half, half);
        let rotated_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let rotated_second = second * self.cos.clone() + first * self.sin.clone();
        Tensor::cat(vec![rotated_first, rotated_second], 3)
    }
}

/// What layers of one span share.
#[derive(Debug, Clone)]
pub struct SpanTables {
    pub(super) span: AttentionSpan,
    /// Of queries, the score scale included.
    pub(super) query: Rotation,
    pub(super) key: Rotation,
    seq: usize,
    device: Device,
    mask: OnceCell<Tensor<4>>,
}

impl SpanTables {
    /// Tables of every span that occurs in `config`, for sequences of `seq` positions.
    pub fn of_model(config: &ModelConfig, seq: usize, device: &Device) -> Vec<Self> {
        let mut tables: Vec<Self> = Vec::new();
        for &span in &config.layer_spans {
            if tables.iter().any(|table| table.span == span) {
                continue;
            }
            let rope = config.rope_of(span);
            let rotation = |scale| Rotation::new(rope, config.head_dim, seq, scale, device);
            tables.push(Self {
                span,
                query: rotation(f64::from(config.score_scale)),
                key: rotation(1.0),
                seq,
                device: device.clone(),
                mask: OnceCell::new(),
            });
        }
        tables
    }

    /// Added to scores: 0 where the key is seen, minus infinity elsewhere; made when it is first asked for.
    /// `[1, 1, seq, seq]`
    pub fn mask(&self) -> Tensor<4> {
        let mask = || mask(self.span, self.seq, &self.device);
        self.mask.get_or_init(mask).clone()
    }
}

/// Causal, and within the window where there is one. `[1, 1, seq, seq]`
///
/// Padding is on the right, where no real position looks: a mask for it would change nothing.
fn mask(span: AttentionSpan, seq: usize, device: &Device) -> Tensor<4> {
    let window = match span {
        AttentionSpan::Global => seq,
        AttentionSpan::Sliding { window } => window,
    };
    let seen = |query: usize, key: usize| key <= query && query - key < window;
    let values: Vec<f32> = (0..seq * seq)
        .map(|i| {
            if seen(i / seq, i % seq) {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [1, 1, seq, seq]), device)
}
