//! Integration tests of the decoder.
#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helper functions too"
)]

mod formats;
mod forward;
mod gguf_config;
mod gguf_file;
mod reference;
mod smoothing;
mod stories;
