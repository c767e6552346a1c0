//! A loss as a function of what policy and reference say of response tokens. Knows no model and no tensor.

use super::pieces::PolicyItem;

/// What is known of one response.
#[derive(Debug, Clone, Copy)]
pub struct ResponseTokens<'a> {
    /// The response.
    pub item: &'a PolicyItem,
    /// `log pi(y_t | x, y_<t)`, natural. Empty where the loss is linear. `[T]`
    pub log_probs: &'a [f64],
    /// Of the reference. Empty where the loss does not read them. `[T]`
    pub reference_log_probs: &'a [f64],
    /// `KL(pi || ref)` of the token's distribution. Empty where the loss does not read it. `[T]`
    pub kl_nats: &'a [f64],
}

/// Derivatives of a loss by the two numbers of each token, with its value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenDerivatives {
    /// The loss.
    pub value: f64,
    /// `dL / d log pi(y_t)`, response after response.
    pub log_prob: Vec<f64>,
    /// `dL / d KL_t`, response after response; empty where it is 0.
    pub kl: Vec<f64>,
    /// Numbers to report, as mean of `sum / count`.
    pub numbers: Vec<(&'static str, f64, f64)>,
}

/// What a loss asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Nothing: its derivatives do not depend on the policy, its value is linear in log-probs.
    Nothing,
    /// Log-probs of policy and reference.
    LogProbs,
    /// Also the exact KL of every position.
    Kl,
}

/// A loss over responses that belong together (of one prompt, or the two of a pair).
pub trait TokenLoss {
    /// What it asks for.
    fn reads(&self) -> Reads;

    /// What one unit counts as, of which the loop takes the mean.
    fn num_items(&self, unit: &[ResponseTokens<'_>]) -> u64;

    /// Value and derivatives; what is drawn (tokens, rewards, advantages) is constant.
    fn derivatives(&self, unit: &[ResponseTokens<'_>]) -> TokenDerivatives;
}

/// `sum_t (log pi - log ref)` of a response.
pub(super) fn log_ratio(tokens: &ResponseTokens<'_>) -> f64 {
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    sum(tokens.log_probs) - sum(tokens.reference_log_probs)
}

/// Derivatives of a loss of the pair's difference of log-ratios `h`, of which `slope` is `dL / dh`.
pub(super) fn of_pair(pair: &[ResponseTokens<'_>], slope: f64) -> Vec<f64> {
    let of = |side: &ResponseTokens<'_>, sign: f64| vec![sign * slope; side.log_probs.len()];
    [of(&pair[0], 1.0), of(&pair[1], -1.0)].concat()
}
