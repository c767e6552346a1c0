//! The input is the number of tokens in two bytes, then a llama2.c `tokenizer.bin`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    trimtab_fuzz::llama2c_tokenizer(bytes);
});
