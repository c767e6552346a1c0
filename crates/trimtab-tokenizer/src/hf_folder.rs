//! Tokenizers from a folder.
