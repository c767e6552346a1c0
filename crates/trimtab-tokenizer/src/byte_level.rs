//! The byte <-> character table of byte-level BPE. Knows no vocabulary.
//!
//! GPT-2 writes every byte as one printable character, so that pieces are valid text without spaces: printable
//! Latin-1 bytes stand for themselves, the others are numbered upwards from U+0100 in byte order.

/// Bytes that stand for themselves.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The character that stands for each byte.
pub(crate) fn byte_chars() -> [char; 256] {
    let mut shifted = (0x100_u32..).filter_map(char::from_u32);
    let mut chars = ['\0'; 256];
    for byte in 0..=255_u8 {
        let own = is_printable(byte).then(|| char::from(byte));
        chars[usize::from(byte)] = own
            .or_else(|| shifted.next())
            .expect("68 characters follow U+0100");
    }
    chars
}

/// The inverse of [`byte_chars`].
#[derive(Debug, Clone)]
pub(crate) struct CharBytes {
    /// Indexed by code point; all characters of the table lie below U+0144.
    bytes: Vec<Option<u8>>,
}

impl CharBytes {
    pub(crate) fn new() -> Self {
        let mut bytes = vec![None; 0x144];
        for (byte, ch) in (0..=255_u8).zip(byte_chars()) {
            bytes[ch as usize] = Some(byte);
        }
        Self { bytes }
    }

    /// The byte that `ch` stands for.
    pub(crate) fn byte(&self, ch: char) -> Option<u8> {
        self.bytes.get(ch as usize).copied().flatten()
    }

    /// Bytes of a piece. A piece with a character outside the table was added as plain text and stays so.
    pub(crate) fn piece_bytes(&self, piece: &str) -> Vec<u8> {
        piece
            .chars()
            .map(|ch| self.byte(ch))
            .collect::<Option<Vec<u8>>>()
            .unwrap_or_else(|| piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_gpt2s() {
        let chars = byte_chars();
        // From the published encoder.py: space is U+0120, newline U+010A, 0xAD the last one, U+0143.
        let check = |byte: u8, expect: char| assert_eq!(chars[usize::from(byte)], expect, "byte {byte}");
        check(b'A', 'A');
        check(b' ', 'Ġ');
        check(b'\n', 'Ċ');
        check(0x00, 'Ā');
        check(0x7F, 'ġ');
        check(0xAD, 'Ń');
        check(0xFF, 'ÿ');
    }

    #[test]
    fn table_is_a_bijection() {
        let inverse = CharBytes::new();
        for (byte, ch) in (0..=255_u8).zip(byte_chars()) {
            assert_eq!(inverse.byte(ch), Some(byte));
        }
        assert_eq!(inverse.byte(' '), None);
        assert_eq!(inverse.piece_bytes("Ġhi"), b" hi");
        assert_eq!(inverse.piece_bytes("<｜x"), "<｜x".as_bytes());
    }
}
