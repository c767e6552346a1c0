//! Valid files with bits flipped, bytes replaced and ends cut off: an error or a checkpoint whose every row can be
//! read, never a panic. The fuzz targets drive the same functions with inputs of their own.

use proptest::prelude::*;
use trimtab_checkpoint::{Checkpoint, CheckpointError, parse_llama2c_tokenizer, parse_safetensors_index};

use crate::files::{valid_gguf, valid_llama2c, valid_safetensors};

/// Damage to a file: new bytes at places, and where it ends, both taken modulo its length.
fn damage() -> impl Strategy<Value = (Vec<(usize, u8)>, Option<usize>)> {
    // Small numbers and all-ones are what lengths and counts break on.
    let byte = prop_oneof![any::<u8>(), Just(0), Just(1), Just(0xff), Just(0x7f), Just(0x80)];
    let edits = proptest::collection::vec((any::<usize>(), byte), 0..6);
    (edits, proptest::option::weighted(0.3, any::<usize>()))
}

fn damaged(mut bytes: Vec<u8>, (edits, end): &(Vec<(usize, u8)>, Option<usize>), within: usize) -> Vec<u8> {
    for &(place, byte) in edits {
        bytes[place % within] = byte;
    }
    if let Some(end) = end {
        bytes.truncate(end % within);
    }
    bytes
}

/// Reads everything that an accepted file offers.
fn read_all(opened: Result<Checkpoint, CheckpointError>) {
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(name).unwrap();
        let row_len = tensor.shape().last().copied().unwrap_or(1);
        // Rows of no elements take no bytes, and there may be as many as the file claims.
        let num_rows = if row_len == 0 { 0 } else { tensor.num_rows() };
        assert!(
            row_len * num_rows < 1 << 20,
            "no more elements than the file has bytes for"
        );
        let mut row = vec![0.0; row_len];
        (0..num_rows).for_each(|idx| tensor.read_row(idx, &mut row));
    }
    let Some(metadata) = checkpoint.metadata() else {
        return;
    };
    for key in metadata.keys() {
        let _any = (
            metadata.text(key),
            metadata.u32(key),
            metadata.i64(key),
            metadata.f32(key),
        );
        let _any = (
            metadata.texts(key),
            metadata.f32s(key),
            metadata.i32s(key),
            metadata.bools(key),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn gguf(damage in damage()) {
        let bytes = valid_gguf().bytes();
        let len = bytes.len();
        read_all(Checkpoint::from_gguf_bytes(damaged(bytes, &damage, len)));
    }

    #[test]
    fn safetensors(damage in damage()) {
        let bytes = valid_safetensors();
        let len = bytes.len();
        read_all(Checkpoint::from_safetensors_bytes(b"{}".to_vec(), vec![damaged(bytes, &damage, len)]));
    }

    #[test]
    fn safetensors_index(damage in damage()) {
        let bytes = br#"{"metadata":{"total_size":8},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#;
        for file in parse_safetensors_index(&damaged(bytes.to_vec(), &damage, bytes.len())).into_iter().flatten() {
            prop_assert!(!file.1.contains('/') && file.1 != "..", "{file:?}");
        }
    }

    #[test]
    fn llama2c(damage in damage()) {
        // The header is where damage can do anything; the rest is numbers.
        read_all(Checkpoint::from_llama2c_bytes(damaged(valid_llama2c(), &damage, 28)));
    }

    #[test]
    fn tokenizer(damage in damage(), vocab_len in prop_oneof![0..5_usize, Just(usize::MAX)]) {
        let token = |len: u32, bytes: &[u8]| [&0.5_f32.to_le_bytes(), &len.to_le_bytes()[..], bytes].concat();
        let bytes = [&2_u32.to_le_bytes()[..], &token(1, b"a"), &token(2, b"bc"), &token(0, b"")].concat();
        let len = bytes.len();
        let _any = parse_llama2c_tokenizer(&damaged(bytes, &damage, len), vocab_len);
    }

    #[test]
    fn anything(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_all(Checkpoint::from_gguf_bytes([b"GGUF\x03\0\0\0", &bytes[..]].concat()));
        read_all(Checkpoint::from_llama2c_bytes(bytes.clone()));
        read_all(Checkpoint::from_safetensors_bytes(bytes.clone(), vec![bytes]));
    }
}
