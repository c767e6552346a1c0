//! The input is a llama2.c checkpoint.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    trimtab_fuzz::llama2c(bytes);
});
