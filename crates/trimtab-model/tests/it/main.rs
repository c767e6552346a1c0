//! Integration tests of the decoder.

mod forward;
mod reference;
