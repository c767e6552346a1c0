//! Byte-pair encoding by the `tokenizers` library, from parts that were checked first. Knows no file format.
//!
//! The library's own reader trusts its input: a merge rule whose result is longer than every piece makes it
//! panic, and a character without a token disappears. Both are refused here, for every format alike.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{
    AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetType, PreTokenizer, PreTokenizerWrapper,
};
use trimtab_base::TokenId;

use crate::byte_level::byte_chars;
use crate::error::TokenizerError;
use crate::tokenizer::SpecialTokens;

/// What a BPE tokenizer is made of.
pub(crate) struct BpeParts {
    /// Every piece of the vocabulary, added tokens included.
    pub(crate) ids: HashMap<String, u32>,
    /// Rules in order of rank.
    pub(crate) merges: Vec<(String, String)>,
    /// How characters without a piece are written.
    pub(crate) coverage: Coverage,
    /// A word that is a piece is taken whole.
    pub(crate) ignore_merges: bool,
    pub(crate) normalizer: Option<NormalizerWrapper>,
    pub(crate) pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Tokens cut out of the text before anything else.
    pub(crate) added: Vec<AddedToken>,
}

/// How text outside the pieces is represented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// The pre-tokenizer turns text into byte characters, each of which is a piece.
    ByteLevel,
    /// Unknown characters become `<0xNN>` pieces.
    ByteFallback,
    /// Unknown characters become this piece.
    Unknown { piece: String, fuse: bool },
}

/// A checked BPE tokenizer.
pub(crate) struct BpeCodec {
    model: BPE,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Finds all added tokens in a text.
    added: AddedVocabulary,
    /// Finds only the added tokens that are not special.
    added_plain: AddedVocabulary,
    /// Bytes that no piece can write; checked at encoding, since few texts contain them.
    missing_bytes: Vec<u8>,
}

impl BpeCodec {
    pub(crate) fn new(parts: BpeParts) -> Result<Self, TokenizerError> {
        check_merges(&parts.ids, &parts.merges)?;
        let missing_bytes = parts.coverage.missing_bytes(&parts.ids)?;
        let mut builder = BPE::builder()
            .vocab_and_merges(parts.ids.into_iter().collect::<Vocab>(), parts.merges)
            .ignore_merges(parts.ignore_merges)
            .byte_fallback(parts.coverage == Coverage::ByteFallback);
        if let Coverage::Unknown { piece, fuse } = parts.coverage {
            builder = builder.unk_token(piece).fuse_unk(fuse);
        }
        let model = builder.build().map_err(library("vocabulary"))?;
        let mut added = AddedVocabulary::new();
        added
            .add_tokens(parts.added, &model, parts.normalizer.as_ref())
            .map_err(library("added tokens"))?;
        let mut added_plain = added.clone();
        added_plain.set_encode_special_tokens(true);
        let (normalizer, pre_tokenizer) = (parts.normalizer, parts.pre_tokenizer);
        Ok(Self {
            model,
            normalizer,
            pre_tokenizer,
            added,
            added_plain,
            missing_bytes,
        })
    }

    pub(crate) fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<TokenId>, TokenizerError> {
        if let Some(&byte) = self
            .missing_bytes
            .iter()
            .find(|byte| text.as_bytes().contains(byte))
        {
            return Err(TokenizerError::MissingByte { byte });
        }
        let added = match special {
            SpecialTokens::Parse => &self.added,
            SpecialTokens::AsText => &self.added_plain,
        };
        let mut words = added.extract_and_normalize(self.normalizer.as_ref(), text);
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer
                .pre_tokenize(&mut words)
                .map_err(library("pre-tokenizer"))?;
        }
        words
            .tokenize(|word| self.model.tokenize(word.get()))
            .map_err(library("merging"))?;
        let encoding = words
            .into_encoding(None, 0, OffsetType::None)
            .map_err(library("merging"))?;
        Ok(encoding.get_ids().iter().copied().map(TokenId).collect())
    }

    pub(crate) fn token_id(&self, piece: &str) -> Option<TokenId> {
        self.model.token_to_id(piece).map(TokenId)
    }
}

impl Coverage {
    /// Bytes without a piece, or an error if that can never be right.
    fn missing_bytes(&self, ids: &HashMap<String, u32>) -> Result<Vec<u8>, TokenizerError> {
        match self {
            // Vocabularies may leave out bytes that UTF-8 never uses, so this is no fault yet.
            Self::ByteLevel => Ok((0..=255_u8)
                .zip(byte_chars())
                .filter(|(_, ch)| !ids.contains_key(ch.encode_utf8(&mut [0; 4]) as &str))
                .map(|(byte, _)| byte)
                .collect()),
            Self::ByteFallback => {
                match (0..=255_u8).find(|byte| !ids.contains_key(&format!("<0x{byte:02X}>"))) {
                    Some(byte) => Err(TokenizerError::MissingByte { byte }),
                    None => Ok(Vec::new()),
                }
            }
            Self::Unknown { piece, .. } if !ids.contains_key(piece) => Err(TokenizerError::Missing {
                field: "the unknown token's piece",
            }),
            Self::Unknown { .. } => Ok(Vec::new()),
        }
    }
}

/// Each rule must join two pieces into a third.
fn check_merges(ids: &HashMap<String, u32>, merges: &[(String, String)]) -> Result<(), TokenizerError> {
    let mut joined = String::new();
    for (merge_idx, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let problem = if !ids.contains_key(left) {
            "its left side is not a token"
        } else if !ids.contains_key(right) {
            "its right side is not a token"
        } else if !ids.contains_key(&joined) {
            "its result is not a token"
        } else {
            continue;
        };
        return Err(TokenizerError::BadMerge {
            merge_idx,
            merge: format!("{left} {right}"),
            problem,
        });
    }
    Ok(())
}

/// Turns the library's boxed errors into ours.
pub(crate) fn library(stage: &'static str) -> impl Fn(tokenizers::Error) -> TokenizerError {
    move |error| TokenizerError::Library {
        stage,
        problem: error.to_string(),
    }
}
