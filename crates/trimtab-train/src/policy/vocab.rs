//! Everything of size vocabulary: log-probs, exact KL and entropy of positions, and the gradient of a loss of them.
//!
//! Positions are taken some rows at a time: logits are made, used and dropped, or kept as far as there is room where a
//! loss must be known before its gradient. The gradient by logits is written out,
//!
//! ```text
//! d log p_y / d z_v = 1[v = y] - p_v
//! d KL / d z_v      = p_v (ln p_v - ln q_v - KL)
//! ```
//!
//! so that neither a tape nor `[positions, vocab]` exists. Each row is a pure function of its logits: results depend on
//! neither threads nor on how rows are grouped, up to the matrix product's own order of addition.

use std::collections::VecDeque;

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use trimtab_kernels::softmax::probs_of;
use trimtab_kernels::vocab::log_sum_exp_row;

/// Partial sums, so that additions of a row are independent.
const LANES: usize = 16;
/// Probabilities that exist at once; few enough to stay in the nearest cache, and to be added in f32.
const BLOCK: usize = 256;

/// A model's side of a product: states and head, off the tape.
#[derive(Debug, Clone)]
pub struct Side {
    /// `[positions, hidden]`
    pub states: Tensor<2>,
    /// `[vocab, hidden]`
    pub head: Tensor<2>,
}

impl Side {
    /// Logits of some rows, `[rows, vocab]` row by row.
    fn logits(&self, start: usize, len: usize) -> TensorData {
        let rows = self.states.clone().narrow(0, start, len);
        rows.matmul(self.head.clone().transpose()).into_data()
    }

    fn num_positions(&self) -> usize {
        let [num_positions, _hidden] = self.states.dims();
        num_positions
    }
}

/// Numbers of positions. Each `[positions]`, natural logarithms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenNumbers {
    /// Of the drawn token under the policy.
    pub log_probs: Vec<f64>,
    /// Of the drawn token under the reference; empty without one.
    pub reference_log_probs: Vec<f64>,
    /// `KL(policy || reference)` of the whole distribution; empty without a reference.
    pub kl_nats: Vec<f64>,
    /// Entropy of the policy's distribution.
    pub entropy_nats: Vec<f64>,
}

/// Numbers of one row.
#[derive(Debug, Clone, Copy, Default)]
struct RowNumbers {
    log_prob: f64,
    reference_log_prob: f64,
    kl_nats: f64,
    entropy_nats: f64,
}

impl TokenNumbers {
    fn push(&mut self, row: RowNumbers, has_reference: bool) {
        self.log_probs.push(row.log_prob);
        self.entropy_nats.push(row.entropy_nats);
        if has_reference {
            self.reference_log_probs.push(row.reference_log_prob);
            self.kl_nats.push(row.kl_nats);
        }
    }
}

/// Numbers of all positions, `rows` at a time. `tokens`: the drawn ones. `[positions]`
///
/// Logits are left in `kept` as far as it has room, the reference's only where it is asked to.
pub fn token_numbers(
    (policy, reference): (&Side, Option<&Side>),
    tokens: &[u32],
    rows: usize,
    kept: &mut KeptLogits,
) -> TokenNumbers {
    let mut out = TokenNumbers::default();
    for start in (0..policy.num_positions()).step_by(rows.max(1)) {
        let len = rows.max(1).min(tokens.len() - start);
        let mut logits = policy.logits(start, len);
        let reference_logits = reference.map(|side| side.logits(start, len));
        let of_rows = map_rows(
            &mut logits,
            reference_logits.as_ref(),
            len,
            |row, logits, reference| {
                RowLaws::new(logits, reference).numbers(logits, tokens[start + row] as usize)
            },
        );
        for numbers in of_rows {
            out.push(numbers, reference.is_some());
        }
        keep(kept, logits, reference_logits);
    }
    out
}

/// Logits of the first positions, of policy and reference, so that a gradient need not make them again.
pub type KeptLogits = Kept<(TensorData, Option<TensorData>)>;

/// What was made for the first positions, one run of rows after another, as far as there is room. Taken from the front.
#[derive(Debug)]
pub struct Kept<T> {
    room_bytes: usize,
    with_reference: bool,
    parts: VecDeque<T>,
}

impl<T> Kept<T> {
    /// Room for so many bytes, for what is the reference's too or not.
    pub fn new(room_bytes: usize, with_reference: bool) -> Self {
        Self {
            room_bytes,
            with_reference,
            parts: VecDeque::new(),
        }
    }

    /// Whether the reference's part of a run of rows is to be kept with the policy's.
    pub fn with_reference(&self) -> bool {
        self.with_reference
    }

    /// Keeps the next run of rows, which needs `bytes`, where there is room.
    pub fn offer(&mut self, part: T, bytes: usize) {
        if bytes <= self.room_bytes {
            self.room_bytes -= bytes;
            self.parts.push_back(part);
        } else {
            // What is kept is a beginning without gaps.
            self.room_bytes = 0;
        }
    }

    /// The next run of rows, where it was kept.
    pub fn take(&mut self) -> Option<T> {
        self.parts.pop_front()
    }
}

/// Without room.
impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self::new(0, false)
    }
}

fn keep(kept: &mut KeptLogits, policy: TensorData, reference: Option<TensorData>) {
    let reference = reference.filter(|_| kept.with_reference());
    let num_logits = policy.num_elements() + reference.as_ref().map_or(0, TensorData::num_elements);
    kept.offer((policy, reference), num_logits * size_of::<f32>());
}

/// A gradient by states and by the head.
#[derive(Debug)]
pub struct VocabGradient {
    /// `[positions, hidden]`
    pub states: Tensor<2>,
    /// Where it was asked for. `[vocab, hidden]`
    pub head: Option<Tensor<2>>,
    /// Numbers of the positions.
    pub numbers: TokenNumbers,
}

/// A [`VocabGradient`] that grows by runs of rows.
pub struct GradientSum<'a> {
    policy: &'a Side,
    with_head: bool,
    by_states: Vec<Tensor<2>>,
    by_head: Option<Tensor<2>>,
}

impl<'a> GradientSum<'a> {
    /// Of no rows yet; by the head too or not.
    pub fn new(policy: &'a Side, with_head: bool) -> Self {
        Self {
            policy,
            with_head,
            by_states: Vec::new(),
            by_head: None,
        }
    }

    /// Adds the rows from `start` on, given the gradient by their logits. `[rows, vocab]`
    pub fn push(&mut self, start: usize, by_logits: Tensor<2>) {
        if self.with_head {
            let [rows, _vocab] = by_logits.dims();
            let states = self.policy.states.clone().narrow(0, start, rows);
            let part = by_logits.clone().transpose().matmul(states); // [vocab, hidden]
            self.by_head = Some(match self.by_head.take() {
                Some(sum) => sum + part,
                None => part,
            });
        }
        self.by_states.push(by_logits.matmul(self.policy.head.clone())); // [rows, hidden]
    }

    /// The whole, with the numbers of its positions.
    pub fn finish(self, numbers: TokenNumbers) -> VocabGradient {
        VocabGradient {
            states: Tensor::cat(self.by_states, 0),
            head: self.by_head,
            numbers,
        }
    }
}

/// Derivatives of a loss by each position's log-prob and KL.
#[derive(Debug, Clone, Copy)]
pub struct ByTokens<'a> {
    /// `[positions]`
    pub log_prob: &'a [f64],
    /// Empty where it is 0 everywhere. `[positions]`
    pub kl: &'a [f64],
}

/// The gradient of a loss whose derivatives by each position's numbers are given, `rows` positions at a time.
///
/// `reference` must be there where `by.kl` is. `kept`: logits of the same sides and rows, or nothing.
pub fn vocab_gradient(
    (policy, reference): (&Side, Option<&Side>),
    tokens: &[u32],
    by: ByTokens<'_>,
    (rows, with_head): (usize, bool),
    mut kept: KeptLogits,
) -> VocabGradient {
    let mut numbers = TokenNumbers::default();
    let mut gradient = GradientSum::new(policy, with_head);
    for start in (0..policy.num_positions()).step_by(rows.max(1)) {
        let len = rows.max(1).min(tokens.len() - start);
        let (mut logits, reference_logits) = kept.take().unwrap_or_else(|| {
            let reference_logits = reference.map(|side| side.logits(start, len));
            (policy.logits(start, len), reference_logits)
        });
        let of_rows = map_rows(
            &mut logits,
            reference_logits.as_ref(),
            len,
            |row, logits, reference| {
                let at = start + row;
                let by_kl = by.kl.get(at).copied().unwrap_or_default();
                RowLaws::new(logits, reference).gradient(
                    logits,
                    tokens[at] as usize,
                    (by.log_prob[at], by_kl),
                )
            },
        );
        for row in of_rows {
            numbers.push(row, reference.is_some());
        }
        gradient.push(start, Tensor::from_data(logits, &policy.states.device()));
    }
    gradient.finish(numbers)
}

/// `of_row(row, its logits, the reference's logits)` for all rows, on all threads.
fn map_rows<T: Send>(
    logits: &mut TensorData,
    reference: Option<&TensorData>,
    num_rows: usize,
    of_row: impl Fn(usize, &mut [f32], Option<&[f32]>) -> T + Sync,
) -> Vec<T> {
    let vocab_len = logits.num_elements() / num_rows.max(1);
    let reference = reference.map(|data| data.as_slice::<f32>().expect("logits are f32"));
    let of_reference = |row: usize| reference.map(|all| &all[row * vocab_len..][..vocab_len]);
    logits
        .as_mut_slice::<f32>()
        .expect("logits are f32")
        .par_chunks_mut(vocab_len.max(1))
        .enumerate()
        .map(|(row, logits)| of_row(row, logits, of_reference(row)))
        .collect()
}

/// The two laws of a position: their normalisers and, where there is one, the reference's logits.
#[derive(Debug, Clone, Copy)]
struct RowLaws<'a> {
    log_sum: f64,
    reference: Option<(&'a [f32], f64)>,
}

impl<'a> RowLaws<'a> {
    fn new(logits: &[f32], reference: Option<&'a [f32]>) -> Self {
        Self {
            log_sum: log_sum_exp_row(logits),
            reference: reference.map(|logits| (logits, log_sum_exp_row(logits))),
        }
    }

    /// Numbers of the position at which `token` was drawn.
    fn numbers(&self, logits: &[f32], token: usize) -> RowNumbers {
        let (mut kl_nats, mut entropy_nats) = (0.0, 0.0);
        let mut probs = [0.0; BLOCK];
        for (idx, block) in logits.chunks(BLOCK).enumerate() {
            let probs = &mut probs[..block.len()];
            probs_of(block, self.log_sum, probs);
            entropy_nats -= expected_sum(probs, block, self.log_sum as f32);
            if let Some((reference, log_sum)) = self.reference {
                let reference = &reference[idx * BLOCK..][..block.len()];
                let shift = (self.log_sum - log_sum) as f32;
                kl_nats += expected_difference(probs, block, reference, shift);
            }
        }
        RowNumbers {
            log_prob: f64::from(logits[token]) - self.log_sum,
            reference_log_prob: self
                .reference
                .map_or(0.0, |(logits, log_sum)| f64::from(logits[token]) - log_sum),
            // Rounding may leave less than nothing.
            kl_nats: kl_nats.max(0.0),
            entropy_nats,
        }
    }

    /// Replaces logits by the gradient of `by_log_prob * ln p_token + by_kl * KL`.
    fn gradient(&self, logits: &mut [f32], token: usize, (by_log_prob, by_kl): (f64, f64)) -> RowNumbers {
        let numbers = self.numbers(logits, token);
        let mut probs = [0.0; BLOCK];
        for (idx, block) in logits.chunks_mut(BLOCK).enumerate() {
            let probs = &mut probs[..block.len()];
            probs_of(block, self.log_sum, probs);
            match self.reference.filter(|_| by_kl != 0.0) {
                None => {
                    for (logit, prob) in block.iter_mut().zip(probs.iter()) {
                        *logit = -(by_log_prob as f32) * prob;
                    }
                }
                Some((reference, log_sum)) => {
                    let reference = &reference[idx * BLOCK..][..block.len()];
                    // by_kl (ln p - ln q - KL) - by_log_prob
                    let shift = by_kl * (self.log_sum - log_sum + numbers.kl_nats) + by_log_prob;
                    let (slope, shift) = (by_kl as f32, shift as f32);
                    for ((logit, prob), other) in block.iter_mut().zip(probs.iter()).zip(reference) {
                        let factor = slope * (*logit - other) - shift;
                        *logit = if *prob > 0.0 { prob * factor } else { 0.0 };
                    }
                }
            }
        }
        logits[token] += by_log_prob as f32;
        numbers
    }
}

/// `sum p (z - shift)` over one block.
fn expected_sum(probs: &[f32], logits: &[f32], shift: f32) -> f64 {
    sum_by_lanes(probs.iter().zip(logits).map(|(prob, logit)| {
        let term = prob * (logit - shift);
        if *prob > 0.0 { term } else { 0.0 }
    }))
}

/// `sum p (z - z' - shift)` over one block.
fn expected_difference(probs: &[f32], logits: &[f32], reference: &[f32], shift: f32) -> f64 {
    sum_by_lanes(
        probs
            .iter()
            .zip(logits)
            .zip(reference)
            .map(|((prob, logit), other)| {
                let term = prob * ((logit - other) - shift);
                if *prob > 0.0 { term } else { 0.0 }
            }),
    )
}

fn sum_by_lanes(terms: impl Iterator<Item = f32>) -> f64 {
    let mut sums = [0.0_f32; LANES];
    for (at, term) in terms.enumerate() {
        sums[at % LANES] += term;
    }
    sums.iter().map(|&sum| f64::from(sum)).sum()
}
