//! A llama2.c model of random weights, made in a folder: small enough for any test, read by the real code.

use std::path::{Path, PathBuf};

const HIDDEN: usize = 32;
const FFN: usize = 48;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
/// 3 control tokens, 256 bytes, 26 letters.
const VOCAB: usize = 3 + 256 + 26;
/// Longest sequence of the model, in positions.
pub const CONTEXT_LEN: usize = 128;

/// Writes `tiny.bin` and its `tokenizer.bin` into `folder`; gives the model's path.
///
/// # Errors
/// Whatever the file system says.
pub fn write_tiny_model(folder: &Path) -> std::io::Result<PathBuf> {
    let path = folder.join("tiny.bin");
    let header = [HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT_LEN];
    let mut bytes: Vec<u8> = header.iter().flat_map(|&n| (n as i32).to_le_bytes()).collect();
    let kv_len = HIDDEN / HEADS * KV_HEADS;
    let per_layer = HIDDEN * (2 + HIDDEN + 2 * kv_len + HIDDEN) + 3 * HIDDEN * FFN;
    let rope_tables = CONTEXT_LEN * HIDDEN / HEADS;
    let num_weights = VOCAB * HIDDEN + LAYERS * per_layer + HIDDEN + rope_tables;
    let mut state = 1_u64;
    for _ in 0..num_weights {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
        bytes.extend((uniform * 1.2).to_le_bytes());
    }
    std::fs::write(&path, bytes)?;
    std::fs::write(folder.join("tokenizer.bin"), vocabulary())?;
    Ok(path)
}

fn vocabulary() -> Vec<u8> {
    let control = ["<unk>", "\n<s>\n", "\n</s>\n"].map(|piece| piece.as_bytes().to_vec());
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>").into_bytes());
    let letters = (b'a'..=b'z').map(|letter| vec![letter]);
    let pieces: Vec<Vec<u8>> = control.into_iter().chain(bytes).chain(letters).collect();
    let longest = pieces.iter().map(Vec::len).max().unwrap_or(0);
    let mut file = (longest as u32).to_le_bytes().to_vec();
    for piece in pieces {
        file.extend(0.0_f32.to_le_bytes());
        file.extend((piece.len() as u32).to_le_bytes());
        file.extend(piece);
    }
    file
}
