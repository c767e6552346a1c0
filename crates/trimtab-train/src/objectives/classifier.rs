//! Classifiers on the state after the last token: labels of single responses, or which of two is better.
//!
//! The state head's value is the logit, so a classifier is a scorer like any other: its file, kernels and decoding.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

use super::vector;
use crate::heads::Heads;
use crate::trainer::{Loss, Objective, Progress};

/// Responses with what was said of them.
#[derive(Debug, Clone)]
pub struct ClassifierBatch {
    /// Standardised states: those of labelled responses, or of all better ones and then all others.
    /// `[responses, hidden_len]` or `[2 * pairs, hidden_len]`
    pub hidden: Tensor<2>,
    /// What was said.
    pub verdicts: BatchVerdicts,
}

/// What was said of the items of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchVerdicts {
    /// Probability of the positive class. `[responses]`
    Labels(Vec<f32>),
    /// The first of two is better.
    Pairs {
        /// Least difference of values, in logits. `[pairs]`
        margins: Vec<f32>,
    },
}

impl BatchVerdicts {
    /// Number of items.
    pub fn len(&self) -> usize {
        match self {
            Self::Labels(labels) => labels.len(),
            Self::Pairs { margins } => margins.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same without margins.
    #[must_use]
    pub fn without_margins(&self) -> Self {
        match self {
            Self::Labels(labels) => Self::Labels(labels.clone()),
            Self::Pairs { margins } => Self::Pairs {
                margins: vec![0.0; margins.len()],
            },
        }
    }

    /// How many items these logits get right; a tie counts half. `logits` as the batch's states: `[responses]` or
    /// `[2 * pairs]`
    pub fn num_right(&self, logits: &[f32]) -> f64 {
        match self {
            // The sign that fits the likelier class; a label of one half has no right side.
            Self::Labels(labels) => logits
                .iter()
                .zip(labels)
                .map(|(logit, label)| rightness(logit * (label - 0.5)))
                .sum(),
            Self::Pairs { margins } => {
                let (chosen, rejected) = logits.split_at(margins.len());
                chosen.iter().zip(rejected).map(|(a, b)| rightness(a - b)).sum()
            }
        }
    }
}

fn rightness(margin: f32) -> f64 {
    match margin {
        margin if margin > 0.0 => 1.0,
        margin if margin < 0.0 => 0.0,
        _ => 0.5,
    }
}

/// Losses of classifiers, with the logistic function `s`:
///
/// - labels: `-(p log s(V) + (1 - p) log s(-V))`;
/// - pairs: Bradley and Terry's `-log s(d - m)` with `d = V(chosen) - V(rejected)`, as the paper's reward models are
///   trained (CD sec. 4), where the margin `m` is 0 in the paper.
///
/// With label smoothing `e` each is `(1 - e)` times the loss of what was said plus `e` times the loss of its opposite:
/// `p` becomes `p (1 - e) + (1 - p) e`, and a pair adds `-e log s(-d - m)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClassifierLoss {
    /// Probability that a verdict is the wrong way round, in `[0, 0.5)`.
    pub label_smoothing: f64,
}

impl ClassifierLoss {
    /// The loss of a batch with these values. `logits`: `[responses]`, or `[2 * pairs]` with the better ones first
    pub fn of_logits(&self, logits: Tensor<1>, verdicts: &BatchVerdicts) -> Loss {
        let flipped = self.label_smoothing as f32;
        let device = logits.device();
        let log_prob = match verdicts {
            BatchVerdicts::Labels(labels) => {
                let smoothed = |label: &f32| label * (1.0 - flipped) + (1.0 - label) * flipped;
                let positive = vector(labels.iter().map(smoothed).collect(), &device);
                let negative = vector(
                    labels.iter().map(|label| 1.0 - smoothed(label)).collect(),
                    &device,
                );
                log_sigmoid(logits.clone()) * positive + log_sigmoid(logits.neg()) * negative
            }
            BatchVerdicts::Pairs { margins } => {
                let pairs = margins.len();
                let difference = logits.clone().narrow(0, 0, pairs) - logits.narrow(0, pairs, pairs);
                let margins = vector(margins.clone(), &device);
                let right = log_sigmoid(difference.clone() - margins.clone());
                if flipped > 0.0 {
                    let wrong = log_sigmoid(difference.neg() - margins);
                    right.mul_scalar(1.0 - flipped) + wrong.mul_scalar(flipped)
                } else {
                    right
                }
            }
        };
        Loss {
            sum: log_prob.sum().neg(),
            num_items: verdicts.len() as u64,
        }
    }
}

impl Objective<Heads> for ClassifierLoss {
    type Batch = ClassifierBatch;

    fn loss(&self, heads: &Heads, batch: &ClassifierBatch, _progress: Progress) -> Loss {
        self.of_logits(heads.state.forward(batch.hidden.clone()), &batch.verdicts)
    }
}
