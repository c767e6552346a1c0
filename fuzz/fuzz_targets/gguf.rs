//! The input is a GGUF file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_checkpoint::Checkpoint;

fuzz_target!(|bytes: &[u8]| trimtab_fuzz::read_all(Checkpoint::from_gguf_bytes(bytes.to_vec())));
