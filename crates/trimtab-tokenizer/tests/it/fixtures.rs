//! The small vocabularies of `tests/data` and how they become tokenizers. Knows no law.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use trimtab_base::TokenId;
use trimtab_tokenizer::{GgufVocab, SpecialTokens, Tokenizer};

/// A text with the ids that another program gives it.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) text: String,
    /// Control tokens read as text.
    pub(crate) ids: Vec<u32>,
    /// Control tokens parsed; absent if that changes nothing.
    pub(crate) ids_parsed: Option<Vec<u32>>,
}

/// A JSON file of `tests/data`.
pub(crate) fn data(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn cases(value: &Value) -> Vec<Case> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A tokenizer from a folder with these files.
pub(crate) fn folder(files: &[(&str, &Value)]) -> Result<Tokenizer, trimtab_tokenizer::TokenizerError> {
    let dir = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content.to_string()).unwrap();
    }
    Tokenizer::from_hf_folder(dir.path())
}

/// `tokenizer.json` of a fixture under one published setting.
pub(crate) fn variant_json(fixture: &Value, name: &str) -> Value {
    let variant = &fixture["variants"][name];
    let mut tokenizer = fixture["tokenizer_json"].clone();
    tokenizer["normalizer"] = variant["normalizer"].clone();
    tokenizer["pre_tokenizer"] = variant["pre_tokenizer"].clone();
    tokenizer["model"]["ignore_merges"] = variant["ignore_merges"].clone();
    tokenizer
}

/// What GGUF metadata would say of a byte-level `tokenizer.json`.
pub(crate) fn byte_level_gguf(tokenizer: &Value, pre: &str) -> GgufVocab {
    let mut pieces: Vec<(u64, String, i32)> = Vec::new();
    for (piece, id) in tokenizer["model"]["vocab"].as_object().unwrap() {
        pieces.push((id.as_u64().unwrap(), piece.clone(), 1));
    }
    for added in tokenizer["added_tokens"].as_array().unwrap() {
        let kind = if added["special"] == json!(true) { 3 } else { 4 };
        pieces.push((
            added["id"].as_u64().unwrap(),
            added["content"].as_str().unwrap().to_owned(),
            kind,
        ));
    }
    pieces.sort();
    let merges = tokenizer["model"]["merges"].as_array().unwrap();
    let merges = merges
        .iter()
        .map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    GgufVocab {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        merges: Some(merges.collect()),
        token_types: Some(pieces.iter().map(|(_, _, kind)| *kind).collect()),
        tokens: pieces.into_iter().map(|(_, piece, _)| piece).collect(),
        ..GgufVocab::default()
    }
}

/// What GGUF metadata would say of the SentencePiece fixture.
pub(crate) fn space_mark_gguf(fixture: &Value) -> GgufVocab {
    let pieces = fixture["pieces"].as_array().unwrap();
    GgufVocab {
        model: "llama".into(),
        tokens: pieces
            .iter()
            .map(|piece| piece[0].as_str().unwrap().to_owned())
            .collect(),
        scores: Some(
            pieces
                .iter()
                .map(|piece| piece[1].as_f64().unwrap() as f32)
                .collect(),
        ),
        token_types: Some(
            pieces
                .iter()
                .map(|piece| piece[2].as_i64().unwrap() as i32)
                .collect(),
        ),
        ..GgufVocab::default()
    }
}

/// What llama2.c's file would hold of the SentencePiece fixture.
pub(crate) fn space_mark_llama2c(fixture: &Value) -> Vec<(f32, Vec<u8>)> {
    let vocab = space_mark_gguf(fixture);
    let pieces = vocab.tokens.into_iter().zip(vocab.scores.unwrap());
    pieces
        .map(|(piece, score)| (score, piece.replace('▁', " ").into_bytes()))
        .collect()
}

/// Asserts that a tokenizer gives the expected ids. `exact_marks`: whether the other program keeps a `▁` of the text.
pub(crate) fn check_cases(tokenizer: &Tokenizer, cases: &[Case], exact_marks: bool, name: &str) {
    assert!(!cases.is_empty(), "{name} has no cases");
    for case in cases {
        if !exact_marks && case.text.contains('▁') {
            continue;
        }
        let ids = |special| {
            let ids = tokenizer.encode(&case.text, special).unwrap();
            ids.into_iter().map(|TokenId(id)| id).collect::<Vec<u32>>()
        };
        assert_eq!(ids(SpecialTokens::AsText), case.ids, "{name}: {:?}", case.text);
        let parsed = case.ids_parsed.as_ref().unwrap_or(&case.ids);
        if exact_marks || case.ids_parsed.is_some() {
            assert_eq!(
                &ids(SpecialTokens::Parse),
                parsed,
                "{name}, parsed: {:?}",
                case.text
            );
        }
    }
}
