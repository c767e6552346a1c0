//! Tests of the tokenizer through its public interface. Expected values come from `dev/*.py`.

#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod chat;
mod conversion;
mod fixtures;
mod folder;
mod hostile;
mod parity;
mod round_trip;
mod stop_tokens;
