//! A vocabulary that changes its format keeps the ids of every text, the bytes of every token and what ends an answer.

use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;
use trimtab_base::{TokenBytes, TokenId};
use trimtab_tokenizer::{GgufVocab, SpecialTokens, Tokenizer};

use crate::fixtures::{byte_level_gguf, data, space_mark_gguf, space_mark_llama2c, variant_json};

/// One vocabulary in its own format and after changes of format.
struct Chain {
    name: &'static str,
    tokenizers: Vec<(&'static str, Tokenizer)>,
    /// Texts are compared in Unicode's composed form, which the file asks for and GGUF cannot.
    composed: bool,
}

/// A hub folder of the vocabulary.
pub(crate) fn hub_folder(vocab: &GgufVocab) -> TempDir {
    let files = vocab.to_hf_files(128).unwrap();
    let folder = TempDir::new().unwrap();
    for (name, text) in [
        ("tokenizer.json", &files.tokenizer),
        ("tokenizer_config.json", &files.tokenizer_config),
        ("generation_config.json", &files.generation_config),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// GGUF, the hub's layout, GGUF again.
fn from_gguf(name: &'static str, vocab: &GgufVocab) -> Chain {
    let folder = hub_folder(vocab);
    let again = GgufVocab::from_hf_folder(folder.path()).unwrap();
    let twice = GgufVocab::from_hf_folder(hub_folder(&again).path()).unwrap();
    assert_eq!(
        again, twice,
        "{name}: the second change of format changes something"
    );
    assert_eq!(again.tokens, vocab.tokens, "{name}");
    Chain {
        name,
        tokenizers: vec![
            ("gguf", Tokenizer::from_gguf(vocab.clone()).unwrap()),
            ("gguf to hf", Tokenizer::from_hf_folder(folder.path()).unwrap()),
            ("gguf to hf to gguf", Tokenizer::from_gguf(again).unwrap()),
        ],
        composed: false,
    }
}

/// A published setting of a fixture, and GGUF.
fn from_hub(name: &'static str, fixture: &str, variant: &str) -> Chain {
    let folder = TempDir::new().unwrap();
    let json = variant_json(&data(fixture), variant);
    fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let vocab = GgufVocab::from_hf_folder(folder.path()).unwrap();
    Chain {
        name,
        tokenizers: vec![
            ("hf", Tokenizer::from_hf_folder(folder.path()).unwrap()),
            ("hf to gguf", Tokenizer::from_gguf(vocab).unwrap()),
        ],
        composed: variant == "qwen2",
    }
}

static CHAINS: LazyLock<Vec<Chain>> = LazyLock::new(|| {
    let (bytes, marks) = (data("byte_level.json"), data("space_mark.json"));
    let byte_level = |pre: &str| GgufVocab {
        bos_token_id: Some(420),
        eos_token_id: Some(422),
        chat_template: Some("{{ bos_token }}{{ messages[0].content }}".into()),
        ..byte_level_gguf(&bytes["tokenizer_json"], pre)
    };
    let with_eos = GgufVocab {
        bos_token_id: Some(1),
        eos_token_id: Some(2),
        eot_token_id: Some(3),
        ..space_mark_gguf(&marks)
    };
    let without_prefix = GgufVocab {
        add_space_prefix: Some(false),
        ..with_eos.clone()
    };
    // Gemma's: runs of spaces are user-defined.
    let mut with_runs = without_prefix.clone();
    for len in 2..6 {
        let (scores, kinds) = (
            with_runs.scores.as_mut().unwrap(),
            with_runs.token_types.as_mut().unwrap(),
        );
        with_runs.tokens.push("▁".repeat(len));
        scores.push(-1000.0);
        kinds.push(4);
    }
    // Llama 2's: runs of spaces have one score, the least.
    let mut with_ties = with_eos.clone();
    for len in 2..6 {
        let (scores, kinds) = (
            with_ties.scores.as_mut().unwrap(),
            with_ties.token_types.as_mut().unwrap(),
        );
        with_ties.tokens.push("▁".repeat(len));
        scores.push(-1e9);
        kinds.push(1);
    }
    let mut llama2c = space_mark_llama2c(&marks);
    llama2c.drain(3..5);
    let from_llama2c = GgufVocab::from_llama2c(&llama2c).unwrap();
    let mut chain = from_gguf("llama2.c", &from_llama2c);
    chain
        .tokenizers
        .push(("llama2.c", Tokenizer::from_llama2c(llama2c).unwrap()));
    vec![
        from_gguf("smollm", &byte_level("smollm")),
        from_gguf("qwen2", &byte_level("qwen2")),
        from_gguf("llama 3", &byte_level("llama-bpe")),
        from_gguf("default", &byte_level("default")),
        from_gguf("sentence-piece", &with_eos),
        from_gguf("without prefix", &without_prefix),
        from_gguf("runs of spaces", &with_runs),
        from_gguf("runs of one score", &with_ties),
        chain,
        from_hub("smollm of the hub", "byte_level.json", "smollm"),
        from_hub("gpt-2 of the hub", "byte_level.json", "gpt-2"),
        from_hub("llama 3 of the hub", "byte_level.json", "llama-bpe"),
        from_hub("qwen 2 of the hub", "byte_level.json", "qwen2"),
        from_hub("llama 2 of the hub", "space_mark.json", "llama-2"),
        from_hub("gemma of the hub", "space_mark.json", "gemma"),
    ]
});

fn check(text: &str) {
    for chain in CHAINS.iter() {
        let (first_name, first) = &chain.tokenizers[0];
        if chain.composed && !text.is_ascii() {
            continue;
        }
        // A vocabulary says in GGUF which tokens are parsed, in llama2.c it does not; `<unk>` is parsed in the hub's only.
        let parses = chain.name != "llama2.c" && !text.contains("<unk>");
        let modes = if parses {
            &[SpecialTokens::AsText, SpecialTokens::Parse][..]
        } else {
            &[SpecialTokens::AsText]
        };
        for &mode in modes {
            let expected = first.encode(text, mode).unwrap();
            for (name, tokenizer) in &chain.tokenizers[1..] {
                let got = tokenizer.encode(text, mode).unwrap();
                assert_eq!(
                    got, expected,
                    "{}: {name} after {first_name}: {text:?}",
                    chain.name
                );
                assert_eq!(
                    tokenizer.decode(&got),
                    first.decode(&got),
                    "{}: {name}",
                    chain.name
                );
            }
        }
        let prompt = first.encode_prompt(text).unwrap();
        for (name, tokenizer) in &chain.tokenizers[1..] {
            let got = tokenizer.encode_prompt(text).unwrap();
            assert_eq!(got, prompt, "{}: {name}, prompt {text:?}", chain.name);
        }
    }
}

#[test]
fn tokens_mean_the_same() {
    for chain in CHAINS.iter() {
        let (_, first) = &chain.tokenizers[0];
        for (name, tokenizer) in &chain.tokenizers[1..] {
            let what = format!("{}: {name}", chain.name);
            assert_eq!(tokenizer.stop_tokens(), first.stop_tokens(), "{what}");
            assert_eq!(tokenizer.bos(), first.bos(), "{what}");
            let template = |tokenizer: &Tokenizer| tokenizer.chat_template().is_some();
            assert_eq!(template(tokenizer), template(first), "{what}");
            for id in (0..first.vocab_len() as u32).map(TokenId) {
                assert_eq!(tokenizer.bytes_of(id), first.bytes_of(id), "{what}: {id:?}");
            }
        }
    }
}

#[test]
fn awkward_texts_keep_their_ids() {
    for text in [
        "",
        " ",
        "▁",
        "▁ a",
        "<tool>",
        "<tool> <tool> a<turn> b",
        "<|im_end|> <|im_start|>x",
        "\0",
        "\u{10FFFF}",
        " <s>",
        "a\r\n\tb ",
        "the little rudder     is 1234567 and  it's    following",
        "     ",
        "a            b                     c",
        "a     b   c",
        "1234567890",
        "aaaaaaaaa lllllllll eeeee ererer",
    ] {
        check(text);
    }
}

proptest! {
    #[test]
    fn texts_keep_their_ids(
        parts in prop::collection::vec(prop_oneof![
            3 => any::<String>(),
            2 => "[ \t\n]{0,5}",
            4 => "[a-z ]{0,16}",
            2 => "(the|little|rudder|turn|follow|it|is|and| |l|e|r|d|2|9|0){0,12}",
            1 => prop::sample::select(vec![
                "▁", "▁▁", "<tool>", "<|im_end|>", "<s>", "<turn>", "<0x41>", "<unk>", "é", "e\u{301}",
            ]).prop_map(str::to_owned),
        ], 0..6),
    ) {
        let text = parts.concat();
        check(&text);
    }
}

#[test]
fn what_the_hubs_files_cannot_say_is_refused_by_name() {
    let marks = data("space_mark.json");
    let check = |change: &dyn Fn(&mut GgufVocab), expect: &str| {
        let mut vocab = space_mark_gguf(&marks);
        change(&mut vocab);
        let error = vocab.to_hf_files(128).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    };
    let scores = |vocab: &mut GgufVocab, id: usize, score: f32| vocab.scores.as_mut().unwrap()[id] = score;
    check(
        &|vocab| scores(vocab, 262, -2.0),
        "\"he\" and \"▁a\" have one score",
    );
    check(&|vocab| scores(vocab, 262, f32::NAN), "score of token 262");
    check(
        &|vocab| vocab.model = "t5".into(),
        "expected one of gpt2, llama, got \"t5\"",
    );
    check(&|vocab| vocab.scores = None, "tokenizer.ggml.scores is missing");
    check(
        &|vocab| {
            vocab.tokens.push("a▁b".into());
            vocab.scores.as_mut().unwrap().push(0.0);
            vocab.token_types.as_mut().unwrap().push(4);
        },
        "user-defined piece \"a▁b\"",
    );
}

#[test]
fn what_gguf_cannot_say_is_refused_by_name() {
    let gguf = |change: &dyn Fn(&mut serde_json::Value), fixture: &str, variant: &str, expect: &str| {
        let mut json = variant_json(&data(fixture), variant);
        change(&mut json);
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
        let error = GgufVocab::from_hf_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
        assert!(error.contains("hf"), "{error:?} names no remedy");
    };
    gguf(
        &|json| {
            json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Punctuation", "behavior": "Isolated"},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
        },
        "byte_level.json",
        "gpt-2",
        "no name for its cut into words",
    );
    gguf(
        &|json| json["added_tokens"][0]["lstrip"] = json!(true),
        "byte_level.json",
        "gpt-2",
        "has lstrip",
    );
    gguf(
        &|json| json["model"]["merges"].as_array_mut().unwrap().swap(4, 0),
        "space_mark.json",
        "llama-2",
        "at two ranks",
    );
    gguf(
        &|json| drop(json["model"]["merges"].as_array_mut().unwrap().remove(4)),
        "space_mark.json",
        "llama-2",
        "no merge rule for \"▁a\" and \"n\"",
    );
}

#[test]
fn pieces_of_llama2c_that_are_no_vocabulary_are_refused_by_name() {
    type Pieces = Vec<(f32, Vec<u8>)>;
    let mut pieces = space_mark_llama2c(&data("space_mark.json"));
    pieces.drain(3..5);
    let refuse = |change: &dyn Fn(&mut Pieces), expect: &str| {
        let mut pieces = pieces.clone();
        change(&mut pieces);
        let error = GgufVocab::from_llama2c(&pieces).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    };
    refuse(
        &|pieces| pieces[300].1 = vec![0xFF],
        "bytes of token 300, \"\\xff\", are no text",
    );
    refuse(
        &|pieces| pieces[300].1 = pieces[301].1.clone(),
        "has two ids, 300 and 301",
    );
    refuse(
        &|pieces| pieces.retain(|(_, piece)| piece != b" "),
        "token for a space",
    );
}

#[test]
fn vocabularies_are_padded_to_the_models_rows() {
    let vocab = space_mark_gguf(&data("space_mark.json"));
    let num_tokens = vocab.tokens.len();
    let padded = vocab.clone().padded(num_tokens + 2).unwrap();
    assert_eq!(padded.tokens[num_tokens + 1], format!("[PAD{}]", num_tokens + 1));
    let (first, second) = (
        Tokenizer::from_gguf(vocab.clone()).unwrap(),
        Tokenizer::from_gguf(padded).unwrap(),
    );
    let text = "the little [PAD481] rudder";
    let ids = |tokenizer: &Tokenizer| tokenizer.encode(text, SpecialTokens::Parse).unwrap();
    assert_eq!(ids(&first), ids(&second));
    let error = vocab.padded(num_tokens - 1).unwrap_err().to_string();
    assert!(error.contains("at most 479, got 480"), "{error}");
}
