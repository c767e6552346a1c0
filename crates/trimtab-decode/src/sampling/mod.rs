//! Sampling policies: what is drawn from a row of logits. Knows one row, not the sequence it belongs to.
//!
//! Filters apply in the order of Hugging Face transformers' `generate`: temperature, top-k, top-p, min-p, each on
//! the renormalised result of the one before. (llama.cpp's default order has temperature last; the two agree at
//! temperature 1 and whenever temperature is the only setting.) Where tokens tie at a cut, the lower token id stays,
//! so top-k keeps exactly k; transformers keeps all tokens that tie with the k-th.

mod greedy;
mod min_p;
mod temperature;
mod top_k;
mod top_p;

use serde::{Deserialize, Serialize};
use trimtab_base::prob::log_softmax_in_place;

use crate::DecodeError;

/// How a token is drawn from next-token logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; finite, at least 0. 1 (default) is the reference policy, 0 is greedy: the most probable
    /// token with certainty, whatever the other settings.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// Keep this many most probable tokens; at least 1. Fan et al. 2018, arXiv 1805.04833.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Keep the fewest most probable tokens with at least this probability in sum; in `(0, 1]`.
    /// Holtzman et al. 2019, arXiv 1904.09751.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Keep tokens with at least this fraction of the most probable token's probability; in `[0, 1)`.
    /// Nguyen et al. 2024, arXiv 2407.01082.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
}

fn default_temperature() -> f64 {
    1.0
}

impl Sampling {
    /// The reference policy itself: temperature 1, nothing cut.
    pub const REFERENCE: Self = Self {
        temperature: 1.0,
        top_k: None,
        top_p: None,
        min_p: None,
    };

    /// The most probable token with certainty.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        ..Self::REFERENCE
    };

    /// The reference policy at another temperature.
    pub fn at_temperature(temperature: f64) -> Self {
        Self {
            temperature,
            ..Self::REFERENCE
        }
    }

    /// Refuses settings out of range.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] naming the setting, its range and the value.
    pub fn validate(&self) -> Result<(), DecodeError> {
        let (temperature, top_k, top_p, min_p) = (self.temperature, self.top_k, self.top_p, self.min_p);
        if !(temperature.is_finite() && temperature >= 0.0) {
            let expected = "a finite number that is at least 0 (0 is greedy, 1 samples the model as it is)";
            return Err(DecodeError::invalid("temperature", expected, &temperature));
        }
        if top_k == Some(0) {
            let expected = "a whole number that is at least 1 (leave it out to keep all tokens)";
            return Err(DecodeError::invalid("top_k", expected, &0));
        }
        if let Some(top_p) = top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            let expected = "a number above 0 and at most 1 (1 or leaving it out keeps all tokens)";
            return Err(DecodeError::invalid("top_p", expected, &top_p));
        }
        if let Some(min_p) = min_p.filter(|p| !(*p >= 0.0 && *p < 1.0)) {
            let expected = "a number that is at least 0 and below 1 (0 or leaving it out keeps all tokens)";
            return Err(DecodeError::invalid("min_p", expected, &min_p));
        }
        Ok(())
    }

    /// Whether no token is cut, so that temperature alone says the policy.
    pub fn is_plain(&self) -> bool {
        self.top_k.is_none() && self.top_p.is_none_or(|p| p >= 1.0) && self.min_p.is_none_or(|p| p <= 0.0)
    }

    /// Log-probabilities in nats of the policy for a row of logits; cut tokens have negative infinity.
    ///
    /// The slow reference for anything faster. The row must have a finite logit and neither NaN nor positive
    /// infinity, as [`crate::RowOp::apply`] checks.
    ///
    /// # Shapes
    /// `[vocab] -> [vocab]`
    pub fn policy_log_probs(&self, logits: &[f32]) -> Vec<f64> {
        let mut log_probs: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        if self.temperature == 0.0 {
            greedy::apply(&mut log_probs);
            return log_probs;
        }
        temperature::apply(&mut log_probs, self.temperature);
        log_softmax_in_place(&mut log_probs);
        if let Some(top_k) = self.top_k {
            top_k::apply(&mut log_probs, top_k);
            log_softmax_in_place(&mut log_probs);
        }
        if let Some(top_p) = self.top_p {
            top_p::apply(&mut log_probs, top_p);
            log_softmax_in_place(&mut log_probs);
        }
        if let Some(min_p) = self.min_p {
            min_p::apply(&mut log_probs, min_p);
            log_softmax_in_place(&mut log_probs);
        }
        log_probs
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self::REFERENCE
    }
}

/// Indices of tokens with positive probability, most probable first, ties by lower token id.
fn by_probability(log_probs: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..log_probs.len())
        .filter(|&idx| log_probs[idx] > f64::NEG_INFINITY)
        .collect();
    order.sort_by(|&a, &b| log_probs[b].total_cmp(&log_probs[a]));
    order
}

#[cfg(test)]
mod tests;
