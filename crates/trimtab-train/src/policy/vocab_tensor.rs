//! The numbers and the gradient of [`super::vocab`], in tensor operations. Knows no loss.
//!
//! On a GPU the logits stay where the product made them: `[rows, vocab]` to the processor and back costs more than all the
//! rest of a step. What comes back is four numbers a position, in one read. On the processor the loops of `vocab` are
//! several times faster and add in double precision, so that [`VocabPass`] picks by the device.

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::vocab::{self, ByTokens, GradientSum, Kept, KeptLogits, Side, TokenNumbers, VocabGradient};
use crate::device::is_host;

/// Policy and reference, where there is one.
type Sides<'a> = (&'a Side, Option<&'a Side>);

/// What a piece does of vocabulary size: numbers, then the gradient, with the logits that were kept in between.
#[derive(Debug)]
pub enum VocabPass {
    /// In loops over the processor's memory.
    Host(KeptLogits),
    /// In tensor operations.
    Tensors(KeptTensors),
}

impl VocabPass {
    /// As suits `device`; keeps logits of so many bytes, the reference's too or not.
    pub fn of(device: &Device, room_bytes: usize, with_reference: bool) -> Self {
        if is_host(device) {
            Self::Host(KeptLogits::new(room_bytes, with_reference))
        } else {
            Self::Tensors(KeptTensors::new(room_bytes, with_reference))
        }
    }

    /// Numbers of all positions, see [`vocab::token_numbers`].
    pub fn numbers(&mut self, sides: Sides<'_>, tokens: &[u32], rows: usize) -> TokenNumbers {
        match self {
            Self::Host(kept) => vocab::token_numbers(sides, tokens, rows, kept),
            Self::Tensors(kept) => token_numbers(sides, tokens, rows, kept),
        }
    }

    /// The gradient of a loss, see [`vocab::vocab_gradient`].
    pub fn gradient(
        self,
        sides: Sides<'_>,
        tokens: &[u32],
        by: ByTokens<'_>,
        how: (usize, bool),
    ) -> VocabGradient {
        match self {
            Self::Host(kept) => vocab::vocab_gradient(sides, tokens, by, how, kept),
            Self::Tensors(kept) => vocab_gradient(sides, tokens, by, how, kept),
        }
    }
}

/// Logits of the first positions on their device, so that a gradient need not make them again.
pub type KeptTensors = Kept<Logits>;

fn keep(kept: &mut KeptTensors, mut logits: Logits) {
    logits.reference = logits.reference.filter(|_| kept.with_reference());
    let bytes = logits.num_bytes();
    kept.offer(logits, bytes);
}

/// Logits of some rows. Each `[rows, vocab]`
#[derive(Debug, Clone)]
pub struct Logits {
    policy: Tensor<2>,
    reference: Option<Tensor<2>>,
}

impl Logits {
    fn of((policy, reference): Sides<'_>, start: usize, len: usize) -> Self {
        let of_side = |side: &Side| {
            let rows = side.states.clone().narrow(0, start, len); // [rows, hidden]
            rows.matmul(side.head.clone().transpose())
        };
        Self {
            policy: of_side(policy),
            reference: reference.map(of_side),
        }
    }

    fn num_bytes(&self) -> usize {
        let [rows, vocab_len] = self.policy.dims();
        rows * vocab_len * size_of::<f32>() * (1 + usize::from(self.reference.is_some()))
    }
}

/// The laws of some positions, in logarithms.
struct RowLaws {
    /// `ln p`. `[rows, vocab]`
    log_probs: Tensor<2>,
    /// `p`. `[rows, vocab]`
    probs: Tensor<2>,
    /// `ln q`. `[rows, vocab]`
    reference: Option<Tensor<2>>,
    /// `KL(p || q)`. `[rows, 1]`
    kl: Option<Tensor<2>>,
    /// The drawn tokens. `[rows, 1]`
    tokens: Tensor<2, Int>,
}

impl RowLaws {
    fn new(logits: Logits, tokens: &[u32]) -> Self {
        let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let ids = TensorData::new(ids, [tokens.len(), 1]);
        let tokens = Tensor::from_data(ids, &logits.policy.device());
        let log_probs = normalised(logits.policy);
        let probs = log_probs.clone().exp();
        let reference = logits.reference.map(normalised);
        let kl = reference.as_ref().map(|reference| {
            let terms = probs.clone() * (log_probs.clone() - reference.clone());
            // Rounding may leave less than nothing.
            terms.sum_dim(1).clamp_min(0.0)
        });
        Self {
            log_probs,
            probs,
            reference,
            kl,
            tokens,
        }
    }

    /// Log-prob of the drawn token and entropy; with a reference also its log-prob and the KL. `[rows, 2 or 4]`
    fn numbers(&self) -> Tensor<2> {
        let taken = |log_probs: &Tensor<2>| log_probs.clone().gather(1, self.tokens.clone());
        let entropy = -(self.probs.clone() * self.log_probs.clone()).sum_dim(1);
        let mut columns = vec![taken(&self.log_probs), entropy];
        if let (Some(reference), Some(kl)) = (&self.reference, &self.kl) {
            columns.extend([taken(reference), kl.clone()]);
        }
        Tensor::cat(columns, 1)
    }

    /// The gradient by logits of `by_log_prob ln p_token + by_kl KL`, both `[rows, 1]`. `[rows, vocab]`
    fn gradient(self, by_log_prob: Tensor<2>, by_kl: Option<Tensor<2>>) -> Tensor<2> {
        let factor = match (by_kl, self.reference, self.kl) {
            // by_kl (ln p - ln q - KL) - by_log_prob
            (Some(by_kl), Some(reference), Some(kl)) => {
                (self.log_probs - reference - kl) * by_kl - by_log_prob.clone()
            }
            _ => -by_log_prob.clone().expand(self.log_probs.dims()),
        };
        (self.probs * factor).scatter(1, self.tokens, by_log_prob, IndexingUpdateOp::Add)
    }
}

/// `z - ln sum exp z` of each row.
fn normalised(logits: Tensor<2>) -> Tensor<2> {
    let shifted = logits.clone() - logits.max_dim(1); // [rows, vocab]
    let log_sum = shifted.clone().exp().sum_dim(1).log(); // [rows, 1]
    shifted - log_sum
}

/// As [`vocab::token_numbers`].
pub fn token_numbers(sides: Sides<'_>, tokens: &[u32], rows: usize, kept: &mut KeptTensors) -> TokenNumbers {
    let mut numbers = Vec::new();
    for start in (0..tokens.len()).step_by(rows.max(1)) {
        let len = rows.max(1).min(tokens.len() - start);
        let logits = Logits::of(sides, start, len);
        numbers.push(RowLaws::new(logits.clone(), &tokens[start..start + len]).numbers());
        keep(kept, logits);
    }
    read(numbers)
}

/// As [`vocab::vocab_gradient`].
pub fn vocab_gradient(
    sides: Sides<'_>,
    tokens: &[u32],
    by: ByTokens<'_>,
    (rows, with_head): (usize, bool),
    mut kept: KeptTensors,
) -> VocabGradient {
    let policy = sides.0;
    let device = policy.states.device();
    let column = |values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        let shape = [values.len(), 1];
        Tensor::<2>::from_data(TensorData::new(values, shape), &device)
    };
    let (mut numbers, mut gradient) = (Vec::new(), GradientSum::new(policy, with_head));
    for start in (0..tokens.len()).step_by(rows.max(1)) {
        let len = rows.max(1).min(tokens.len() - start);
        let here = start..start + len;
        let logits = kept.take();
        let laws = RowLaws::new(
            logits.unwrap_or_else(|| Logits::of(sides, start, len)),
            &tokens[here.clone()],
        );
        numbers.push(laws.numbers());
        let by_kl = (!by.kl.is_empty()).then(|| column(&by.kl[here.clone()]));
        gradient.push(start, laws.gradient(column(&by.log_prob[here]), by_kl));
    }
    gradient.finish(read(numbers))
}

/// Columns as [`RowLaws::numbers`] makes them, from their device at once.
fn read(parts: Vec<Tensor<2>>) -> TokenNumbers {
    let mut out = TokenNumbers::default();
    if parts.is_empty() {
        return out;
    }
    let all = Tensor::cat(parts, 0); // [positions, 2 or 4]
    let [_positions, width] = all.dims();
    let values: Vec<f32> = all.into_data().iter::<f32>().collect();
    for row in values.chunks_exact(width) {
        out.log_probs.push(f64::from(row[0]));
        out.entropy_nats.push(f64::from(row[1]));
        if let [_, _, reference_log_prob, kl_nats] = *row {
            out.reference_log_probs.push(f64::from(reference_log_prob));
            out.kl_nats.push(f64::from(kl_nats));
        }
    }
    out
}
