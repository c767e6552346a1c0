//! Integration tests of the readers.
#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helper functions too"
)]

mod damaged;
mod dequant;
mod files;
mod malformed_gguf;
mod malformed_llama2c;
mod malformed_safetensors;
mod round_trip;
mod writing;
