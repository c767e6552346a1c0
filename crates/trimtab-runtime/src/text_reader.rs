//! States at the ends of texts, on a model of their own. Knows prompts and responses as text, no head.
//!
//! The generator may have another tokenizer, so responses come as text and are tokenised anew. A text that grew may end
//! in other tokens than before; the reader keeps whole blocks by their tokens, so it goes on from the last block that is
//! still the same, and a block of M tokens costs about M rows, not the whole prefix. For the same reason a second head
//! that is asked about the same texts costs little: they share one reader.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use trimtab_base::TokenId;
use trimtab_model::ForwardOutput;
use trimtab_tokenizer::{Message, RenderOptions, SpecialTokens, Tokenizer};

use crate::error::RuntimeError;
use crate::loaded::LoadedModel;
use crate::prompt::PromptStyle;
use crate::state_reader::{OutputRow, ReaderLimits, Sequence, StateReader};

/// Prompts whose tokens are kept.
const MAX_PROMPTS: usize = 1024;

/// How a prompt and a response become the text that is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextForm {
    /// As an engine would have drawn it: the response behind the opening of an answer, with the token that ends it.
    #[default]
    Answer,
    /// As the hub's sequence classifiers are trained: the conversation as the chat template writes it; without a template
    /// the two texts as one, and no end.
    Conversation,
}

/// A text to be judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) prompt: &'a str,
    pub(crate) response: &'a str,
    /// Whether the author ended it, where the form says so.
    pub(crate) is_finished: bool,
}

/// A reader that several heads share.
pub type SharedTextReader = Arc<Mutex<TextReader>>;

/// Reads the states after the last tokens of texts.
pub struct TextReader {
    model: LoadedModel,
    reader: StateReader,
    style: PromptStyle,
    form: TextForm,
    prompts: HashMap<String, Vec<TokenId>>,
}

impl PromptStyle {
    /// Token ids of a whole conversation, given as pairs of role and content, as [`TextForm::Conversation`] has it.
    ///
    /// # Errors
    /// Those of [`Self::encode_turns`].
    pub fn encode_conversation(
        &self,
        tokenizer: &Tokenizer,
        turns: &[(&str, &str)],
    ) -> Result<Vec<TokenId>, RuntimeError> {
        let template = (!self.raw).then(|| tokenizer.chat_template()).flatten();
        if template.is_none() {
            let whole: String = turns.iter().map(|(_, content)| *content).collect();
            return Ok(tokenizer.encode_prompt(&whole)?);
        }
        let system = self.system.iter().map(|text| ("system", text.as_str()));
        let messages: Vec<Message> = system
            .chain(turns.iter().copied())
            .map(|(role, content)| Message::new(role, content))
            .collect();
        crate::prompt::encode_chat(tokenizer, &messages, &RenderOptions::default())
    }
}

/// The beginning of `text` that has at most `max_tokens` tokens; `None` if it has no more.
///
/// # Errors
/// A tokenizer that cannot encode.
pub fn cut_to_tokens(
    tokenizer: &Tokenizer,
    text: &str,
    max_tokens: usize,
) -> Result<Option<String>, RuntimeError> {
    let ids = tokenizer.encode(text, SpecialTokens::AsText)?;
    // A character may be cut in two; what is left of it is no text.
    Ok((ids.len() > max_tokens).then(|| {
        let beginning = tokenizer.decode(&ids[..max_tokens]);
        beginning.trim_end_matches('\u{fffd}').to_owned()
    }))
}

impl TextReader {
    /// A reader on `model`.
    ///
    /// # Errors
    /// No address space for keys and values.
    pub fn try_new(
        model: &LoadedModel,
        style: PromptStyle,
        form: TextForm,
        limits: ReaderLimits,
    ) -> Result<Self, RuntimeError> {
        Ok(Self {
            reader: StateReader::try_new(model, limits)?,
            model: model.clone(),
            style,
            form,
            prompts: HashMap::new(),
        })
    }

    /// Hands out the state of each text, by its place among them. `[hidden]`
    pub(crate) fn read<'t>(
        &mut self,
        texts: impl IntoIterator<Item = Text<'t>>,
        on_state: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        let sequences = texts
            .into_iter()
            .enumerate()
            .map(|(idx, text)| self.sequence(idx, &text))
            .collect::<Result<Vec<_>, _>>()?;
        let hidden_len = self.model.config().hidden_len;
        self.reader.run::<RuntimeError>(
            &mut sequences.into_iter(),
            &mut |rows: &[OutputRow], output: &ForwardOutput| {
                for (row, hidden) in rows.iter().zip(output.hidden.chunks_exact(hidden_len)) {
                    on_state(row.sequence, hidden);
                }
                Ok(())
            },
        )
    }

    /// Width of a state.
    pub(crate) fn hidden_len(&self) -> usize {
        self.model.config().hidden_len
    }

    fn sequence(&mut self, idx: usize, text: &Text<'_>) -> Result<Sequence, RuntimeError> {
        let (prompt, tokens) = match self.form {
            TextForm::Answer => self.answer(text)?,
            TextForm::Conversation => {
                let turns = [("user", text.prompt), ("assistant", text.response)];
                let tokenizer = self.model.tokenizer();
                (0, self.style.encode_conversation(tokenizer, &turns)?)
            }
        };
        let context = self.model.config().context_len;
        if tokens.is_empty() {
            return Err(RuntimeError::EmptyPromptIds { idx });
        }
        if tokens.len() > context {
            return Err(RuntimeError::ResponseTooLong {
                idx,
                prompt,
                response: tokens.len() - prompt,
                context,
            });
        }
        Ok(Sequence {
            first_output: tokens.len() - 1,
            shared_len: tokens.len(),
            tokens,
        })
    }

    /// Tokens of prompt and response, and how many are the prompt's.
    fn answer(&mut self, text: &Text<'_>) -> Result<(usize, Vec<TokenId>), RuntimeError> {
        let tokenizer = self.model.tokenizer();
        let prompt_ids = if let Some(known) = self.prompts.get(text.prompt) {
            known.clone()
        } else {
            let ids = self.style.encode(tokenizer, text.prompt)?;
            if self.prompts.len() >= MAX_PROMPTS {
                self.prompts.clear();
            }
            self.prompts.insert(text.prompt.to_owned(), ids.clone());
            ids
        };
        let encoded = self.style.encode_behind(
            tokenizer,
            (text.prompt, prompt_ids),
            text.response,
            text.is_finished,
        )?;
        let num_prompt = encoded.prompt_ids.len();
        Ok((num_prompt, [encoded.prompt_ids, encoded.response_ids].concat()))
    }
}
