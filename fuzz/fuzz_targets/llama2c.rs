//! The input is a llama2.c checkpoint.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_checkpoint::Checkpoint;

fuzz_target!(|bytes: &[u8]| trimtab_fuzz::read_all(Checkpoint::from_llama2c_bytes(bytes.to_vec())));
