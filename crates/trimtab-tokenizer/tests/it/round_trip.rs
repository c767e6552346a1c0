//! Every text comes back byte for byte, and token bytes are the text's bytes.

use std::sync::LazyLock;

use proptest::prelude::*;
use trimtab_base::{TokenBytes, TokenId};
use trimtab_tokenizer::{SpecialTokens, Tokenizer};

use crate::fixtures::{byte_level_gguf, data, folder, space_mark_gguf, space_mark_llama2c, variant_json};

/// One tokenizer of each kind, by name.
static TOKENIZERS: LazyLock<Vec<(&str, Tokenizer)>> = LazyLock::new(|| {
    let (bytes, marks) = (data("byte_level.json"), data("space_mark.json"));
    let mut llama2c = space_mark_llama2c(&marks);
    llama2c.drain(3..5);
    let from_folder = |fixture, name| folder(&[("tokenizer.json", &variant_json(fixture, name))]).unwrap();
    vec![
        (
            "byte-level gguf",
            Tokenizer::from_gguf(byte_level_gguf(&bytes["tokenizer_json"], "qwen2")).unwrap(),
        ),
        ("smollm folder", from_folder(&bytes, "smollm")),
        ("llama 3 folder", from_folder(&bytes, "llama-bpe")),
        (
            "sentence-piece gguf",
            Tokenizer::from_gguf(space_mark_gguf(&marks)).unwrap(),
        ),
        ("llama 2 folder", from_folder(&marks, "llama-2")),
        ("gemma folder", from_folder(&marks, "gemma")),
        ("llama2.c", Tokenizer::from_llama2c(llama2c).unwrap()),
    ]
});

/// Texts with the parts that are easily lost: spaces, marks, control tokens, bytes' names, any characters.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => any::<String>(),
        2 => "[ \t\n]{0,4}",
        2 => "[a-z ]{0,12}",
        1 => prop::sample::select(vec!["▁", "▁▁", "<tool>", "<|im_end|>", "<s>", "<turn>", "<0x41>", "<unk>", "é", "e\u{301}"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn check(text: &str) {
    for (name, tokenizer) in TOKENIZERS.iter() {
        let ids = tokenizer.encode(text, SpecialTokens::AsText).unwrap();
        assert_eq!(tokenizer.decode(&ids), text, "{name}: {ids:?}");
        assert!(ids.iter().all(|id| id.index() < tokenizer.vocab_len()));
    }
}

#[test]
fn awkward_texts_come_back() {
    for text in [
        "",
        " ",
        "▁",
        " ▁ ",
        "▁ a",
        "<tool>",
        "<tool> <tool>",
        "\0",
        "\u{10FFFF}",
        " <s>",
        "a\r\n\tb ",
    ] {
        check(text);
    }
}

proptest! {
    #[test]
    fn texts_come_back_byte_for_byte(text in texts()) {
        check(&text);
    }

    /// A stream of tokens is a stream of bytes: whatever the bytes, some tokens write them.
    #[test]
    fn any_bytes_can_be_written_by_tokens(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        for (name, tokenizer) in TOKENIZERS.iter() {
            let token_of = |byte: u8| {
                let id = (0..tokenizer.vocab_len() as u32).find(|&id| tokenizer.bytes_of(TokenId(id)) == [byte]);
                TokenId(id.unwrap_or_else(|| panic!("{name} has no token for byte {byte}")))
            };
            let ids: Vec<TokenId> = bytes.iter().map(|&byte| token_of(byte)).collect();
            let written: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes_of(id)).copied().collect();
            prop_assert_eq!(&written, &bytes, "{}", name);
        }
    }

    /// Tokens of a text, cut anywhere, write a prefix of the text's bytes (after the one space of some tokenizers).
    #[test]
    fn prefixes_of_tokens_write_prefixes_of_the_text(text in texts(), cut in any::<prop::sample::Index>()) {
        for (name, tokenizer) in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, SpecialTokens::AsText).unwrap();
            let head = &ids[..cut.index(ids.len() + 1)];
            let written: Vec<u8> = head.iter().flat_map(|&id| tokenizer.bytes_of(id)).copied().collect();
            let spaced = format!(" {text}");
            prop_assert!(
                text.as_bytes().starts_with(&written) || spaced.as_bytes().starts_with(&written),
                "{}: {:?}", name, written
            );
        }
    }

    #[test]
    fn parsing_control_tokens_never_fails(text in texts()) {
        for (_, tokenizer) in TOKENIZERS.iter() {
            prop_assert!(tokenizer.encode(&text, SpecialTokens::Parse).is_ok());
        }
    }
}
