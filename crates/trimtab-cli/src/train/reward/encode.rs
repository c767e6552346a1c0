//! Prompts and responses of judgements as tokens. Knows rows and the tokenizer, no files.

use anyhow::Result;
use trimtab_base::{PromptKey, TokenId};
use trimtab_runtime::{PromptStyle, TextForm, cut_to_tokens};

use super::config::DataConfig;
use super::texts::{Item, Reads, key_of};

/// What responses of a row stand behind.
pub(super) struct Prompt {
    /// Of the prompt, or of the texts of a row that has none.
    pub(super) key: u64,
    text: String,
    turns: Vec<(String, String)>,
    ids: Vec<TokenId>,
}

impl Prompt {
    /// The prompt of a row.
    pub(super) fn of(data: &DataConfig, reads: Reads<'_>, item: &Item) -> Result<Self> {
        let (tokenizer, style) = (reads.model.tokenizer(), PromptStyle::default());
        let text = if item.turns.is_some() {
            &item.prompt
        } else {
            &data.prompt
        };
        let turns: Vec<(String, String)> = match &item.turns {
            Some(turns) => turns
                .iter()
                .map(|turn| (turn.role.clone(), turn.content.clone()))
                .collect(),
            None => vec![("user".to_owned(), text.clone())],
        };
        let ids = if tokenizer.chat_template().is_some() {
            style.encode_turns(tokenizer, &borrowed(&turns))?
        } else {
            // A model without a template reads a dialogue as one text.
            style.encode(tokenizer, text)?
        };
        let key = if item.turns.is_some() {
            PromptKey::of_tokens(&ids).0
        } else {
            // Rows without a prompt have only their texts to be told apart by.
            key_of(&item.responses.concat())
        };
        Ok(Self {
            key,
            text: text.clone(),
            turns,
            ids,
        })
    }

    /// Prompt and each response as tokens.
    pub(super) fn encode_all(&self, reads: Reads<'_>, responses: &[String]) -> Result<Vec<Vec<TokenId>>> {
        responses
            .iter()
            .map(|response| self.encode(reads, response))
            .collect()
    }

    /// Prompt and response as tokens.
    fn encode(&self, reads: Reads<'_>, response: &str) -> Result<Vec<TokenId>> {
        let (tokenizer, style) = (reads.model.tokenizer(), PromptStyle::default());
        Ok(match reads.form {
            TextForm::Answer => {
                let prompt = (self.text.as_str(), self.ids.clone());
                let ids = style.encode_behind(tokenizer, prompt, response, true)?;
                [ids.prompt_ids, ids.response_ids].concat()
            }
            TextForm::Conversation => {
                let turns = [&borrowed(&self.turns)[..], &[("assistant", response)]].concat();
                style.encode_conversation(tokenizer, &turns)?
            }
        })
    }
}

fn borrowed(turns: &[(String, String)]) -> Vec<(&str, &str)> {
    turns
        .iter()
        .map(|(role, content)| (role.as_str(), content.as_str()))
        .collect()
}

/// The responses, those that are too long cut.
pub(super) fn cut_responses(data: &DataConfig, reads: Reads<'_>, item: &Item) -> Result<Vec<String>> {
    let cut = |response: &String| {
        let cut = data
            .max_response_tokens
            .map(|most| cut_to_tokens(reads.model.tokenizer(), response, most));
        let cut = cut.transpose()?.flatten();
        Ok(cut.unwrap_or_else(|| response.clone()))
    };
    item.responses.iter().map(cut).collect()
}
