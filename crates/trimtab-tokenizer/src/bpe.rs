//! Byte-pair encoding by the `tokenizers` library, from parts that were checked first. Knows no file format.
//!
//! The library's own reader trusts its input: a merge rule whose result is longer than every piece makes it
//! panic, a character without a token disappears, and a control token that merges can spell is made from plain
//! text. All three are ruled out here, for every format alike; the last by keeping control tokens out of the
//! library's vocabulary.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::{
    AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper,
};
use trimtab_base::TokenId;

use crate::byte_level::byte_chars;
use crate::error::TokenizerError;
use crate::space_mark::{Prefix, SPACE_MARK, mark_spaces};
use crate::tokenizer::SpecialTokens;

/// Most added tokens that are accepted; real vocabularies end near 7,000, and the library compares each with each.
const MAX_ADDED_LEN: usize = 1 << 15;

/// What a BPE tokenizer is made of.
pub(crate) struct BpeParts {
    /// Every piece of the vocabulary, added tokens included.
    pub(crate) ids: HashMap<String, u32>,
    /// Rules in order of rank.
    pub(crate) merges: Vec<(String, String)>,
    /// A word that is a piece is taken whole.
    pub(crate) ignore_merges: bool,
    /// How text becomes words of pieces' characters.
    pub(crate) words: Words,
    /// Tokens cut out of the text before anything else; each is one of `ids`.
    pub(crate) added: Vec<AddedToken>,
}

/// How text is written in the characters of the pieces.
pub(crate) enum Words {
    /// Byte-level BPE: the pre-tokenizer cuts words and writes them as byte characters, each of which is a piece.
    ByteLevel {
        normalizer: Option<Box<NormalizerWrapper>>,
        pre_tokenizer: Box<PreTokenizerWrapper>,
    },
    /// SentencePiece's writing: spaces as `▁`, no words, characters without a piece as `<0xNN>` pieces.
    SpaceMark { prefix: Prefix },
}

/// A checked BPE tokenizer.
pub(crate) struct BpeCodec {
    model: BPE,
    words: Words,
    /// Finds all added tokens in a text.
    added: AddedVocabulary,
    /// Finds only the added tokens that are not special.
    added_plain: AddedVocabulary,
    /// Ids of the special tokens, which `model` does not know.
    special_ids: HashMap<String, u32>,
    /// Bytes that no piece can write; checked at encoding, since few texts contain them.
    missing_bytes: Vec<u8>,
}

impl BpeCodec {
    pub(crate) fn new(parts: BpeParts) -> Result<Self, TokenizerError> {
        check_merges(&parts.ids, &parts.merges)?;
        let missing_bytes = parts.words.missing_bytes(&parts.ids)?;
        let (added, special_ids) = added_vocabulary(parts.added, &parts.ids, &parts.words)?;
        let is_plain = |piece: &str| !special_ids.contains_key(piece);
        let plain_ids: Vocab = parts
            .ids
            .into_iter()
            .filter(|(piece, _)| is_plain(piece))
            .collect();
        let makes_plain = |(left, right): &(String, String)| {
            is_plain(left) && is_plain(right) && is_plain(&format!("{left}{right}"))
        };
        let model = BPE::builder()
            .vocab_and_merges(plain_ids, parts.merges.into_iter().filter(makes_plain).collect())
            .ignore_merges(parts.ignore_merges)
            .byte_fallback(matches!(parts.words, Words::SpaceMark { .. }))
            .build()
            .map_err(library("vocabulary"))?;
        let mut added_plain = added.clone();
        added_plain.set_encode_special_tokens(true);
        Ok(Self {
            model,
            words: parts.words,
            added,
            added_plain,
            special_ids,
            missing_bytes,
        })
    }

    pub(crate) fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<TokenId>, TokenizerError> {
        let missing = |byte: &&u8| text.as_bytes().contains(byte);
        if let Some(&byte) = self.missing_bytes.iter().find(missing) {
            return Err(TokenizerError::MissingByte { byte });
        }
        let added = match special {
            SpecialTokens::Parse => &self.added,
            SpecialTokens::AsText => &self.added_plain,
        };
        match &self.words {
            Words::ByteLevel {
                normalizer,
                pre_tokenizer,
            } => {
                let segments = added.extract_and_normalize(normalizer.as_deref(), text);
                self.encode_byte_level(segments, pre_tokenizer)
            }
            Words::SpaceMark { prefix } => {
                let segments = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
                self.encode_space_mark(&segments, *prefix)
            }
        }
    }

    pub(crate) fn token_id(&self, piece: &str) -> Option<TokenId> {
        let special = self.special_ids.get(piece).copied();
        special.or_else(|| self.model.token_to_id(piece)).map(TokenId)
    }

    fn encode_byte_level(
        &self,
        mut segments: PreTokenizedString,
        pre_tokenizer: &PreTokenizerWrapper,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        pre_tokenizer
            .pre_tokenize(&mut segments)
            .map_err(library("pre-tokenizer"))?;
        segments
            .tokenize(|word| self.model.tokenize(word.get()))
            .map_err(library("merging"))?;
        let splits = segments.get_splits(OffsetReferential::Normalized, OffsetType::None);
        let tokens = splits.into_iter().filter_map(|(_, _, tokens)| tokens.as_ref());
        Ok(tokens.flatten().map(|token| TokenId(token.id)).collect())
    }

    fn encode_space_mark(
        &self,
        segments: &PreTokenizedString,
        prefix: Prefix,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let mut ids = Vec::new();
        let mut needs_space = prefix != Prefix::Never;
        for (segment, _, tokens) in segments.get_splits(OffsetReferential::Original, OffsetType::None) {
            let Some(tokens) = tokens else {
                self.encode_marked(segment, needs_space, &mut ids)?;
                needs_space = false;
                continue;
            };
            for token in tokens {
                if self.is_special(token.id) {
                    needs_space = prefix == Prefix::Always;
                } else if needs_space {
                    // A user-defined token is text, so the space comes before it.
                    self.encode_part(SPACE_MARK, &mut ids)?;
                    needs_space = false;
                }
                ids.push(TokenId(token.id));
            }
        }
        Ok(ids)
    }

    /// Tokens of a text without added tokens.
    fn encode_marked(
        &self,
        text: &str,
        needs_space: bool,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), TokenizerError> {
        for (part_idx, part) in mark_spaces(text, needs_space).enumerate() {
            if part_idx > 0 {
                ids.extend(
                    SPACE_MARK
                        .bytes()
                        .filter_map(|byte| self.token_id(&byte_piece(byte))),
                );
            }
            self.encode_part(&part, ids)?;
        }
        Ok(())
    }

    fn encode_part(&self, part: &str, ids: &mut Vec<TokenId>) -> Result<(), TokenizerError> {
        let tokens = self.model.tokenize(part).map_err(library("merging"))?;
        ids.extend(tokens.iter().map(|token| TokenId(token.id)));
        Ok(())
    }

    fn is_special(&self, id: u32) -> bool {
        let added = self.added.get_added_tokens_decoder();
        added.get(&id).is_some_and(|token| token.special)
    }
}

impl Words {
    /// Bytes without a piece, or an error if that can never be right.
    fn missing_bytes(&self, ids: &HashMap<String, u32>) -> Result<Vec<u8>, TokenizerError> {
        match self {
            // Vocabularies may leave out bytes that UTF-8 never uses, so this is no fault yet.
            Self::ByteLevel { .. } => Ok((0..=255_u8)
                .zip(byte_chars())
                .filter(|(_, ch)| !ids.contains_key(ch.encode_utf8(&mut [0; 4]) as &str))
                .map(|(byte, _)| byte)
                .collect()),
            Self::SpaceMark { .. } if !ids.contains_key(SPACE_MARK) => Err(TokenizerError::Missing {
                field: "the token for a space, \"▁\",",
            }),
            Self::SpaceMark { .. } => match (0..=255_u8).find(|&byte| !ids.contains_key(&byte_piece(byte))) {
                Some(byte) => Err(TokenizerError::MissingByte { byte }),
                None => Ok(Vec::new()),
            },
        }
    }

    fn normalizer(&self) -> Option<&NormalizerWrapper> {
        match self {
            Self::ByteLevel { normalizer, .. } => normalizer.as_deref(),
            Self::SpaceMark { .. } => None,
        }
    }
}

/// The searcher for added tokens, and the ids of those that are special.
fn added_vocabulary(
    tokens: Vec<AddedToken>,
    ids: &HashMap<String, u32>,
    words: &Words,
) -> Result<(AddedVocabulary, HashMap<String, u32>), TokenizerError> {
    if tokens.len() > MAX_ADDED_LEN {
        return Err(TokenizerError::WrongCount {
            what: "added tokens",
            expected: 0..=MAX_ADDED_LEN,
            got: tokens.len(),
        });
    }
    let id_of = |token: &AddedToken| Some((token.content.clone(), *ids.get(&token.content)?));
    let special = tokens.iter().filter(|token| token.special).filter_map(id_of);
    let special = special.collect();
    // The library asks a model for the ids; a list of words is the simplest that has them.
    let known = WordLevel::builder()
        .vocab(tokens.iter().filter_map(id_of).collect())
        .build()
        .map_err(library("added tokens"))?;
    let mut added = AddedVocabulary::new();
    added
        .add_tokens(tokens, &known, words.normalizer())
        .map_err(library("added tokens"))?;
    Ok((added, special))
}

/// What a byte is called among the pieces of a SentencePiece vocabulary.
fn byte_piece(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// Each rule must join two pieces into a third.
pub(crate) fn check_merges(
    ids: &HashMap<String, u32>,
    merges: &[(String, String)],
) -> Result<(), TokenizerError> {
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
