//! Tokenizers from llama2.c's `tokenizer.bin`. Knows its conventions, not the file's bytes.

use std::collections::HashMap;

use trimtab_base::TokenId;

use crate::error::TokenizerError;
use crate::piece_bytes::PieceBytes;
use crate::score_merge::{ScoreMerge, ScoreParts};
use crate::token_kind::byte_of_piece;
use crate::tokenizer::{Codec, MAX_VOCAB_LEN, Tokenizer};

/// llama2.c fixes the first ids: unknown, BOS, EOS, then the 256 bytes.
pub(crate) const BOS: TokenId = TokenId(1);
pub(crate) const EOS: TokenId = TokenId(2);
pub(crate) const FIRST_BYTE_ID: usize = 3;
pub(crate) const FIRST_PIECE_ID: usize = FIRST_BYTE_ID + 256;

impl Tokenizer {
    /// A tokenizer from llama2.c's vocabulary: score and bytes of each token, in order of id.
    ///
    /// Encodes as llama2.c's `encode()` does: a space before the text, then the best-scoring join again and again,
    /// bytes for characters without a token. Prompts start with BOS. llama2.c writes no control token from text, so
    /// none is parsed.
    pub fn from_llama2c(tokens: Vec<(f32, Vec<u8>)>) -> Result<Self, TokenizerError> {
        if tokens.len() > MAX_VOCAB_LEN {
            return Err(TokenizerError::WrongCount {
                what: "tokens",
                expected: 0..=MAX_VOCAB_LEN,
                got: tokens.len(),
            });
        }
        let byte_ids = byte_ids(&tokens)?;
        let bytes = tokens.iter().enumerate().map(|(id, (_, piece))| match id {
            0..FIRST_BYTE_ID => Vec::new(),
            FIRST_BYTE_ID..FIRST_PIECE_ID => vec![(id - FIRST_BYTE_ID) as u8],
            _ => piece.clone(),
        });
        let bytes: PieceBytes = bytes.collect();
        let parts = ScoreParts {
            joinable: joinable(tokens),
            user_defined: Vec::new(),
            control: Vec::new(),
            byte_ids,
            marks_spaces: false,
            add_space_prefix: true,
        };
        Ok(Self {
            codec: Codec::Scores(Box::new(ScoreMerge::new(parts)?)),
            bytes,
            bos: Some(BOS),
            add_bos: true,
            stop_tokens: vec![EOS],
            strips_leading_space: true,
            chat_template: None,
        })
    }
}

/// The ids of the bytes, checked against the pieces' names: `<0x41>`, or in the oldest files the character `A`.
pub(crate) fn byte_ids(tokens: &[(f32, Vec<u8>)]) -> Result<[Option<TokenId>; 256], TokenizerError> {
    let mut ids = [None; 256];
    for (byte, id) in (0..=255_u8).zip(FIRST_BYTE_ID..) {
        let piece = tokens.get(id).map(|(_, piece)| piece.as_slice());
        let is_character = |piece: &[u8]| piece == char::from(byte).encode_utf8(&mut [0; 2]).as_bytes();
        if !piece.is_some_and(|piece| byte_of_piece(piece) == Some(byte) || is_character(piece)) {
            return Err(TokenizerError::MissingByte { byte });
        }
        ids[usize::from(byte)] = Some(TokenId(id as u32));
    }
    Ok(ids)
}

/// Pieces that joins may make. Of two equal pieces the first counts, as in a search from the front.
fn joinable(tokens: Vec<(f32, Vec<u8>)>) -> HashMap<Box<[u8]>, (TokenId, f32)> {
    let mut joinable = HashMap::with_capacity(tokens.len());
    for (id, (score, piece)) in tokens.into_iter().enumerate().skip(FIRST_PIECE_ID) {
        joinable
            .entry(piece.into_boxed_slice())
            .or_insert((TokenId(id as u32), score));
    }
    joinable
}
