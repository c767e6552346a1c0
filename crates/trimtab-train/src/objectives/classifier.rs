//! Classifiers on the state after the last token: labels of single responses, or which of two is better.
//!
//! The state head's value is the logit, so a classifier is a scorer like any other: its file, kernels and decoding.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

use super::vector;
use crate::heads::Heads;
use crate::trainer::{Loss, Objective, Progress};

/// Labelled responses.
#[derive(Debug, Clone)]
pub struct LabelBatch {
    /// Standardised states. `[responses, hidden_len]`
    pub hidden: Tensor<2>,
    /// Probability of the positive class. `[responses]`
    pub labels: Vec<f32>,
}

/// Pairs of responses.
#[derive(Debug, Clone)]
pub struct PairBatch {
    /// Standardised states of the better ones. `[pairs, hidden_len]`
    pub chosen: Tensor<2>,
    /// Standardised states of the others. `[pairs, hidden_len]`
    pub rejected: Tensor<2>,
}

/// Logistic loss `-(p log s(V) + (1 - p) log s(-V))` with the logistic function `s`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pointwise;

impl Objective<Heads> for Pointwise {
    type Batch = LabelBatch;

    fn loss(&self, heads: &Heads, batch: &LabelBatch, _progress: Progress) -> Loss {
        let logits = heads.state.forward(batch.hidden.clone());
        let positive = vector(batch.labels.clone(), &logits.device());
        let negative = vector(
            batch.labels.iter().map(|label| 1.0 - label).collect(),
            &logits.device(),
        );
        let log_prob = log_sigmoid(logits.clone()) * positive + log_sigmoid(logits.neg()) * negative;
        Loss {
            sum: log_prob.sum().neg(),
            num_items: batch.labels.len() as u64,
        }
    }
}

/// Bradley and Terry's loss `-log s(V(chosen) - V(rejected))`, as the paper's reward models are trained (CD sec. 4).
#[derive(Debug, Clone, Copy, Default)]
pub struct BradleyTerry;

impl Objective<Heads> for BradleyTerry {
    type Batch = PairBatch;

    fn loss(&self, heads: &Heads, batch: &PairBatch, _progress: Progress) -> Loss {
        let margin = heads.state.forward(batch.chosen.clone()) - heads.state.forward(batch.rejected.clone());
        let [num_pairs] = margin.dims();
        Loss {
            sum: log_sigmoid(margin).sum().neg(),
            num_items: num_pairs as u64,
        }
    }
}
