//! What a user says as the token ids a model was trained on. Knows templates, not decoding.

use trimtab_base::TokenId;
use trimtab_tokenizer::{Message, RenderOptions, SpecialTokens, Tokenizer};

use crate::error::RuntimeError;

/// How a prompt reaches the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptStyle {
    /// Hand the text over as it is, without the chat template: the model continues it.
    pub raw: bool,
    /// System message before the prompt. `None` leaves it to the template, which may have one of its own.
    pub system: Option<String>,
}

impl PromptStyle {
    /// Token ids of `prompt` for this tokenizer's model.
    ///
    /// Models with a chat template get a user turn and the opening of an answer; others get the text with their start
    /// token, if they have one.
    ///
    /// # Errors
    /// A system message for a model without a template, a template that refuses the messages.
    pub fn encode(&self, tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<TokenId>, RuntimeError> {
        if self.raw || tokenizer.chat_template().is_none() {
            if self.system.is_some() {
                return Err(RuntimeError::NoChatTemplate);
            }
            return encode_raw(tokenizer, prompt);
        }
        let system = self
            .system
            .iter()
            .map(|text| Message::new("system", text.clone()));
        let messages: Vec<Message> = system.chain([Message::new("user", prompt)]).collect();
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        match tokenizer.encode_chat(&messages, &options) {
            Some(ids) => Ok(ids?),
            None => Err(RuntimeError::NoChatTemplate),
        }
    }
}

fn encode_raw(tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<TokenId>, RuntimeError> {
    let ids = tokenizer.encode_prompt(prompt)?;
    if !ids.is_empty() {
        return Ok(ids);
    }
    // An empty text still has a beginning, which models without a start token of their own mark by their end.
    let start = tokenizer
        .bos()
        .or_else(|| tokenizer.stop_tokens().first().copied());
    Ok(start
        .into_iter()
        .chain(tokenizer.encode("", SpecialTokens::AsText)?)
        .collect())
}
