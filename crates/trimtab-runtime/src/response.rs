//! A response that is given as text, as the tokens that its author would have drawn. Knows templates, no model.

use trimtab_base::TokenId;
use trimtab_tokenizer::{Message, RenderOptions, SpecialTokens, Tokenizer};

use crate::error::RuntimeError;
use crate::prompt::PromptStyle;

/// A prompt and a response to it, as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedResponse {
    /// At least one token for models that have one to begin with.
    pub prompt_ids: Vec<TokenId>,
    /// The response; its end token is the last if it was asked for.
    pub response_ids: Vec<TokenId>,
}

impl PromptStyle {
    /// Token ids of `prompt` and of `response` behind it, with the token that ends an answer if `is_finished`.
    ///
    /// After a chat template the response is a text of its own. A raw prompt and what continues it are one text, whose
    /// words may reach over the joint: the tokens that change when the response is appended count as the response's.
    ///
    /// # Errors
    /// Those of [`Self::encode`].
    pub fn encode_response(
        &self,
        tokenizer: &Tokenizer,
        prompt: &str,
        response: &str,
        is_finished: bool,
    ) -> Result<EncodedResponse, RuntimeError> {
        let prompt_ids = self.encode(tokenizer, prompt)?;
        self.encode_behind(tokenizer, (prompt, prompt_ids), response, is_finished)
    }

    /// [`Self::encode_response`] behind a prompt whose ids are known, such as those of a dialogue.
    ///
    /// # Errors
    /// A tokenizer that cannot encode.
    pub fn encode_behind(
        &self,
        tokenizer: &Tokenizer,
        (prompt, mut prompt_ids): (&str, Vec<TokenId>),
        response: &str,
        is_finished: bool,
    ) -> Result<EncodedResponse, RuntimeError> {
        let is_chat = !self.raw && tokenizer.chat_template().is_some();
        let mut response_ids = if response.is_empty() {
            Vec::new()
        } else if is_chat {
            tokenizer.encode(response, SpecialTokens::AsText)?
        } else {
            let whole = tokenizer.encode_prompt(&format!("{prompt}{response}"))?;
            let num_same = whole.iter().zip(&prompt_ids).take_while(|(a, b)| a == b).count();
            let start = num_same.clamp(1, whole.len().max(1)).min(whole.len());
            prompt_ids = whole[..start].to_vec();
            whole[start..].to_vec()
        };
        if is_finished {
            response_ids.extend(self.end_token(tokenizer));
        }
        Ok(EncodedResponse {
            prompt_ids,
            response_ids,
        })
    }

    /// The token that ends an answer in this style: what the chat template writes after one, else the model's end of
    /// text. `None` for a model without any.
    pub fn end_token(&self, tokenizer: &Tokenizer) -> Option<TokenId> {
        let stops = tokenizer.stop_tokens();
        let first = stops.first().copied();
        if self.raw || tokenizer.chat_template().is_none() {
            return first;
        }
        let conversation = [Message::new("user", "a"), Message::new("assistant", "b")];
        // A template that refuses a conversation that has gone on says nothing about ends.
        let rendered = tokenizer
            .encode_chat(&conversation, &RenderOptions::default())?
            .ok();
        let ends = rendered.and_then(|ids| ids.into_iter().rev().find(|id| stops.contains(id)));
        ends.or(first)
    }
}
