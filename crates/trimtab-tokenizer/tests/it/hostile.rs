//! Hostile and damaged vocabularies: a typed error for each, and never a panic.

use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use trimtab_tokenizer::{GgufVocab, SpecialTokens, Tokenizer, TokenizerError};

use crate::fixtures::{byte_level_gguf, data, folder, space_mark_gguf, variant_json};

fn gguf() -> GgufVocab {
    byte_level_gguf(&data("byte_level.json")["tokenizer_json"], "gpt-2")
}

fn space_mark() -> GgufVocab {
    space_mark_gguf(&data("space_mark.json"))
}

macro_rules! check_gguf {
    ($start:expr, $change:expr, $error:pat) => {{
        let mut vocab: GgufVocab = $start;
        let change: fn(&mut GgufVocab) = $change;
        change(&mut vocab);
        let result = Tokenizer::from_gguf(vocab);
        assert!(
            matches!(&result, Err($error)),
            "expected {}, got {result:?}",
            stringify!($error)
        );
    }};
}

#[test]
fn bad_gguf_metadata_is_refused() {
    check_gguf!(
        gguf(),
        |v| v.model = "rwkv".into(),
        TokenizerError::Unsupported { .. }
    );
    check_gguf!(
        gguf(),
        |v| v.pre = Some("new".into()),
        TokenizerError::Unsupported { .. }
    );
    check_gguf!(gguf(), |v| v.merges = None, TokenizerError::Missing { .. });
    check_gguf!(
        gguf(),
        |v| v.tokens.truncate(9),
        TokenizerError::WrongCount { .. }
    );
    check_gguf!(
        gguf(),
        |v| v.token_types = Some(vec![9; v.tokens.len()]),
        TokenizerError::Unsupported { .. }
    );
    check_gguf!(
        gguf(),
        |v| v.tokens[1] = v.tokens[0].clone(),
        TokenizerError::DuplicatePiece {
            first_id: 0,
            second_id: 1,
            ..
        }
    );
    check_gguf!(
        gguf(),
        |v| v.eos_token_id = Some(u32::MAX),
        TokenizerError::BadId { .. }
    );
    for merge in ["", " ", "a", "a ", " a", "a b c", "zz y", "Z Q"] {
        let mut vocab = gguf();
        vocab.merges.as_mut().unwrap().push(merge.to_owned());
        let result = Tokenizer::from_gguf(vocab);
        assert!(
            matches!(result, Err(TokenizerError::BadMerge { .. })),
            "{merge:?}: {result:?}"
        );
    }
    check_gguf!(
        gguf(),
        |v| v.chat_template = Some("{% if %}".into()),
        TokenizerError::Template(_)
    );
}

#[test]
fn bad_sentence_piece_metadata_is_refused() {
    check_gguf!(space_mark(), |v| v.scores = None, TokenizerError::Missing { .. });
    check_gguf!(
        space_mark(),
        |v| v.scores.as_mut().unwrap().truncate(3),
        TokenizerError::WrongCount { .. }
    );
    check_gguf!(
        space_mark(),
        |v| *v.scores.as_mut().unwrap().last_mut().unwrap() = f32::NAN,
        TokenizerError::BadScore { .. }
    );
    check_gguf!(
        space_mark(),
        |v| *v.tokens.last_mut().unwrap() = v.tokens[v.tokens.len() - 2].clone(),
        TokenizerError::DuplicatePiece { .. }
    );
    check_gguf!(
        space_mark(),
        |v| *v.token_types.as_mut().unwrap().last_mut().unwrap() = 6,
        TokenizerError::Unsupported { .. }
    );
    let no_tokens = GgufVocab {
        model: "llama".into(),
        scores: Some(Vec::new()),
        ..GgufVocab::default()
    };
    let result = Tokenizer::from_gguf(no_tokens.clone());
    assert!(matches!(result, Err(TokenizerError::Missing { .. })));
    let only_space = GgufVocab {
        tokens: vec!["▁".into()],
        scores: Some(vec![0.0]),
        ..no_tokens
    };
    let tokenizer = Tokenizer::from_gguf(only_space).unwrap();
    let result = tokenizer.encode(" a", SpecialTokens::Parse);
    assert!(matches!(result, Err(TokenizerError::MissingByte { byte: b'a' })));
}

#[test]
fn bad_llama2c_vocabularies_are_refused() {
    let result = Tokenizer::from_llama2c(Vec::new());
    assert!(matches!(result, Err(TokenizerError::MissingByte { byte: 0 })));
    let bytes = (0..=255_u8).map(|byte| (0.0, format!("<0x{byte:02X}>").into_bytes()));
    let mut tokens = vec![(0.0, Vec::new()); 3];
    tokens.extend(bytes);
    tokens.push((f32::INFINITY, b"a".to_vec()));
    let result = Tokenizer::from_llama2c(tokens);
    assert!(matches!(result, Err(TokenizerError::BadScore { id: 259, .. })));
}

macro_rules! check_json {
    ($path:expr, $value:expr, $error:pat) => {{
        let mut json = variant_json(&data("byte_level.json"), "gpt-2");
        *json.pointer_mut($path).unwrap() = $value;
        let result = folder(&[("tokenizer.json", &json)]);
        assert!(
            matches!(&result, Err($error)),
            "{}: expected {}, got {result:?}",
            $path,
            stringify!($error)
        );
    }};
}

#[test]
fn bad_parts_of_tokenizer_json_are_refused() {
    let unigram = json!({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}});
    let result = folder(&[("tokenizer.json", &unigram)]);
    assert!(
        matches!(&result, Err(TokenizerError::Unsupported { got, .. }) if got == "Unigram"),
        "{result:?}"
    );
    check_json!("/model/vocab", json!([]), TokenizerError::File { .. });
    check_json!("/model/vocab/!", json!(-1), TokenizerError::File { .. });
    check_json!(
        "/model/vocab/!",
        json!(u32::MAX),
        TokenizerError::WrongCount { .. }
    );
    check_json!("/model/vocab/!", json!(1), TokenizerError::BadId { .. });
    check_json!("/added_tokens/0/id", json!(0), TokenizerError::BadId { .. });
    check_json!(
        "/added_tokens/0/content",
        json!("!"),
        TokenizerError::DuplicatePiece { .. }
    );
    check_json!(
        "/added_tokens/3/rstrip",
        json!(true),
        TokenizerError::Unsupported { .. }
    );
    check_json!(
        "/model/merges/0",
        json!(["\u{120}", "zz"]),
        TokenizerError::BadMerge { merge_idx: 0, .. }
    );
    check_json!("/model/merges/0", json!("a"), TokenizerError::BadMerge { .. });
    check_json!("/model/merges/0", json!(["a"]), TokenizerError::File { .. });
    check_json!(
        "/model/end_of_word_suffix",
        json!("</w>"),
        TokenizerError::Unsupported { .. }
    );
    check_json!(
        "/normalizer",
        json!({"type": "Lowercase"}),
        TokenizerError::Unsupported { .. }
    );
    check_json!(
        "/normalizer",
        json!({"type": "Prepend", "prepend": "▁"}),
        TokenizerError::Unsupported { .. }
    );
    check_json!("/pre_tokenizer", Value::Null, TokenizerError::Unsupported { .. });
    check_json!(
        "/pre_tokenizer/add_prefix_space",
        json!(true),
        TokenizerError::Unsupported { .. }
    );
    check_json!(
        "/pre_tokenizer",
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false},
        ]}),
        TokenizerError::Library { .. }
    );
    check_json!(
        "/pre_tokenizer",
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Removed", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false},
        ]}),
        TokenizerError::Unsupported { .. }
    );
}

#[test]
fn bad_files_beside_tokenizer_json_are_refused() {
    let json = variant_json(&data("byte_level.json"), "gpt-2");
    let load = |name: &str, content: Value| folder(&[("tokenizer.json", &json), (name, &content)]);
    let unknown = load("tokenizer_config.json", json!({"bos_token": "<nothing>"}));
    assert!(matches!(
        unknown,
        Err(TokenizerError::UnknownPiece {
            field: "bos_token",
            ..
        })
    ));
    let outside = load("generation_config.json", json!({"eos_token_id": [0, 1_000_000]}));
    assert!(matches!(
        outside,
        Err(TokenizerError::BadId { id: 1_000_000, .. })
    ));
    let wrong = load("generation_config.json", json!({"eos_token_id": "</s>"}));
    assert!(matches!(wrong, Err(TokenizerError::File { .. })));
    let template = load("tokenizer_config.json", json!({"chat_template": "{{"}));
    assert!(matches!(template, Err(TokenizerError::Template(_))));
    let missing = folder(&[]);
    assert!(matches!(missing, Err(TokenizerError::File { .. })));
}

#[test]
fn files_that_are_no_json_are_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokenizer.json");
    for content in [
        &b"\xFF\xFE"[..],
        b"",
        b"{",
        b"[]",
        b"{\"model\":{}}",
        "[".repeat(100_000).as_bytes(),
    ] {
        fs::write(&path, content).unwrap();
        match Tokenizer::from_hf_folder(dir.path()) {
            Err(TokenizerError::File { path: named, .. }) => assert_eq!(named, path),
            other => panic!("expected a file error, got {other:?}"),
        }
    }
}

#[test]
fn deep_and_costly_regexes_do_no_harm() {
    let mut json = variant_json(&data("byte_level.json"), "gpt-2");
    let byte_level = json["pre_tokenizer"].clone();
    for regex in [
        "(".repeat(50_000) + &")".repeat(50_000),
        "(a|a)*b(?!c)".into(),
        r"\p{L}{1000}{1000}{1000}".into(),
    ] {
        let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"});
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [split, byte_level]});
        if let Ok(tokenizer) = folder(&[("tokenizer.json", &json)]) {
            let text = "a".repeat(200);
            let ids = tokenizer.encode(&text, SpecialTokens::AsText).unwrap();
            assert_eq!(tokenizer.decode(&ids), text);
        }
    }
}

proptest! {
    /// Whatever the metadata says, loading it and using it ends in a value or an error.
    #[test]
    fn random_gguf_metadata_never_panics(
        model in prop::sample::select(vec!["gpt2", "llama"]),
        pre in prop::sample::select(vec!["gpt-2", "llama-bpe", "default", "?"]),
        tokens in prop::collection::vec("[ab▁<>0xFĠ ]{0,4}", 0..12),
        bytes in any::<bool>(),
        kinds in prop::collection::vec(0..8, 0..12),
        scores in prop::collection::vec(any::<f32>(), 0..12),
        merges in prop::collection::vec("[abĠ<>]{1,2} ?[abĠ<>]{0,2}", 0..6),
        ids in any::<[Option<u8>; 3]>(),
        text in "[ab▁<>0xFĠ \n]{0,12}",
    ) {
        let mut vocab = GgufVocab {
            model: model.into(), pre: Some(pre.into()), tokens, merges: Some(merges),
            bos_token_id: ids[0].map(u32::from), eos_token_id: ids[1].map(u32::from), eot_token_id: ids[2].map(u32::from),
            ..GgufVocab::default()
        };
        let (mut kinds, mut scores) = (kinds, scores);
        if bytes {
            kinds.resize(vocab.tokens.len(), 1);
            scores.resize(vocab.tokens.len(), 0.5);
            vocab.tokens.extend((0..=255_u8).map(|byte| format!("<0x{byte:02X}>")));
            kinds.resize(vocab.tokens.len(), 6);
            scores.resize(vocab.tokens.len(), 0.0);
        }
        (vocab.token_types, vocab.scores) = (Some(kinds), Some(scores));
        if let Ok(tokenizer) = Tokenizer::from_gguf(vocab) {
            for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
                if let Ok(ids) = tokenizer.encode(&text, special) {
                    let _text = tokenizer.decode(&ids);
                }
            }
        }
    }

    /// One value of `tokenizer.json` replaced by another.
    #[test]
    fn damaged_tokenizer_json_never_panics(
        name in prop::sample::select(vec!["gpt-2", "qwen2", "llama-2", "gemma"]),
        place in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![
            json!(null), json!(0), json!(-1), json!(1e300), json!(u64::MAX), json!(""), json!("a"), json!("▁"),
            json!([]), json!({}), json!(["a", "b"]), json!({"type": "NFC"}), json!(true),
        ]),
        text in "[a-z▁<> ]{0,12}",
    ) {
        let is_space_mark = ["llama-2", "gemma"].contains(&name);
        let fixture = data(if is_space_mark { "space_mark.json" } else { "byte_level.json" });
        let mut json = variant_json(&fixture, name);
        let places = places(&json);
        *json.pointer_mut(&places[place.index(places.len())]).unwrap() = value;
        if let Ok(tokenizer) = folder(&[("tokenizer.json", &json)])
            && let Ok(ids) = tokenizer.encode(&text, SpecialTokens::Parse)
        {
            let _text = tokenizer.decode(&ids);
        }
    }
}

/// Pointers to values of a JSON tree; of long lists only the first few.
fn places(json: &Value) -> Vec<String> {
    let mut all = vec![String::new()];
    let children: Vec<(String, &Value)> = match json {
        Value::Array(items) => (0..)
            .map(|idx: usize| idx.to_string())
            .zip(items)
            .take(4)
            .collect(),
        Value::Object(fields) => {
            let names = fields
                .iter()
                .map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value));
            names.take(12).collect()
        }
        _ => Vec::new(),
    };
    for (name, child) in children {
        all.extend(places(child).into_iter().map(|rest| format!("/{name}{rest}")));
    }
    all
}
