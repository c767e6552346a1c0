//! The input is a safetensors file; its configuration is of no interest to the reader.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_checkpoint::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    trimtab_fuzz::read_all(Checkpoint::from_safetensors_bytes(b"{}".to_vec(), vec![bytes.to_vec()]));
});
