//! One forward pass over a batch of rows, each a position of some sequence. Knows no sequences' texts or requests.
//!
//! Every row's result depends on that row and the keys before it alone, bit for bit: each kernel computes a row in an
//! order that the other rows do not change. That is what makes sample `i` of prompt `p` independent of its batch.

use std::time::Instant;

use trimtab_base::TokenId;
use trimtab_kernels::activation::{gelu_tanh_mul, silu_mul};
use trimtab_kernels::attention::{AttentionRow, AttentionScratch, attend};
use trimtab_kernels::gemm::GemmScratch;
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_kernels::norm::{add_rms_norm, rms_norm};
use trimtab_kernels::pool::Pool;
use trimtab_kernels::rope::apply_rope;

use crate::config::{Activation, AttentionSpan};
use crate::error::ModelError;
use crate::load::{Layer, Model};
use crate::names::Role;
use crate::smoothing::LayerRanges;
use crate::stage_times::StageTimes;

/// What enters the decoder at one position.
#[derive(Debug, Clone, Copy)]
pub enum RowInput<'a> {
    /// A token, looked up in the embedding matrix.
    Token(TokenId),
    /// An embedding row from an encoder, used as it is. `[hidden]`
    Embedding(&'a [f32]),
}

/// One position of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct BatchRow<'a> {
    /// What enters.
    pub input: RowInput<'a>,
    /// Zero-based position; keys of all earlier positions must be in `blocks` or earlier in this batch.
    pub position: u32,
    /// Key/value blocks of the sequence, in order of position; long enough for `position`.
    pub blocks: &'a [u32],
}

/// Results for the rows asked for.
#[derive(Debug, Clone, Default)]
pub struct ForwardOutput {
    /// Hidden states after the final norm, as the output head sees them. `[outputs, hidden]`
    pub hidden: Vec<f32>,
    /// Next-token logits. `[outputs, vocab]`
    pub logits: Vec<f32>,
}

/// Buffers kept between passes, and the time spent per stage.
#[derive(Default)]
pub struct Workspace {
    residual: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    attended: Vec<f32>,
    delta: Vec<f32>,
    gate_up: Vec<f32>,
    gated: Vec<f32>,
    head_normed: Vec<f32>,
    positions: Vec<u32>,
    gemm: GemmScratch,
    attention: AttentionScratch,
    /// Where the time went, summed over passes.
    pub times: StageTimes,
    /// Residual stream after each layer of the last pass, if asked for. `[layers][rows, hidden]`
    traced: Option<Vec<Vec<f32>>>,
    /// Ranges of activations over all passes, if asked for. `[layers]`
    ranges: Option<Vec<LayerRanges>>,
}

impl Workspace {
    /// Keeps the residual stream after each layer from now on, to compare precisions.
    pub fn trace_residuals(&mut self) {
        self.traced = Some(Vec::new());
    }

    /// Residual stream after each layer of the last pass; empty if it was not asked for. `[layers][rows, hidden]`
    pub fn traced_residuals(&self) -> &[Vec<f32>] {
        self.traced.as_deref().unwrap_or_default()
    }

    /// Records the ranges of activations from now on, to smooth them.
    pub(crate) fn record_ranges(&mut self, num_layers: usize) {
        self.ranges = Some(vec![LayerRanges::default(); num_layers]);
    }

    /// Ranges recorded so far; none if they were not asked for.
    pub(crate) fn take_ranges(&mut self) -> Vec<LayerRanges> {
        self.ranges.take().unwrap_or_default()
    }
}

/// Borrowed context of one pass, so that the stages below take few arguments.
struct Pass<'a, 'b> {
    model: &'a Model,
    pool: &'a Pool,
    rows: &'a [BatchRow<'b>],
    ws: &'a mut Workspace,
}

impl Model {
    /// Runs `rows` through the decoder, writing their keys and values into `kv`, and leaves hidden states and logits
    /// of the rows listed in `outputs` in `out`.
    ///
    /// # Errors
    /// A token outside the vocabulary or an embedding row of the wrong length; nothing has been written then.
    pub fn forward(
        &self,
        pool: &Pool,
        kv: &mut KvCache,
        rows: &[BatchRow<'_>],
        outputs: &[usize],
        ws: &mut Workspace,
        out: &mut ForwardOutput,
    ) -> Result<(), ModelError> {
        let started = Instant::now();
        self.embed(rows, &mut ws.residual)?;
        ws.positions.clear();
        ws.positions.extend(rows.iter().map(|row| row.position));
        ws.times.embed += started.elapsed();
        ws.traced.iter_mut().for_each(Vec::clear);
        let mut pass = Pass {
            model: self,
            pool,
            rows,
            ws,
        };
        for (layer_idx, layer) in self.layers.iter().enumerate() {
            pass.attention(kv, layer_idx, layer);
            pass.feed_forward(layer_idx, layer);
            pass.trace();
        }
        pass.finish(outputs, out);
        Ok(())
    }

    /// Embedding rows, scaled. `[rows, hidden]`
    fn embed(&self, rows: &[BatchRow<'_>], residual: &mut Vec<f32>) -> Result<(), ModelError> {
        let (hidden_len, vocab_len) = (self.config.hidden_len, self.config.vocab_len);
        for row in rows {
            match row.input {
                RowInput::Token(token) if token.index() >= vocab_len => {
                    return Err(ModelError::TokenOutOfRange {
                        token: token.0,
                        vocab_len,
                    });
                }
                RowInput::Embedding(values) if values.len() != hidden_len => {
                    return Err(ModelError::BadEmbedding {
                        got: values.len(),
                        expected: hidden_len,
                    });
                }
                _ => {}
            }
        }
        residual.resize(rows.len() * hidden_len, 0.0);
        for (row, target) in rows.iter().zip(residual.chunks_exact_mut(hidden_len)) {
            match row.input {
                RowInput::Embedding(values) => target.copy_from_slice(values),
                RowInput::Token(token) => {
                    self.source.read_row(Role::Embedding, token.index(), target);
                    if self.config.embedding_scale != 1.0 {
                        for value in target {
                            *value *= self.config.embedding_scale;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Pass<'_, '_> {
    /// Attention of one layer; leaves its contribution to the residual stream in `ws.delta`.
    fn attention(&mut self, kv: &mut KvCache, layer_idx: usize, layer: &Layer) {
        let config = &self.model.config;
        let started = Instant::now();
        self.norm_residual(layer_idx > 0, &layer.attention_norm);
        if let Some(ranges) = &mut self.ws.ranges {
            LayerRanges::widen(
                &mut ranges[layer_idx].attention,
                &self.ws.normed,
                config.hidden_len,
            );
        }
        let normed_at = Instant::now();
        let ws = &mut *self.ws;
        ws.qkv.resize(self.rows.len() * layer.qkv.out_len(), 0.0);
        layer
            .qkv
            .forward(self.pool, &ws.normed, &mut ws.qkv, &mut ws.gemm);
        let projected_at = Instant::now();
        self.rotate(layer);
        self.store_keys_and_values(kv, layer_idx);
        let stored_at = Instant::now();
        let ws = &mut *self.ws;
        let rows: Vec<AttentionRow<'_>> = self
            .rows
            .iter()
            .map(|row| attention_row(row, layer.span))
            .collect();
        ws.attended
            .resize(self.rows.len() * config.num_heads * config.head_dim, 0.0);
        attend(
            self.pool,
            kv,
            layer_idx,
            &rows,
            config.num_heads,
            config.score_scale,
            &ws.queries,
            &mut ws.attended,
            &mut ws.attention,
        );
        let attended_at = Instant::now();
        ws.delta.resize(self.rows.len() * config.hidden_len, 0.0);
        layer
            .attention_output
            .forward(self.pool, &ws.attended, &mut ws.delta, &mut ws.gemm);
        let output_at = Instant::now();
        self.post_norm(layer.post_attention_norm.as_deref());
        let times = &mut self.ws.times;
        times.norm += (normed_at - started) + output_at.elapsed();
        times.qkv += projected_at - normed_at;
        times.rope_and_store += stored_at - projected_at;
        times.attention += attended_at - stored_at;
        times.attention_output += output_at - attended_at;
    }

    /// Feed-forward of one layer; adds `ws.delta` to the residual stream and leaves its own contribution there.
    fn feed_forward(&mut self, layer_idx: usize, layer: &Layer) {
        let config = &self.model.config;
        let started = Instant::now();
        self.norm_residual(true, &layer.ffn_norm);
        if let Some(ranges) = &mut self.ws.ranges {
            LayerRanges::widen(&mut ranges[layer_idx].ffn, &self.ws.normed, config.hidden_len);
        }
        let normed_at = Instant::now();
        let (num_rows, ws) = (self.rows.len(), &mut *self.ws);
        ws.gate_up.resize(num_rows * 2 * config.ffn_len, 0.0);
        layer
            .gate_up
            .forward(self.pool, &ws.normed, &mut ws.gate_up, &mut ws.gemm);
        let projected_at = Instant::now();
        ws.gated.resize(num_rows * config.ffn_len, 0.0);
        match config.activation {
            Activation::Silu => silu_mul(self.pool, &ws.gate_up, config.ffn_len, &mut ws.gated),
            Activation::GeluTanh => gelu_tanh_mul(self.pool, &ws.gate_up, config.ffn_len, &mut ws.gated),
        }
        let gated_at = Instant::now();
        layer
            .down
            .forward(self.pool, &ws.gated, &mut ws.delta, &mut ws.gemm);
        let down_at = Instant::now();
        self.post_norm(layer.post_ffn_norm.as_deref());
        let times = &mut self.ws.times;
        times.norm += (normed_at - started) + down_at.elapsed();
        times.gate_up += projected_at - normed_at;
        times.activation += gated_at - projected_at;
        times.down += down_at - gated_at;
    }

    /// Keeps the residual stream as it will be once the pending `delta` is added.
    fn trace(&mut self) {
        let ws = &mut *self.ws;
        if let Some(traced) = &mut ws.traced {
            traced.push(
                ws.residual
                    .iter()
                    .zip(&ws.delta)
                    .map(|(residual, delta)| residual + delta)
                    .collect(),
            );
        }
    }

    /// `normed = rms_norm(residual)`, after adding the pending `delta` where there is one.
    fn norm_residual(&mut self, has_delta: bool, weight: &[f32]) {
        let (eps, ws) = (self.model.config.norm_eps, &mut *self.ws);
        ws.normed.resize(ws.residual.len(), 0.0);
        if has_delta {
            add_rms_norm(
                self.pool,
                &mut ws.residual,
                &ws.delta,
                weight,
                eps,
                &mut ws.normed,
            );
        } else {
            rms_norm(self.pool, &ws.residual, weight, eps, &mut ws.normed);
        }
    }

    /// Gemma's norms after attention and feed-forward, before the residual sum.
    fn post_norm(&mut self, weight: Option<&[f32]>) {
        if let Some(weight) = weight {
            let ws = &mut *self.ws;
            ws.head_normed.resize(ws.delta.len(), 0.0);
            rms_norm(
                self.pool,
                &ws.delta,
                weight,
                self.model.config.norm_eps,
                &mut ws.head_normed,
            );
            std::mem::swap(&mut ws.delta, &mut ws.head_normed);
        }
    }

    /// Splits queries and keys out of the joint projection, normalises them per head where asked, and rotates them.
    fn rotate(&mut self, layer: &Layer) {
        let config = &self.model.config;
        let (q_len, kv_len) = (
            config.num_heads * config.head_dim,
            config.num_kv_heads * config.head_dim,
        );
        let ws = &mut *self.ws;
        ws.queries.clear();
        ws.keys.clear();
        for qkv in ws.qkv.chunks_exact(q_len + 2 * kv_len) {
            ws.queries.extend_from_slice(&qkv[..q_len]);
            ws.keys.extend_from_slice(&qkv[q_len..q_len + kv_len]);
        }
        for (heads, weight) in [
            (&mut ws.queries, &layer.query_norm),
            (&mut ws.keys, &layer.key_norm),
        ] {
            if let Some(weight) = weight {
                // [rows * heads, head_dim]
                ws.head_normed.resize(heads.len(), 0.0);
                rms_norm(self.pool, heads, weight, config.norm_eps, &mut ws.head_normed);
                std::mem::swap(heads, &mut ws.head_normed);
            }
        }
        let table = match (layer.span, &self.model.local_rope) {
            (AttentionSpan::Sliding { .. }, Some(local)) => local,
            _ => &self.model.rope,
        };
        apply_rope(
            self.pool,
            &mut ws.queries,
            q_len,
            config.num_heads,
            config.head_dim,
            &ws.positions,
            table,
        );
        apply_rope(
            self.pool,
            &mut ws.keys,
            kv_len,
            config.num_kv_heads,
            config.head_dim,
            &ws.positions,
            table,
        );
    }

    fn store_keys_and_values(&mut self, kv: &mut KvCache, layer_idx: usize) {
        let config = &self.model.config;
        let (q_len, kv_len) = (
            config.num_heads * config.head_dim,
            config.num_kv_heads * config.head_dim,
        );
        let values = self
            .ws
            .qkv
            .chunks_exact(q_len + 2 * kv_len)
            .map(|qkv| &qkv[q_len + kv_len..]);
        for ((row, key), value) in self
            .rows
            .iter()
            .zip(self.ws.keys.chunks_exact(kv_len))
            .zip(values)
        {
            let position = row.position as usize;
            kv.write(
                layer_idx,
                row.blocks[position / BLOCK_LEN],
                position % BLOCK_LEN,
                key,
                value,
            );
        }
    }

    /// Final norm and output head of the rows asked for.
    fn finish(&mut self, outputs: &[usize], out: &mut ForwardOutput) {
        let config = &self.model.config;
        let started = Instant::now();
        let (hidden_len, ws) = (config.hidden_len, &mut *self.ws);
        let gather = |from: &[f32], to: &mut Vec<f32>| {
            to.clear();
            for &row in outputs {
                to.extend_from_slice(&from[row * hidden_len..(row + 1) * hidden_len]);
            }
        };
        gather(&ws.residual, &mut ws.normed);
        gather(&ws.delta, &mut ws.head_normed);
        out.hidden.resize(outputs.len() * hidden_len, 0.0);
        let final_norm = &self.model.final_norm;
        add_rms_norm(
            self.pool,
            &mut ws.normed,
            &ws.head_normed,
            final_norm,
            config.norm_eps,
            &mut out.hidden,
        );
        let normed_at = Instant::now();
        out.logits.resize(outputs.len() * config.vocab_len, 0.0);
        self.model
            .head
            .forward(self.pool, &out.hidden, &mut out.logits, &mut ws.gemm);
        ws.times.norm += normed_at - started;
        ws.times.head += normed_at.elapsed();
    }
}

fn attention_row<'a>(row: &BatchRow<'a>, span: AttentionSpan) -> AttentionRow<'a> {
    let num_keys = row.position as usize + 1;
    let first_key = match span {
        AttentionSpan::Global => 0,
        AttentionSpan::Sliding { window } => num_keys.saturating_sub(window),
    };
    AttentionRow {
        blocks: row.blocks,
        first_key,
        num_keys,
    }
}
