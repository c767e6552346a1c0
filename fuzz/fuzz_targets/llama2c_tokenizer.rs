//! The input is the number of tokens in two bytes, then a llama2.c `tokenizer.bin`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_checkpoint::parse_llama2c_tokenizer;

fuzz_target!(|bytes: &[u8]| {
    if let Some((vocab_len, file)) = bytes.split_first_chunk() {
        let _any = parse_llama2c_tokenizer(file, usize::from(u16::from_le_bytes(*vocab_len)));
    }
});
