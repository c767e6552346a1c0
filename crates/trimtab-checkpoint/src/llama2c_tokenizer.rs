//! llama2.c's `tokenizer.bin`: a score and the bytes of each token. Knows the layout, not what tokens mean.

use std::path::Path;

use crate::cursor::Cursor;
use crate::error::{CheckpointError, FormatError};
use crate::storage::Storage;

/// Reads the vocabulary beside a llama2.c checkpoint of `vocab_len` tokens: score and bytes of each, in order of id.
///
/// # Errors
/// A file that holds fewer or more tokens, or that ends inside one.
pub fn read_llama2c_tokenizer(path: &Path, vocab_len: usize) -> Result<Vec<(f32, Vec<u8>)>, CheckpointError> {
    let file = Storage::open(path)?;
    parse_llama2c_tokenizer(&file, vocab_len).map_err(|problem| file.malformed(problem))
}

/// As [`read_llama2c_tokenizer`], from bytes.
pub fn parse_llama2c_tokenizer(bytes: &[u8], vocab_len: usize) -> Result<Vec<(f32, Vec<u8>)>, FormatError> {
    let mut cursor = Cursor::new(bytes);
    let stored_max = cursor.u32(&"max_token_length")?;
    // Score and length of each.
    cursor.bounded(&"number of tokens", vocab_len as u64, 8)?;
    let mut tokens = Vec::with_capacity(vocab_len);
    for id in 0..vocab_len {
        let score = cursor.f32(&format_args!("score of token {id}"))?;
        let len = cursor.u32(&format_args!("length of token {id}"))?;
        if len > stored_max {
            let field = format_args!("length of token {id}");
            return Err(FormatError::bad(
                field,
                len,
                format_args!("at most max_token_length {stored_max}"),
            ));
        }
        let range = cursor.skip(&format_args!("bytes of token {id}"), u64::from(len))?;
        tokens.push((score, bytes[range].to_vec()));
    }
    if cursor.left() > 0 {
        let expected = format_args!("{}, the end of the last of {vocab_len} tokens", cursor.offset());
        return Err(FormatError::bad("file length", bytes.len(), expected));
    }
    Ok(tokens)
}
