//! The input is the index of a sharded checkpoint.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    trimtab_fuzz::safetensors_index(bytes);
});
