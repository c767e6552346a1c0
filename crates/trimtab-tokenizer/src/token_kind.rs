//! What a token is: text, structure or a byte. Knows no algorithm.

use crate::error::TokenizerError;

/// Kind of a token; GGUF's `tokenizer.ggml.token_type`, which follows SentencePiece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Part of ordinary text.
    Normal,
    /// Stands for text that has no tokens.
    Unknown,
    /// Structure, never text.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// Never produced.
    Unused,
    /// One byte, written `<0xNN>`.
    Byte,
}

impl TokenKind {
    /// The kind that GGUF numbers `value`.
    pub(crate) fn from_gguf(id: usize, value: i32) -> Result<Self, TokenizerError> {
        Ok(match value {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            other => {
                return Err(TokenizerError::Unsupported {
                    field: "tokenizer.ggml.token_type",
                    got: format!("{other} at token {id}"),
                    supported: "1 to 6",
                });
            }
        })
    }
}

impl TokenKind {
    /// Its number in GGUF.
    pub(crate) fn to_gguf(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }
}

/// Pieces that end a turn in some published chat format; files often name only one of those they use.
const END_OF_TURN_PIECES: [&str; 10] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
];

/// Whether a token that is set apart from ordinary text ends a turn by its name.
pub(crate) fn ends_turn(piece: &str, kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Control | TokenKind::UserDefined) && END_OF_TURN_PIECES.contains(&piece)
}

/// The byte of a piece like `<0x0A>`.
pub(crate) fn byte_of_piece(piece: &[u8]) -> Option<u8> {
    let digits = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = str::from_utf8(digits).ok().filter(|digits| digits.len() == 2)?;
    // The parser would accept a sign.
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_pieces() {
        let check =
            |piece: &str, expect: Option<u8>| assert_eq!(byte_of_piece(piece.as_bytes()), expect, "{piece}");
        check("<0x0A>", Some(10));
        check("<0xff>", Some(255));
        check("<0x+A>", None);
        check("<0x1>", None);
        check("<0x123>", None);
        check("0x0A", None);
    }

    #[test]
    fn kinds_are_ggufs() {
        assert_eq!(TokenKind::from_gguf(0, 3).unwrap(), TokenKind::Control);
        for value in 1..=6 {
            assert_eq!(TokenKind::from_gguf(0, value).unwrap().to_gguf(), value);
        }
        assert!(matches!(
            TokenKind::from_gguf(7, 0),
            Err(TokenizerError::Unsupported { .. })
        ));
    }
}
