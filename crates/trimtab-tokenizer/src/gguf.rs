//! Tokenizers from the metadata of a GGUF file. Knows the keys' meaning, not the file's bytes.

use std::collections::HashMap;

use tokenizers::AddedToken;
use trimtab_base::TokenId;

use crate::bpe::{BpeCodec, BpeParts, Words};
use crate::byte_level::CharBytes;
use crate::chat::{ChatTemplate, TemplateTokens};
use crate::error::TokenizerError;
use crate::piece_bytes::PieceBytes;
use crate::pre_tokenizer::Cut;
use crate::score_merge::{ScoreMerge, ScoreParts};
use crate::space_mark::SPACE_MARK;
use crate::token_kind::{TokenKind, byte_of_piece, ends_turn};
use crate::tokenizer::{Codec, MAX_VOCAB_LEN, Tokenizer};

/// The tokenizer's metadata of a GGUF file as plain data. Each field is the key `tokenizer.ggml.<field>` unless it
/// says otherwise; `None` where the file has no such key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// Algorithm: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: String,
    /// Name of the cut into words, for `gpt2`.
    pub pre: Option<String>,
    /// Pieces by id. `[vocab]`
    pub tokens: Vec<String>,
    /// Merge priorities, higher first, for `llama`. `[vocab]`
    pub scores: Option<Vec<f32>>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. `[vocab]`
    pub token_types: Option<Vec<i32>>,
    /// Merge rules `left right` in order of rank, for `gpt2`.
    pub merges: Option<Vec<String>>,
    /// First token of a text.
    pub bos_token_id: Option<u32>,
    /// Last token of a text.
    pub eos_token_id: Option<u32>,
    /// Last token of a turn.
    pub eot_token_id: Option<u32>,
    /// Last token of a message that expects a tool's answer.
    pub eom_token_id: Option<u32>,
    /// `add_bos_token`: whether prompts start with BOS.
    pub add_bos: Option<bool>,
    /// Whether a space is put before a text, for `llama`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

impl Tokenizer {
    /// A tokenizer from GGUF metadata.
    ///
    /// Byte-level BPE applies no Unicode normalisation, as llama.cpp does and unlike the `tokenizer.json` of some
    /// models (Qwen's asks for NFC), so that every text comes back byte for byte. In `llama` vocabularies a space
    /// is put before the text and after each control token, but not after a user-defined piece, which SentencePiece
    /// treats as part of the text.
    pub fn from_gguf(vocab: GgufVocab) -> Result<Self, TokenizerError> {
        let kinds = token_kinds(&vocab)?;
        let stop_tokens = stop_tokens(&vocab, &kinds);
        let chat_template = chat_template(&vocab)?;
        let bos = vocab.bos_token_id.map(TokenId);
        let (codec, bytes, default_add_bos, strips_leading_space) = match vocab.model.as_str() {
            "gpt2" => {
                let cut = Cut::named(vocab.pre.as_deref())?;
                let bytes = byte_level_bytes(&vocab.tokens, &kinds);
                let add_bos = vocab.add_bos.unwrap_or(cut.add_bos);
                (
                    Codec::Bpe(Box::new(byte_level_codec(vocab, &kinds, cut)?)),
                    bytes,
                    add_bos,
                    false,
                )
            }
            "llama" => {
                let bytes = sentence_piece_bytes(&vocab.tokens, &kinds)?;
                let prefix = vocab.add_space_prefix.unwrap_or(true);
                let add_bos = vocab.add_bos.unwrap_or(true);
                (
                    Codec::Scores(Box::new(sentence_piece_codec(vocab, &kinds, prefix)?)),
                    bytes,
                    add_bos,
                    prefix,
                )
            }
            other => {
                return Err(TokenizerError::Unsupported {
                    field: "tokenizer.ggml.model",
                    got: other.to_owned(),
                    supported: "gpt2, llama",
                });
            }
        };
        Ok(Self {
            codec,
            bytes,
            bos,
            add_bos: default_add_bos,
            stop_tokens,
            strips_leading_space,
            chat_template,
        })
    }
}

/// Ids that the file names, with their keys.
fn named_ids(vocab: &GgufVocab) -> impl Iterator<Item = (&'static str, u32)> {
    let named = [
        ("tokenizer.ggml.bos_token_id", vocab.bos_token_id),
        ("tokenizer.ggml.eos_token_id", vocab.eos_token_id),
        ("tokenizer.ggml.eot_token_id", vocab.eot_token_id),
        ("tokenizer.ggml.eom_token_id", vocab.eom_token_id),
    ];
    named.into_iter().filter_map(|(field, id)| Some((field, id?)))
}

/// Kind of every token. Tokens that begin or end texts or turns are control tokens whatever the file says. `[vocab]`
pub(crate) fn token_kinds(vocab: &GgufVocab) -> Result<Vec<TokenKind>, TokenizerError> {
    let vocab_len = vocab.tokens.len();
    if vocab_len > MAX_VOCAB_LEN {
        return Err(TokenizerError::WrongCount {
            what: "tokens",
            expected: 0..=MAX_VOCAB_LEN,
            got: vocab_len,
        });
    }
    let mut kinds = match &vocab.token_types {
        None => vec![TokenKind::Normal; vocab_len],
        Some(types) => {
            check_len("tokenizer.ggml.token_type", vocab_len, types.len())?;
            types
                .iter()
                .enumerate()
                .map(|(id, &value)| TokenKind::from_gguf(id, value))
                .collect::<Result<_, _>>()?
        }
    };
    for (piece, kind) in vocab.tokens.iter().zip(&mut kinds) {
        if ends_turn(piece, *kind) {
            *kind = TokenKind::Control;
        }
    }
    for (field, id) in named_ids(vocab) {
        let kind = kinds.get_mut(id as usize);
        *kind.ok_or_else(|| TokenizerError::BadId {
            field: field.to_owned(),
            id,
            vocab_len,
        })? = TokenKind::Control;
    }
    Ok(kinds)
}

fn check_len(field: &'static str, expected: usize, got: usize) -> Result<(), TokenizerError> {
    if expected == got {
        Ok(())
    } else {
        Err(TokenizerError::WrongCount {
            what: field,
            expected: expected..=expected,
            got,
        })
    }
}

/// Tokens that end an answer, ascending.
pub(crate) fn stop_tokens(vocab: &GgufVocab, kinds: &[TokenKind]) -> Vec<TokenId> {
    let by_name = vocab.tokens.iter().zip(kinds).enumerate();
    let by_name = by_name
        .filter(|(_, (piece, kind))| ends_turn(piece, **kind))
        .map(|(id, _)| id as u32);
    let by_id = [vocab.eos_token_id, vocab.eot_token_id, vocab.eom_token_id]
        .into_iter()
        .flatten();
    let mut ids: Vec<TokenId> = by_name.chain(by_id).map(TokenId).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn chat_template(vocab: &GgufVocab) -> Result<Option<ChatTemplate>, TokenizerError> {
    let piece = |id: Option<u32>| id.and_then(|id| vocab.tokens.get(id as usize)).cloned();
    let tokens = TemplateTokens {
        bos: piece(vocab.bos_token_id),
        eos: piece(vocab.eos_token_id),
    };
    let source = vocab.chat_template.as_ref();
    Ok(source
        .map(|source| ChatTemplate::try_new(source, tokens))
        .transpose()?)
}

/// Ids by piece.
fn unique_ids(tokens: Vec<String>) -> Result<HashMap<String, u32>, TokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (second_id, piece) in tokens.into_iter().enumerate() {
        let second_id = second_id as u32;
        if let Some(&first_id) = ids.get(&piece) {
            return Err(TokenizerError::DuplicatePiece {
                piece,
                first_id,
                second_id,
            });
        }
        ids.insert(piece, second_id);
    }
    Ok(ids)
}

fn byte_level_bytes(tokens: &[String], kinds: &[TokenKind]) -> PieceBytes {
    let char_bytes = CharBytes::new();
    let bytes = tokens.iter().zip(kinds).map(|(piece, kind)| match kind {
        TokenKind::Normal | TokenKind::Byte => char_bytes.piece_bytes(piece),
        TokenKind::UserDefined => piece.clone().into_bytes(),
        TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => Vec::new(),
    });
    bytes.collect()
}

fn byte_level_codec(vocab: GgufVocab, kinds: &[TokenKind], cut: Cut) -> Result<BpeCodec, TokenizerError> {
    let merges = vocab.merges.ok_or(TokenizerError::Missing {
        field: "tokenizer.ggml.merges",
    })?;
    let added = vocab
        .tokens
        .iter()
        .zip(kinds)
        .filter_map(|(piece, kind)| match kind {
            TokenKind::Control | TokenKind::Unknown => Some(AddedToken::from(piece.clone(), true)),
            TokenKind::UserDefined => Some(AddedToken::from(piece.clone(), false).normalized(false)),
            TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => None,
        });
    BpeCodec::new(BpeParts {
        added: added.collect(),
        merges: merges
            .into_iter()
            .enumerate()
            .map(|(idx, merge)| split_merge(idx, merge))
            .collect::<Result<_, _>>()?,
        ids: unique_ids(vocab.tokens)?,
        ignore_merges: cut.ignore_merges,
        words: Words::ByteLevel {
            normalizer: None,
            pre_tokenizer: Box::new(cut.build()?),
        },
    })
}

/// The two sides of a rule. Byte characters are never a space, so the one space parts them.
pub(crate) fn split_merge(merge_idx: usize, merge: String) -> Result<(String, String), TokenizerError> {
    match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(TokenizerError::BadMerge {
            merge_idx,
            merge,
            problem: "expected two pieces and one space",
        }),
    }
}

fn sentence_piece_bytes(tokens: &[String], kinds: &[TokenKind]) -> Result<PieceBytes, TokenizerError> {
    let bytes = tokens.iter().zip(kinds).map(|(piece, kind)| match kind {
        TokenKind::Normal | TokenKind::UserDefined => Ok(piece.replace(SPACE_MARK, " ").into_bytes()),
        TokenKind::Byte => Ok(vec![parse_byte(piece)?]),
        TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => Ok(Vec::new()),
    });
    bytes.collect()
}

pub(crate) fn parse_byte(piece: &str) -> Result<u8, TokenizerError> {
    byte_of_piece(piece.as_bytes()).ok_or_else(|| TokenizerError::Unsupported {
        field: "tokenizer.ggml.tokens, byte token",
        got: piece.to_owned(),
        supported: "<0x00> to <0xFF>",
    })
}

fn sentence_piece_codec(
    vocab: GgufVocab,
    kinds: &[TokenKind],
    add_space_prefix: bool,
) -> Result<ScoreMerge, TokenizerError> {
    let scores = vocab.scores.ok_or(TokenizerError::Missing {
        field: "tokenizer.ggml.scores",
    })?;
    check_len("tokenizer.ggml.scores", vocab.tokens.len(), scores.len())?;
    let mut parts = ScoreParts {
        joinable: HashMap::with_capacity(vocab.tokens.len()),
        user_defined: Vec::new(),
        control: Vec::new(),
        byte_ids: [None; 256],
        marks_spaces: true,
        add_space_prefix,
    };
    for (idx, ((piece, score), kind)) in vocab.tokens.into_iter().zip(scores).zip(kinds).enumerate() {
        let id = TokenId(idx as u32);
        match kind {
            TokenKind::Normal => insert_joinable(&mut parts, piece, id, score)?,
            TokenKind::UserDefined => parts.user_defined.push((piece.replace(' ', SPACE_MARK), id)),
            TokenKind::Control => parts.control.push((piece, id)),
            TokenKind::Byte => parts.byte_ids[usize::from(parse_byte(&piece)?)] = Some(id),
            TokenKind::Unknown | TokenKind::Unused => {}
        }
    }
    // An empty piece would be found everywhere.
    parts.user_defined.retain(|(piece, _)| !piece.is_empty());
    parts.control.retain(|(piece, _)| !piece.is_empty());
    ScoreMerge::new(parts)
}

fn insert_joinable(
    parts: &mut ScoreParts,
    piece: String,
    id: TokenId,
    score: f32,
) -> Result<(), TokenizerError> {
    match parts
        .joinable
        .insert(piece.clone().into_bytes().into_boxed_slice(), (id, score))
    {
        None => Ok(()),
        Some((first, _)) => Err(TokenizerError::DuplicatePiece {
            piece,
            first_id: first.0,
            second_id: id.0,
        }),
    }
}
