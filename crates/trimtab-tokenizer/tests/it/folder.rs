//! Folders in the hub's layout: ids as the library gives them, and what each file decides.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use trimtab_base::TokenId;
use trimtab_tokenizer::{GgufVocab, Message, RenderOptions, SpecialTokens, Tokenizer, TokenizerError};

use crate::fixtures::{
    byte_level_gguf, cases, check_cases, data, folder, space_mark_gguf, space_mark_llama2c, variant_json,
};

const BYTE_LEVEL: [&str; 4] = ["gpt-2", "smollm", "qwen2", "llama-bpe"];

#[test]
fn byte_level_folders_tokenise_as_the_library_does() {
    let fixture = data("byte_level.json");
    for name in BYTE_LEVEL {
        let tokenizer = folder(&[("tokenizer.json", &variant_json(&fixture, name))]).unwrap();
        check_cases(
            &tokenizer,
            &cases(&fixture["variants"][name]["cases"]),
            true,
            name,
        );
    }
}

#[test]
fn byte_level_gguf_files_give_the_ids_of_their_folder() {
    let fixture = data("byte_level.json");
    for name in BYTE_LEVEL {
        let tokenizer = Tokenizer::from_gguf(byte_level_gguf(&fixture["tokenizer_json"], name)).unwrap();
        let mut cases = cases(&fixture["variants"][name]["cases"]);
        if name == "qwen2" {
            // The folder asks for NFC, GGUF cannot.
            cases.retain(|case| !case.text.contains('\u{301}') && !case.text.contains('\u{2003}'));
        }
        check_cases(&tokenizer, &cases, true, name);
    }
}

#[test]
fn sentence_piece_sources_give_the_ids_of_the_original() {
    let fixture = data("space_mark.json");
    let gguf = Tokenizer::from_gguf(space_mark_gguf(&fixture)).unwrap();
    check_cases(&gguf, &cases(&fixture["cases"]), false, "gguf");
    let llama = folder(&[("tokenizer.json", &variant_json(&fixture, "llama-2"))]).unwrap();
    let mut llama_cases = cases(&fixture["variants"]["llama-2"]["cases"]);
    // The library puts a space after user-defined tokens as well, which loses bytes.
    llama_cases.retain(|case| !case.text.contains("<tool>"));
    check_cases(&llama, &llama_cases, false, "llama-2");
    let gemma = folder(&[("tokenizer.json", &variant_json(&fixture, "gemma"))]).unwrap();
    check_cases(
        &gemma,
        &cases(&fixture["variants"]["gemma"]["cases"]),
        false,
        "gemma",
    );
    for case in cases(&fixture["cases"]) {
        let ids = |tokenizer: &Tokenizer| tokenizer.encode(&case.text, SpecialTokens::AsText).unwrap();
        assert_eq!(ids(&llama), ids(&gguf), "{:?}", case.text);
    }
}

#[test]
fn llama2c_files_give_the_ids_of_the_original() {
    let fixture = data("space_mark.json");
    let mut pieces = space_mark_llama2c(&fixture);
    // llama2.c wants the bytes right after the three control tokens.
    let named: Vec<usize> = (3..pieces.len())
        .filter(|&id| pieces[id].1.starts_with(b"<t"))
        .collect();
    assert_eq!(named, [3, 4], "the fixture's own symbols come before the bytes");
    pieces.drain(3..5);
    let tokenizer = Tokenizer::from_llama2c(pieces.clone()).unwrap();
    let mut cases = cases(&fixture["cases"]);
    cases.retain(|case| !case.text.contains('<'));
    for case in &mut cases {
        for id in &mut case.ids {
            *id -= 2;
        }
    }
    check_cases(&tokenizer, &cases, false, "llama2.c");
    for byte in 0..=255_u8 {
        // The oldest files name the bytes by their characters.
        pieces[3 + usize::from(byte)].1 = char::from(byte).to_string().into_bytes();
    }
    let oldest = Tokenizer::from_llama2c(pieces).unwrap();
    check_cases(&oldest, &cases, false, "oldest llama2.c");
}

#[test]
fn newer_files_say_the_same_by_metaspace() {
    let fixture = data("space_mark.json");
    let llama = folder(&[("tokenizer.json", &variant_json(&fixture, "llama-2"))]).unwrap();
    let mut json = variant_json(&fixture, "llama-2");
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false});
    let always = folder(&[("tokenizer.json", &json)]).unwrap();
    json["pre_tokenizer"]["prepend_scheme"] = json!("first");
    let first = folder(&[("tokenizer.json", &json)]).unwrap();
    json["pre_tokenizer"]["prepend_scheme"] = json!("never");
    let never = folder(&[("tokenizer.json", &json)]).unwrap();
    let gemma = folder(&[("tokenizer.json", &variant_json(&fixture, "gemma"))]).unwrap();
    let ids = |tokenizer: &Tokenizer| tokenizer.encode(" the<turn>ship ", SpecialTokens::Parse).unwrap();
    assert_eq!(ids(&always), ids(&llama));
    assert_eq!(ids(&never), ids(&gemma));
    assert_eq!(
        first.decode(&ids(&first)),
        " theship ",
        "the control token adds nothing"
    );
    assert_ne!(ids(&first), ids(&always));
    assert_ne!(ids(&first), ids(&never));
}

#[test]
fn each_file_decides_its_part() {
    let json = variant_json(&data("byte_level.json"), "gpt-2");
    let id = |tokenizer: &Tokenizer, piece: &str| tokenizer.token_id(piece).unwrap();
    let config = json!({
        "bos_token": "<|im_start|>",
        "eos_token": {"content": "<|endoftext|>", "special": true},
        "add_bos_token": true,
        "chat_template": [
            {"name": "tool_use", "template": "tools"},
            {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"},
        ],
    });
    let tool = id(&folder(&[("tokenizer.json", &json)]).unwrap(), "<tool>");
    let generation = json!({"eos_token_id": [tool.0]});
    let tokenizer = folder(&[
        ("tokenizer.json", &json),
        ("tokenizer_config.json", &config),
        ("generation_config.json", &generation),
        ("config.json", &json!({"eos_token_id": 0})),
    ])
    .unwrap();
    assert_eq!(tokenizer.bos(), Some(id(&tokenizer, "<|im_start|>")));
    let mut stops = ["<|endoftext|>", "<|im_end|>", "<tool>"].map(|piece| id(&tokenizer, piece));
    stops.sort_unstable();
    assert_eq!(tokenizer.stop_tokens(), stops);
    let prompt = tokenizer.encode_prompt("<|im_start|>").unwrap();
    assert_eq!(prompt[0], id(&tokenizer, "<|im_start|>"));
    assert!(!prompt[1..].contains(&prompt[0]), "the prompt's text stays text");
    let chat = tokenizer
        .encode_chat(&[Message::new("user", "x")], &RenderOptions::default())
        .unwrap()
        .unwrap();
    let expect = [
        id(&tokenizer, "<|im_start|>"),
        id(&tokenizer, "x"),
        id(&tokenizer, "<|endoftext|>"),
    ];
    assert_eq!(chat, expect);
}

#[test]
fn a_file_of_its_own_overrides_the_template_in_the_config() {
    let dir = TempDir::new().unwrap();
    let json = variant_json(&data("byte_level.json"), "gpt-2");
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"chat_template": "old"}"#,
    )
    .unwrap();
    let render = || {
        let tokenizer = Tokenizer::from_hf_folder(dir.path()).unwrap();
        let template = tokenizer.chat_template().unwrap();
        template.render(&[], &RenderOptions::default()).unwrap()
    };
    assert_eq!(render(), "old");
    fs::write(dir.path().join("chat_template.jinja"), "new").unwrap();
    assert_eq!(render(), "new");
}

#[test]
fn the_post_processor_decides_bos_if_the_config_does_not() {
    let mut json = variant_json(&data("byte_level.json"), "llama-bpe");
    json["post_processor"] = json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        ]},
    ]});
    let tokenizer = folder(&[("tokenizer.json", &json)]).unwrap();
    let bos = tokenizer.token_id("<|im_start|>");
    assert_eq!(tokenizer.bos(), bos);
    assert_eq!(tokenizer.encode_prompt("").unwrap(), Vec::from_iter(bos));
    let config = json!({"add_bos_token": false});
    let tokenizer = folder(&[("tokenizer.json", &json), ("tokenizer_config.json", &config)]).unwrap();
    assert_eq!(tokenizer.encode_prompt("").unwrap(), Vec::<TokenId>::new());
}

#[test]
fn plain_text_never_becomes_a_control_token() {
    // Merges that spell a control token, and a rule to take words whole: both would make it from text.
    let tokens = ["<", "s", ">", "s>", "<s>", "a"];
    let mut json = json!({"added_tokens": [], "pre_tokenizer": {
        "type": "ByteLevel", "add_prefix_space": false, "use_regex": false,
    }, "model": {"type": "BPE", "ignore_merges": true, "merges": [["s", ">"], ["<", "s>"]], "vocab": {}}});
    for (id, piece) in tokens.iter().enumerate() {
        json["model"]["vocab"][piece] = json!(id);
    }
    json["added_tokens"] = json!([{"id": 4, "content": "<s>", "special": true}]);
    let tokenizer = folder(&[("tokenizer.json", &json)]).unwrap();
    let check = |special, expect: &[u32]| {
        let expect: Vec<TokenId> = expect.iter().copied().map(TokenId).collect();
        assert_eq!(tokenizer.encode("<s>", special).unwrap(), expect);
    };
    check(SpecialTokens::Parse, &[4]);
    check(SpecialTokens::AsText, &[0, 3]);
    let gguf = Tokenizer::from_gguf(GgufVocab {
        model: "gpt2".into(),
        pre: Some("llama-bpe".into()),
        tokens: tokens.map(str::to_owned).to_vec(),
        token_types: Some(vec![1, 1, 1, 1, 3, 1]),
        merges: Some(vec!["s >".into(), "< s>".into()]),
        ..GgufVocab::default()
    });
    let ids = gguf.unwrap().encode("<s>", SpecialTokens::AsText).unwrap();
    assert!(!ids.contains(&TokenId(4)));
}

#[test]
fn a_missing_byte_is_named() {
    let json = json!({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "model": {"type": "BPE", "merges": [], "vocab": {"a": 0}}});
    let tokenizer = folder(&[("tokenizer.json", &json)]).unwrap();
    assert_eq!(tokenizer.encode("aa", SpecialTokens::Parse).unwrap().len(), 2);
    let error = tokenizer.encode("ab", SpecialTokens::Parse).unwrap_err();
    assert!(matches!(error, TokenizerError::MissingByte { byte: b'b' }));
}
