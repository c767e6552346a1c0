//! Which tokens end an answer, and what control tokens add to a text.

use trimtab_base::{TokenBytes, TokenId};
use trimtab_tokenizer::{GgufVocab, SpecialTokens, Tokenizer};

fn vocab() -> GgufVocab {
    let tokens = ["<unk>", "<bos>", "</s>", "<end_of_turn>", "a", "▁", "<|im_end|>"];
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let tokens: Vec<String> = tokens.map(str::to_owned).into_iter().chain(bytes).collect();
    let mut token_types = vec![2, 3, 3, 4, 1, 1, 1];
    token_types.resize(tokens.len(), 6);
    GgufVocab {
        model: "llama".into(),
        scores: Some(vec![0.0; tokens.len()]),
        tokens,
        token_types: Some(token_types),
        bos_token_id: Some(1),
        eos_token_id: Some(2),
        ..GgufVocab::default()
    }
}

#[test]
fn named_ids_and_known_names_stop() {
    let tokenizer = Tokenizer::from_gguf(vocab()).unwrap();
    // `<|im_end|>` is ordinary text in this file, so it is no structure.
    assert_eq!(tokenizer.stop_tokens(), [TokenId(2), TokenId(3)]);
    assert_eq!(tokenizer.bos(), Some(TokenId(1)));
}

#[test]
fn control_tokens_add_no_bytes_and_take_a_prefix_after_them() {
    let tokenizer = Tokenizer::from_gguf(vocab()).unwrap();
    let ids = tokenizer.encode("a<end_of_turn>a", SpecialTokens::Parse).unwrap();
    assert_eq!(ids, [5, 4, 3, 5, 4].map(TokenId));
    assert_eq!(tokenizer.bytes_of(TokenId(3)), b"");
    assert_eq!(tokenizer.bytes_of(TokenId(5)), b" ");
    assert_eq!(tokenizer.bytes_of(TokenId(7 + 0xE9)), [0xE9]);
    assert_eq!(tokenizer.bytes_of(TokenId(1_000_000)), b"");
    assert_eq!(tokenizer.decode(&ids), "a a");
}
