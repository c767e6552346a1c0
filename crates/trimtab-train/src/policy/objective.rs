//! A loss of tokens as an objective of the one loop: states with a tape, the vocabulary without. Knows no method.

use std::cell::RefCell;

use burn::tensor::Tensor;

use super::bonbon::BonBon;
use super::config::{Advantage, PolicyObjective};
use super::dpo::Dpo;
use super::ipo::Ipo;
use super::kl_goals::KlGoals;
use super::model::PolicyModule;
use super::pieces::Piece;
use super::rl::Rl;
use super::sft::Sft;
use super::step_numbers::StepNumbers;
use super::token_loss::{Reads, ResponseTokens, TokenDerivatives, TokenLoss};
use super::vocab::{ByTokens, Side, TokenNumbers};
use super::vocab_tensor::VocabPass;
use crate::events::Metrics;
use crate::trainer::{Loss, Objective, Progress, Verdict};

/// Logits that a piece keeps from its loss for its gradient; those beyond are made again.
const KEPT_LOGITS_BYTES: usize = 1 << 30;

/// Responses of one step in pieces.
pub type PolicyBatch = Vec<Piece>;

impl PolicyObjective {
    /// The loss that it names.
    pub fn token_loss(&self) -> Box<dyn TokenLoss> {
        match *self {
            Self::Rl {
                beta,
                clip,
                importance,
                advantage,
            } => Box::new(Rl {
                beta,
                clip,
                importance,
                has_baseline: advantage != Advantage::None,
            }),
            Self::Dpo { beta } => Box::new(Dpo { beta }),
            Self::Ipo { beta } => Box::new(Ipo { beta }),
            Self::Sft { num_candidates: _ } => Box::new(Sft),
            Self::BonBon {
                num_candidates,
                alpha,
            } => Box::new(BonBon {
                num_candidates,
                alpha,
            }),
        }
    }
}

/// A loss over a policy and its reference.
pub struct PolicyLoss<M> {
    loss: Box<dyn TokenLoss>,
    /// Off the tape.
    reference: M,
    rows: usize,
    numbers: RefCell<StepNumbers>,
    /// Only where the responses are the policy's own, so that their KL is its own.
    goals: Option<KlGoals>,
}

impl<M: PolicyModule> PolicyLoss<M> {
    /// `reference`: off the tape. `rows`: positions whose logits exist at once. `goals`: where responses are on-policy.
    pub fn new(loss: Box<dyn TokenLoss>, reference: M, rows: usize, goals: Option<KlGoals>) -> Self {
        Self {
            loss,
            reference,
            rows,
            numbers: RefCell::default(),
            goals,
        }
    }

    /// `kl_nats` is a number of the policy; on others' responses it is a number of theirs.
    fn kl_name(&self) -> &'static str {
        if self.goals.is_some() {
            "kl_nats"
        } else {
            "kl_at_data_nats"
        }
    }

    /// The loss of a piece and its gradient by states (and head), off the tape.
    fn surrogate(&self, module: &M, piece: &Piece) -> (Tensor<1>, f64, u64) {
        let states = module.states(piece); // [positions, hidden]
        let head = module.head(); // [vocab, hidden]
        let policy = Side {
            states: states.clone().inner(),
            head: head.clone().inner(),
        };
        let reads = self.loss.reads();
        let known = self.known(piece);
        let reference = (reads != Reads::Nothing && known.is_none()).then(|| Side {
            states: self.reference.states(piece),
            head: self.reference.head(),
        });
        let mut numbers = TokenNumbers::default();
        let mut pass = VocabPass::of(&policy.states.device(), KEPT_LOGITS_BYTES, reads == Reads::Kl);
        if reads != Reads::Nothing {
            numbers = pass.numbers((&policy, reference.as_ref()), &piece.tokens, self.rows);
            numbers.reference_log_probs = known.unwrap_or(numbers.reference_log_probs);
        }
        let mut derivatives = self.derivatives(piece, &numbers);
        let by = ByTokens {
            log_prob: &derivatives.log_prob,
            kl: &derivatives.kl,
        };
        let reference = reference.filter(|_| reads == Reads::Kl);
        let sides = (&policy, reference.as_ref());
        let how = (self.rows, head.is_tracked());
        let gradient = pass.gradient(sides, &piece.tokens, by, how);
        if reads == Reads::Nothing {
            numbers = gradient.numbers;
            derivatives = self.derivatives(piece, &numbers);
        }
        let num_items = self.report(piece, &numbers, &derivatives);
        // Its gradient by states is the vocabulary's, its value is put right by the caller.
        let mut sum = (states * Tensor::from_inner(gradient.states)).sum();
        if let Some(by_head) = gradient.head {
            sum = sum + (head * Tensor::from_inner(by_head)).sum();
        }
        (sum, derivatives.value, num_items)
    }

    /// Mean loss and numbers of a batch, without any gradient.
    pub fn evaluate(&self, module: &M, batch: &PolicyBatch) -> Metrics {
        let (mut value, mut num_items) = (0.0, 0);
        for piece in batch {
            let numbers = self.numbers(module, piece);
            let derivatives = self.derivatives(piece, &numbers);
            value += derivatives.value;
            num_items += self.report(piece, &numbers, &derivatives);
        }
        let mut metrics = self.numbers.borrow_mut().take();
        metrics.insert("loss".to_owned(), value / num_items.max(1) as f64);
        metrics
    }

    /// What the reference says, where it is known and nothing else of the reference is read.
    fn known(&self, piece: &Piece) -> Option<Vec<f64>> {
        let is_enough = self.loss.reads() == Reads::LogProbs;
        is_enough.then(|| piece.reference_log_probs()).flatten()
    }

    fn numbers(&self, module: &M, piece: &Piece) -> TokenNumbers {
        let Some(known) = self.known(piece) else {
            return numbers_of(module, &self.reference, piece, self.rows);
        };
        let policy = Side {
            states: module.states(piece),
            head: module.head(),
        };
        let mut pass = VocabPass::of(&policy.states.device(), 0, false);
        TokenNumbers {
            reference_log_probs: known,
            ..pass.numbers((&policy, None), &piece.tokens, self.rows)
        }
    }

    /// Of all units, in the order of the piece's rows.
    fn derivatives(&self, piece: &Piece, numbers: &TokenNumbers) -> TokenDerivatives {
        let num_positions = piece.tokens.len();
        let mut out = TokenDerivatives {
            log_prob: vec![0.0; num_positions],
            ..TokenDerivatives::default()
        };
        for unit in &piece.units {
            let tokens = unit_tokens(piece, unit.clone(), numbers);
            let of_unit = self.loss.derivatives(&tokens);
            out.value += of_unit.value;
            out.numbers.extend(of_unit.numbers);
            if !of_unit.kl.is_empty() {
                out.kl.resize(num_positions, 0.0);
            }
            let mut start = 0;
            for rows in piece.rows[unit.clone()].iter().cloned() {
                let here = start..start + rows.len();
                start = here.end;
                out.log_prob[rows.clone()].copy_from_slice(&of_unit.log_prob[here.clone()]);
                if !of_unit.kl.is_empty() {
                    out.kl[rows].copy_from_slice(&of_unit.kl[here]);
                }
            }
        }
        out
    }

    fn report(&self, piece: &Piece, numbers: &TokenNumbers, derivatives: &TokenDerivatives) -> u64 {
        let mut step = self.numbers.borrow_mut();
        step.add_piece(piece, numbers, self.kl_name());
        for &(name, sum, count) in &derivatives.numbers {
            step.add(name, sum, count);
        }
        let items = |unit: &std::ops::Range<usize>| {
            self.loss
                .num_items(&unit_tokens(piece, unit.clone(), &TokenNumbers::default()))
        };
        piece.units.iter().map(items).sum()
    }
}

/// What is known of the responses of a unit.
fn unit_tokens<'a>(
    piece: &'a Piece,
    unit: std::ops::Range<usize>,
    numbers: &'a TokenNumbers,
) -> Vec<ResponseTokens<'a>> {
    fn of<'a>(values: &'a [f64], rows: &std::ops::Range<usize>) -> &'a [f64] {
        values.get(rows.clone()).unwrap_or_default()
    }
    let tokens = |(item, rows)| ResponseTokens {
        item,
        log_probs: of(&numbers.log_probs, rows),
        reference_log_probs: of(&numbers.reference_log_probs, rows),
        kl_nats: of(&numbers.kl_nats, rows),
    };
    piece.items[unit.clone()]
        .iter()
        .zip(&piece.rows[unit])
        .map(tokens)
        .collect()
}

impl<M: PolicyModule> Objective<M> for PolicyLoss<M> {
    type Batch = PolicyBatch;

    fn num_pieces(&self, batch: &PolicyBatch) -> usize {
        batch.len()
    }

    fn piece_loss(&self, module: &M, batch: &PolicyBatch, piece: usize, _: Progress) -> Loss {
        let (sum, value, num_items) = self.surrogate(module, &batch[piece]);
        // The value is the loss's, the gradient the surrogate's.
        let sum = sum.clone() - sum.detach() + value as f32;
        Loss { sum, num_items }
    }

    /// # Panics
    /// If the batch has no piece.
    fn loss(&self, module: &M, batch: &PolicyBatch, progress: Progress) -> Loss {
        let of_piece = |piece| self.piece_loss(module, batch, piece, progress);
        let sum = |a: Loss, b: Loss| Loss {
            sum: a.sum + b.sum,
            num_items: a.num_items + b.num_items,
        };
        (0..batch.len())
            .map(of_piece)
            .reduce(sum)
            .expect("a batch has at least one piece")
    }

    fn verdict(&mut self, _: Progress) -> Verdict {
        let metrics = self.numbers.borrow_mut().take();
        match &mut self.goals {
            Some(goals) => goals.verdict(metrics),
            None => Verdict {
                metrics,
                ..Verdict::default()
            },
        }
    }

    fn restore_kept(&mut self, names: &[String]) {
        if let Some(goals) = &mut self.goals {
            goals.restore(names);
        }
    }

    fn memory(&self) -> Vec<f64> {
        let goals = self.goals.as_ref();
        goals.map_or_else(Vec::new, |goals| goals.recent().to_vec())
    }

    fn restore_memory(&mut self, memory: &[f64]) {
        if let Some(goals) = &mut self.goals {
            goals.restore_recent(memory);
        }
    }
}

/// Numbers of a piece under a policy and its reference, without any gradient.
pub fn numbers_of<M: PolicyModule>(policy: &M, reference: &M, piece: &Piece, rows: usize) -> TokenNumbers {
    let side = |module: &M| Side {
        states: module.states(piece),
        head: module.head(),
    };
    let (policy, reference) = (side(policy), side(reference));
    let mut pass = VocabPass::of(&policy.states.device(), 0, false);
    pass.numbers((&policy, Some(&reference)), &piece.tokens, rows)
}
