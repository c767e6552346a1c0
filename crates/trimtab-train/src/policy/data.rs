//! Responses and pairs that policies learn from, and what of them cannot be used. Knows no loss.

use std::collections::BTreeMap;

use trimtab_model::ModelConfig;

/// One response with its reward.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyResponse {
    /// Of the prompt: baselines are over the responses of one prompt, and parts are divided by it.
    pub key: u64,
    /// At least one token.
    pub prompt_token_ids: Vec<u32>,
    /// What was drawn, end of sequence included if it was. `[T]`
    pub token_ids: Vec<u32>,
    /// Natural log-probability of each token under the sampler that drew it (an engine of lower precision, earlier
    /// weights). Empty: drawn by the policy itself. `[T]`
    pub sampler_log_probs: Vec<f32>,
    /// Raw or transformed, in its own unit.
    pub reward: f64,
    /// Multiplies what the response counts; usually 1.
    pub weight: f64,
    /// Whether the reference has drawn it and not the policy. The reference's log-probs are known where they are needed, so
    /// that `sampler_log_probs` may be empty.
    pub is_of_reference: bool,
}

/// A preference between two responses to one prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PreferenceTokens {
    /// Of the prompt.
    pub key: u64,
    /// At least one token.
    pub prompt_token_ids: Vec<u32>,
    /// The better response. `[T]`
    pub chosen: Vec<u32>,
    /// The worse response. `[T']`
    pub rejected: Vec<u32>,
    /// Multiplies what the pair counts; usually 1.
    pub weight: f64,
}

/// What was left out, by reason: nothing is dropped without being counted here.
pub type Skipped = BTreeMap<&'static str, u64>;

/// What is wrong with a response; none if nothing is.
pub(super) fn problem_of(response: &PolicyResponse, model: &ModelConfig) -> Option<Problem> {
    let numbers = [response.reward, response.weight];
    if numbers.iter().any(|number| !number.is_finite()) || response.weight < 0.0 {
        let (reward, weight) = (response.reward, response.weight);
        return Some(Problem::Bad(format!(
            "reward {reward} and weight {weight}, expected finite numbers and no negative weight"
        )));
    }
    let num_log_probs = response.sampler_log_probs.len();
    if num_log_probs != 0 && num_log_probs != response.token_ids.len() {
        let expected = response.token_ids.len();
        return Some(Problem::Bad(format!(
            "{num_log_probs} log-probs of the sampler, expected {expected}, one for each token"
        )));
    }
    if response
        .sampler_log_probs
        .iter()
        .any(|log_prob| !log_prob.is_finite())
    {
        let problem = "a log-prob of the sampler is not finite: the sampler cannot have drawn that token";
        return Some(Problem::Bad(problem.to_owned()));
    }
    problem_of_tokens(&response.prompt_token_ids, &response.token_ids, model)
}

/// A reason to leave something out, or to refuse everything.
pub(super) enum Problem {
    /// To be counted under this name.
    Skip(&'static str),
    /// An error of whoever made the data.
    Bad(String),
}

pub(super) fn problem_of_tokens(prompt: &[u32], response: &[u32], model: &ModelConfig) -> Option<Problem> {
    if prompt.is_empty() {
        return Some(Problem::Skip("empty prompt"));
    }
    if response.is_empty() {
        return Some(Problem::Skip("empty response"));
    }
    if prompt.len() + response.len() > model.context_len {
        return Some(Problem::Skip("longer than the context"));
    }
    let mut ids = prompt.iter().chain(response);
    let token = ids.find(|&&id| id as usize >= model.vocab_len)?;
    let vocab_len = model.vocab_len;
    Some(Problem::Bad(format!(
        "token id {token} is outside the vocabulary of {vocab_len}"
    )))
}
