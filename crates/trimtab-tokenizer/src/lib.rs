//! Text to token ids and back, and conversations to text. Knows no weights and no model maths.
//!
//! The key decision is to build every tokenizer from *checked parts*, whatever file they came from. Three sources
//! give vocabularies: GGUF metadata ([`GgufVocab`]), a folder with `tokenizer.json`, and llama2.c's list of scored
//! pieces. Two algorithms tokenise: byte-pair encoding by merge rules, done by the `tokenizers` library, and
//! SentencePiece's merging by scores, done here in one file, because the library ranks pairs where SentencePiece
//! and llama2.c rank results; translating scores to pair ranks gives other tokens when one piece can be made in
//! two ways. The library is never given a file: it trusts what it reads (a hostile merge list makes it panic), so
//! each source is parsed here, checked, and handed over as parts.
//!
//! Two further promises:
//!
//! * **Generated text is bytes.** Each token adds the bytes that [`TokenBytes`](trimtab_base::TokenBytes) gives,
//!   so that a stream of tokens becomes a stream of bytes with no look-ahead; control tokens add none.
//!   [`Tokenizer::decode`] is the same, except that it takes away the one space that a SentencePiece tokenizer
//!   puts before a text; use it for whole texts, and token bytes for continuations.
//! * **Control tokens are asked for.** [`SpecialTokens`] is an argument of every encoding: prompts made by a chat
//!   template are parsed, and text from elsewhere cannot smuggle in the end of a turn when read as plain text.
//!
//! A vocabulary leaves as it came: [`GgufVocab`] is the form between all formats, made from each and written to the hub's
//! files, so that a model can change its format and keep every id.
//!
//! What is not here: Unigram and `WordPiece` vocabularies (no supported model family uses them), truncation, padding,
//! training of vocabularies, and the clock (a template's `strftime_now` formats a time that the caller hands in).

mod bpe;
mod byte_level;
mod chat;
mod error;
mod gguf;
mod hf_folder;
mod hf_json;
mod hf_words;
mod llama2c;
mod piece_bytes;
mod pre_tokenizer;
mod score_merge;
mod space_mark;
mod to_gguf;
mod to_hf;
mod token_kind;
mod tokenizer;

pub use chat::{ChatTemplate, Message, RenderOptions, TemplateTokens};
pub use error::{TemplateError, TokenizerError};
pub use gguf::GgufVocab;
pub use to_hf::HfTokenizerFiles;
pub use tokenizer::{SpecialTokens, Tokenizer};
