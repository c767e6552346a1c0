//! The input is `tokenizer.json` and the files beside it, separated by zero bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    trimtab_fuzz::tokenizer_json(bytes);
});
