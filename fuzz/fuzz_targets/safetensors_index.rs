//! The input is the index of a sharded checkpoint; no name that is accepted may lead out of the folder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_checkpoint::parse_safetensors_index;

fuzz_target!(|bytes: &[u8]| {
    for (_, file) in parse_safetensors_index(bytes).into_iter().flatten() {
        assert!(!file.contains(['/', '\\']) && file != ".." && file != "." && !file.is_empty());
    }
});
