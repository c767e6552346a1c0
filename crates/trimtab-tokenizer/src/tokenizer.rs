//! The one tokenizer type that the rest of Trimtab sees. Knows no file format.

use std::fmt;

use trimtab_base::{TokenBytes, TokenId};

use crate::bpe::BpeCodec;
use crate::chat::{ChatTemplate, Message, RenderOptions};
use crate::error::TokenizerError;
use crate::piece_bytes::PieceBytes;
use crate::score_merge::ScoreMerge;

/// Largest vocabulary that is accepted; real ones end near 260,000.
pub(crate) const MAX_VOCAB_LEN: usize = 1 << 22;

/// How control tokens written out in a text are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// `<|im_end|>` in the text becomes the control token: for prompts made by a chat template.
    Parse,
    /// `<|im_end|>` in the text stays ten characters: for text from users and files.
    AsText,
}

/// Text to token ids and back, for one model. Cheap to share in an `Arc`; all methods take `&self`.
pub struct Tokenizer {
    pub(crate) codec: Codec,
    pub(crate) bytes: PieceBytes,
    pub(crate) bos: Option<TokenId>,
    /// Whether raw prompts start with `bos`.
    pub(crate) add_bos: bool,
    pub(crate) stop_tokens: Vec<TokenId>,
    /// Whether encoding put a space before the text, which decoding a whole text must take away.
    pub(crate) strips_leading_space: bool,
    pub(crate) chat_template: Option<ChatTemplate>,
}

/// The algorithm and its vocabulary.
pub(crate) enum Codec {
    /// Byte-pair encoding by merge rules.
    Bpe(Box<BpeCodec>),
    /// SentencePiece's merging by scores.
    Scores(Box<ScoreMerge>),
}

impl Tokenizer {
    /// Token ids of `text`, without BOS.
    ///
    /// Tokenizers that put a space before a text do so here as well: this encodes a text from its beginning.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<TokenId>, TokenizerError> {
        match &self.codec {
            Codec::Bpe(codec) => codec.encode(text, special),
            Codec::Scores(codec) => codec.encode(text, special),
        }
    }

    /// Token ids of a raw prompt, with BOS if the model asks for it and control tokens read as text.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let mut ids: Vec<TokenId> = self.bos.filter(|_| self.add_bos).into_iter().collect();
        ids.extend(self.encode(text, SpecialTokens::AsText)?);
        Ok(ids)
    }

    /// Token ids of a conversation through the model's chat template; `None` if the model has no template.
    ///
    /// The template writes BOS itself where the model wants one.
    pub fn encode_chat(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Option<Result<Vec<TokenId>, TokenizerError>> {
        let template = self.chat_template.as_ref()?;
        let text = template.render(messages, options).map_err(TokenizerError::from);
        Some(text.and_then(|text| self.encode(&text, SpecialTokens::Parse)))
    }

    /// Text of a whole encoded text; invalid UTF-8 becomes U+FFFD.
    ///
    /// The inverse of [`encode`](Self::encode). It differs from [`TokenBytes::text_of`] only for SentencePiece
    /// tokenizers with a space prefix: that one leading space is taken away here and kept there.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let text = self.text_of(ids);
        match text.strip_prefix(' ') {
            Some(stripped) if self.strips_leading_space => stripped.to_owned(),
            _ => text,
        }
    }

    /// Number of ids, the largest plus one. Models may have more rows of logits, as padding.
    pub fn vocab_len(&self) -> usize {
        self.bytes.len()
    }

    /// The token that begins texts, if the model has one.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// Tokens that end an answer: end of text and end of turn, ascending.
    pub fn stop_tokens(&self) -> &[TokenId] {
        &self.stop_tokens
    }

    /// Id of a piece as it is stored in the vocabulary, e.g. `<|im_end|>` or `Ġthe`.
    pub fn token_id(&self, piece: &str) -> Option<TokenId> {
        match &self.codec {
            Codec::Bpe(codec) => codec.token_id(piece),
            Codec::Scores(codec) => codec.token_id(piece),
        }
    }

    /// The model's chat template; `None` for a base model.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }
}

impl TokenBytes for Tokenizer {
    fn bytes_of(&self, token: TokenId) -> &[u8] {
        self.bytes.get(token.index())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_len", &self.vocab_len())
            .field("bos", &self.bos)
            .field("add_bos", &self.add_bos)
            .field("stop_tokens", &self.stop_tokens)
            .field("chat_template", &self.chat_template.is_some())
            .finish_non_exhaustive()
    }
}
