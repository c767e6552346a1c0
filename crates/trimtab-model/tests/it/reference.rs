//! The decoder as its formulas read, in f64, one position after the other, without a cache or a kernel.

use trimtab_model::config::{Activation, AttentionSpan, ModelConfig};
use trimtab_model::load::WeightSource;
use trimtab_model::names::{LayerRole, Role};
use trimtab_model::rope::rope_frequencies;

/// Final hidden states and logits of every position of one sequence.
pub(crate) struct ReferenceOutput {
    pub(crate) hidden: Vec<Vec<f64>>,
    pub(crate) logits: Vec<Vec<f64>>,
}

pub(crate) struct Reference<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) weights: &'a dyn WeightSource,
}

impl Reference<'_> {
    pub(crate) fn embed(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let embedding = self.matrix(Role::Embedding);
        let scale = f64::from(self.config.embedding_scale);
        tokens
            .iter()
            .map(|&token| embedding[token as usize].iter().map(|x| x * scale).collect())
            .collect()
    }

    pub(crate) fn run(&self, mut residual: Vec<Vec<f64>>) -> ReferenceOutput {
        for layer in 0..self.config.num_layers() {
            self.attention(layer, &mut residual);
            self.feed_forward(layer, &mut residual);
        }
        let final_norm = self.vector(Role::FinalNorm);
        let head = self.matrix(if self.config.tied_head {
            Role::Embedding
        } else {
            Role::Head
        });
        let hidden: Vec<Vec<f64>> = residual.iter().map(|x| self.norm(x, &final_norm)).collect();
        let logits = hidden.iter().map(|x| product(&head, x)).collect();
        ReferenceOutput { hidden, logits }
    }

    fn attention(&self, layer: usize, residual: &mut [Vec<f64>]) {
        let (config, role) = (self.config, |part| Role::Layer(layer, part));
        let span = config.layer_spans[layer];
        let input_norm = self.vector(role(LayerRole::AttentionNorm));
        let normed: Vec<Vec<f64>> = residual.iter().map(|x| self.norm(x, &input_norm)).collect();
        let project = |weight, bias, head_norm: Option<LayerRole>, rotated: bool| -> Vec<Vec<f64>> {
            let weight = self.matrix(role(weight));
            let bias = config.qkv_bias.then(|| self.vector(role(bias)));
            let head_norm = head_norm
                .filter(|_| config.qk_norm)
                .map(|part| self.vector(role(part)));
            let heads = |(position, x): (usize, &Vec<f64>)| {
                let mut out = product(&weight, x);
                if let Some(bias) = &bias {
                    out.iter_mut().zip(bias).for_each(|(value, b)| *value += b);
                }
                for head in out.chunks_exact_mut(config.head_dim) {
                    if let Some(weight) = &head_norm {
                        head.copy_from_slice(&self.norm(head, weight));
                    }
                    if rotated {
                        self.rotate(head, position, span);
                    }
                }
                out
            };
            normed.iter().enumerate().map(heads).collect()
        };
        let queries = project(
            LayerRole::Query,
            LayerRole::QueryBias,
            Some(LayerRole::QueryNorm),
            true,
        );
        let keys = project(LayerRole::Key, LayerRole::KeyBias, Some(LayerRole::KeyNorm), true);
        let values = project(LayerRole::Value, LayerRole::ValueBias, None, false);
        let output = self.matrix(role(LayerRole::AttentionOutput));
        for (position, x) in residual.iter_mut().enumerate() {
            let attended = self.attend(position, span, &queries[position], &keys, &values);
            self.add(x, product(&output, &attended), role(LayerRole::PostAttentionNorm));
        }
    }

    fn attend(
        &self,
        position: usize,
        span: AttentionSpan,
        query: &[f64],
        keys: &[Vec<f64>],
        values: &[Vec<f64>],
    ) -> Vec<f64> {
        let config = self.config;
        let (dim, group) = (config.head_dim, config.num_heads / config.num_kv_heads);
        let first = match span {
            AttentionSpan::Global => 0,
            AttentionSpan::Sliding { window } => (position + 1).saturating_sub(window),
        };
        let mut out = Vec::new();
        for (head, query) in query.chunks_exact(dim).enumerate() {
            let at = head / group * dim..(head / group + 1) * dim;
            let score = |key: &Vec<f64>| dot(query, &key[at.clone()]) * f64::from(config.score_scale);
            let scores: Vec<f64> = keys[first..=position].iter().map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in at {
                out.push(
                    weights
                        .iter()
                        .zip(&values[first..=position])
                        .map(|(w, v)| w / total * v[d])
                        .sum(),
                );
            }
        }
        out
    }

    fn feed_forward(&self, layer: usize, residual: &mut [Vec<f64>]) {
        let role = |part| Role::Layer(layer, part);
        let norm = self.vector(role(LayerRole::FfnNorm));
        let [gate, up, down] =
            [LayerRole::Gate, LayerRole::Up, LayerRole::Down].map(|part| self.matrix(role(part)));
        for x in residual {
            let normed = self.norm(x, &norm);
            let gated: Vec<f64> = product(&gate, &normed)
                .into_iter()
                .zip(product(&up, &normed))
                .map(|(gate, up)| self.activate(gate) * up)
                .collect();
            self.add(x, product(&down, &gated), role(LayerRole::PostFfnNorm));
        }
    }

    fn activate(&self, x: f64) -> f64 {
        match self.config.activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
        }
    }

    fn add(&self, residual: &mut [f64], mut delta: Vec<f64>, post_norm: Role) {
        if self.config.post_norms {
            delta = self.norm(&delta, &self.vector(post_norm));
        }
        residual.iter_mut().zip(delta).for_each(|(x, d)| *x += d);
    }

    fn norm(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let mean_square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean_square + f64::from(self.config.norm_eps)).sqrt();
        x.iter().zip(weight).map(|(v, w)| v * scale * w).collect()
    }

    fn rotate(&self, head: &mut [f64], position: usize, span: AttentionSpan) {
        let frequencies = rope_frequencies(self.config.rope_of(span), self.config.head_dim);
        let half = head.len() / 2;
        for (i, frequency) in frequencies.inv_freq.iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (a, b) = (head[i], head[i + half]);
            head[i] = (a * cos - b * sin) * frequencies.attention_factor;
            head[i + half] = (b * cos + a * sin) * frequencies.attention_factor;
        }
    }

    fn matrix(&self, role: Role) -> Vec<Vec<f64>> {
        let shape = self.weights.shape(role).expect("role exists");
        (0..shape[0]).map(|row| self.row(role, row, shape[1])).collect()
    }

    fn vector(&self, role: Role) -> Vec<f64> {
        let shape = self.weights.shape(role).expect("role exists");
        self.row(role, 0, shape[0])
    }

    fn row(&self, role: Role, row: usize, len: usize) -> Vec<f64> {
        let mut values = vec![0.0_f32; len];
        self.weights.read_row(role, row, &mut values);
        values.into_iter().map(f64::from).collect()
    }
}

fn product(matrix: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| dot(row, x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
