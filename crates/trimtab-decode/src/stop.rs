//! When a response ends, and its text. Knows token bytes, not how tokens are chosen.

use serde::{Deserialize, Serialize};
use trimtab_base::{TokenBytes, TokenId};

use crate::DecodeError;
use crate::need::{Candidate, FinishReason, Prefix, SampledToken};

/// What ends a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRules {
    /// Tokens that end the response, such as the end of sequence. They are kept in its tokens, not in its text.
    #[serde(default)]
    pub stop_tokens: Vec<TokenId>,
    /// Texts that end the response; its text is cut before the first of them. None may be empty.
    #[serde(default)]
    pub stop_strings: Vec<String>,
    /// Most tokens of a response, a stop token included; at least 1.
    pub max_new_tokens: usize,
}

impl StopRules {
    /// Refuses rules that could never let a token be drawn.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] for an empty stop string or no new tokens.
    pub fn validate(&self) -> Result<(), DecodeError> {
        if self.max_new_tokens == 0 {
            return Err(DecodeError::invalid(
                "max_new_tokens",
                "a whole number that is at least 1",
                &0,
            ));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            let expected = "texts of at least one character (remove the empty one)";
            return Err(DecodeError::invalid(
                "stop_strings",
                expected,
                &format!("{:?}", self.stop_strings),
            ));
        }
        Ok(())
    }
}

/// A response that grows token by token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    token_ids: Vec<TokenId>,
    bytes: Vec<u8>,
    log_prob: f64,
    reference_log_prob: f64,
    kl_nats: f64,
    token_log_probs: Vec<f32>,
    finish: Option<FinishReason>,
}

impl Response {
    /// Tokens so far.
    pub(crate) fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// The tokens so far.
    pub(crate) fn token_ids(&self) -> &[TokenId] {
        &self.token_ids
    }

    /// Bytes of the text so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The response as it stands, for a scorer that reads text.
    pub(crate) fn prefix(&self) -> Prefix {
        let whole = if self.is_finished() {
            &self.bytes
        } else {
            without_unfinished_char(&self.bytes)
        };
        Prefix {
            token_ids: self.token_ids.clone(),
            text: String::from_utf8_lossy(whole).into_owned(),
            is_finished: self.is_finished(),
        }
    }

    /// Sum of the reference's log-probabilities so far, in nats.
    pub(crate) fn reference_log_prob(&self) -> f64 {
        self.reference_log_prob
    }

    /// Whether a rule has ended it.
    pub(crate) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Appends a drawn token and looks whether it ends the response; says so.
    pub(crate) fn push(&mut self, sampled: &SampledToken, rules: &StopRules, bytes: &dyn TokenBytes) -> bool {
        self.token_ids.push(sampled.token);
        self.log_prob += sampled.log_prob;
        self.token_log_probs.push(sampled.log_prob as f32);
        self.reference_log_prob += sampled.reference_log_prob;
        self.kl_nats += sampled.kl_nats;
        self.finish = if rules.stop_tokens.contains(&sampled.token) {
            Some(FinishReason::StopToken)
        } else if self.cut_at_stop_string(bytes.bytes_of(sampled.token), &rules.stop_strings) {
            Some(FinishReason::StopString)
        } else {
            (self.token_ids.len() >= rules.max_new_tokens).then_some(FinishReason::Length)
        };
        self.is_finished()
    }

    /// Whether appending `token` would end it: what [`Self::push`] would say, without a change.
    pub(crate) fn would_end(&self, token: TokenId, rules: &StopRules, bytes: &dyn TokenBytes) -> bool {
        let completes = |stop: &String| {
            // The part of the old bytes that a match ending in the new ones can begin in.
            let from = (self.bytes.len() + 1).saturating_sub(stop.len());
            let window = [&self.bytes[from..], bytes.bytes_of(token)].concat();
            find(&window, stop.as_bytes()).is_some()
        };
        rules.stop_tokens.contains(&token)
            || self.token_ids.len() + 1 >= rules.max_new_tokens
            || rules.stop_strings.iter().any(completes)
    }

    /// Adds bytes; cuts before the earliest stop string that is now complete, if any.
    fn cut_at_stop_string(&mut self, new_bytes: &[u8], stop_strings: &[String]) -> bool {
        let old_len = self.bytes.len();
        self.bytes.extend_from_slice(new_bytes);
        let earliest = stop_strings
            .iter()
            .filter_map(|stop| {
                // A match that ends in the old bytes would have ended the response before.
                let from = (old_len + 1).saturating_sub(stop.len());
                find(&self.bytes[from..], stop.as_bytes()).map(|offset| from + offset)
            })
            .min();
        if let Some(start) = earliest {
            self.bytes.truncate(start);
        }
        earliest.is_some()
    }

    /// The finished response as candidate `candidate_idx`; `None` while it grows.
    pub(crate) fn into_candidate(self, candidate_idx: u64) -> Option<Candidate> {
        Some(Candidate {
            candidate_idx,
            token_ids: self.token_ids,
            text: String::from_utf8_lossy(&self.bytes).into_owned(),
            log_prob: self.log_prob,
            reference_log_prob: self.reference_log_prob,
            kl_nats: self.kl_nats,
            finish: self.finish?,
            reward: None,
            token_log_probs: self.token_log_probs,
        })
    }
}

/// The bytes without those of a character that is not complete at their end.
fn without_unfinished_char(bytes: &[u8]) -> &[u8] {
    let rest = bytes
        .utf8_chunks()
        .last()
        .map_or(&[][..], |chunk| chunk.invalid());
    // No length: the bytes could go on as a character.
    let is_unfinished = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
    if is_unfinished {
        &bytes[..bytes.len() - rest.len()]
    } else {
        bytes
    }
}

/// Where `needle`, not empty, first begins in `haystack`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests;
