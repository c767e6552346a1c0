//! Real vocabularies against published tokenisations (`dev/parity.py`), for those that this machine has.
//!
//! Looked for are GGUF files in the model store (`TRIMTAB_HOME` or the platform's cache) and in the folder
//! `TRIMTAB_TEST_VOCABS`, and `stories260K` in `../shared/data` beside the repository. Nothing is fetched. What
//! `TRIMTAB_REQUIRE_MODELS` names (aliases, or `1` for all that `.ci/run` fetches) must be there.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trimtab_base::{TokenBytes, TokenId};
use trimtab_checkpoint::{Checkpoint, read_llama2c_tokenizer};
use trimtab_tokenizer::{GgufVocab, SpecialTokens, Tokenizer};

use crate::conversion::hub_folder;
use crate::fixtures::{Case, cases, check_cases, data, folder};

#[expect(clippy::print_stderr, reason = "a skipped check says why")]
fn skip(what: &str) {
    eprintln!("skipped: {what}");
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no command line to be told by"
)]
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// Aliases of the models that must be there: those of the list that a GGUF file belongs to.
fn required_models() -> Vec<String> {
    match variable("TRIMTAB_REQUIRE_MODELS")
        .as_deref()
        .and_then(OsStr::to_str)
    {
        None | Some("") => Vec::new(),
        Some("1") => vec![
            "smollm2-135m-instruct".to_owned(),
            "qwen2.5-coder-0.5b-instruct".to_owned(),
        ],
        // Its vocabulary is no GGUF file.
        Some(list) => list
            .split(',')
            .filter(|name| *name != "stories15m")
            .map(str::to_owned)
            .collect(),
    }
}

/// GGUF files of this machine.
fn gguf_files() -> Vec<PathBuf> {
    let home = variable("TRIMTAB_HOME").map(PathBuf::from);
    let store = home.or_else(|| Some(dirs::cache_dir()?.join("trimtab")));
    let mut files: Vec<PathBuf> = store
        .iter()
        .flat_map(|store| entries(&store.join("models")))
        .flat_map(|model| entries(&model))
        .collect();
    files.extend(
        variable("TRIMTAB_TEST_VOCABS")
            .iter()
            .flat_map(|dir| entries(Path::new(dir))),
    );
    files.retain(|path| path.extension().is_some_and(|ending| ending == "gguf"));
    files.sort();
    files
}

fn vocab(path: &Path) -> Option<GgufVocab> {
    let checkpoint = Checkpoint::open(path).ok()?;
    let metadata = checkpoint.metadata()?;
    let key = |field: &str| format!("tokenizer.ggml.{field}");
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    Some(GgufVocab {
        model: metadata.text(&key("model")).ok()??.to_owned(),
        pre: metadata.text(&key("pre")).unwrap().map(str::to_owned),
        tokens: owned(metadata.texts(&key("tokens")).ok()??),
        scores: metadata.f32s(&key("scores")).unwrap(),
        token_types: metadata.i32s(&key("token_type")).unwrap(),
        merges: metadata.texts(&key("merges")).unwrap().map(owned),
        bos_token_id: metadata.u32(&key("bos_token_id")).unwrap(),
        eos_token_id: metadata.u32(&key("eos_token_id")).unwrap(),
        eot_token_id: metadata.u32(&key("eot_token_id")).unwrap(),
        eom_token_id: metadata.u32(&key("eom_token_id")).unwrap(),
        add_bos: metadata.bool(&key("add_bos_token")).unwrap(),
        add_space_prefix: metadata.bool(&key("add_space_prefix")).unwrap(),
        chat_template: metadata
            .text("tokenizer.chat_template")
            .unwrap()
            .map(str::to_owned),
    })
}

fn known_by(vocab: &GgufVocab) -> Value {
    json!({"model": vocab.model, "pre": vocab.pre, "num_tokens": vocab.tokens.len()})
}

/// Files of `tests/data/parity` that are about this vocabulary.
fn expectations(known_by: &Value) -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity");
    let names = entries(&dir);
    assert!(names.len() >= 10, "the checked-in expectations are gone");
    let names = names
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    names
        .map(|name| (name.clone(), data(&format!("parity/{name}"))))
        .filter(|(_, expected)| expected["known_by"] == *known_by)
        .collect()
}

#[test]
fn gguf_vocabularies_tokenise_as_published() {
    let files = gguf_files();
    if files.is_empty() {
        skip("no GGUF file in the model store; `trimtab quickstart` puts one there");
    }
    for alias in required_models() {
        let lies_in = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with(&alias));
        assert!(
            files.iter().any(lies_in),
            "{alias} is required and not in the store; `trimtab models get {alias}` fetches it"
        );
    }
    for path in files {
        let Some(vocab) = vocab(&path) else {
            skip(&format!("{} has no vocabulary", path.display()));
            continue;
        };
        let expectations = expectations(&known_by(&vocab));
        if expectations.is_empty() {
            skip(&format!(
                "{} has a vocabulary without published ids",
                path.display()
            ));
            continue;
        }
        let byte_level = vocab.model == "gpt2";
        let as_json = byte_level.then(|| tokenizer_json(&vocab)).flatten();
        let converted = converted(&vocab);
        let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
        for (name, expected) in expectations {
            let cases = cases(&expected["cases"]);
            check_converted(&tokenizer, &converted, &cases, &name);
            check_cases(&tokenizer, &cases, byte_level, &name);
            for case in &cases {
                let ids = tokenizer.encode(&case.text, SpecialTokens::AsText).unwrap();
                assert_eq!(tokenizer.decode(&ids), case.text, "{name}");
            }
            if let Some(json) = &as_json {
                let from_folder = folder(&[("tokenizer.json", json)]).unwrap();
                check_cases(
                    &from_folder,
                    &cases,
                    byte_level,
                    &format!("{name} as tokenizer.json"),
                );
                let num_ids = tokenizer.vocab_len().max(from_folder.vocab_len()) as u32;
                for id in (0..num_ids).map(TokenId) {
                    assert_eq!(from_folder.bytes_of(id), tokenizer.bytes_of(id), "{name}: {id:?}");
                }
            }
        }
    }
}

/// The vocabulary in the hub's layout, and in GGUF again.
fn converted(vocab: &GgufVocab) -> [Tokenizer; 2] {
    let folder = hub_folder(vocab);
    let again = GgufVocab::from_hf_folder(folder.path()).unwrap();
    [
        Tokenizer::from_hf_folder(folder.path()).unwrap(),
        Tokenizer::from_gguf(again).unwrap(),
    ]
}

fn check_converted(tokenizer: &Tokenizer, converted: &[Tokenizer], cases: &[Case], name: &str) {
    for case in cases {
        let ids = tokenizer.encode(&case.text, SpecialTokens::AsText).unwrap();
        for (format, other) in ["hf", "hf, then gguf"].iter().zip(converted) {
            let got = other.encode(&case.text, SpecialTokens::AsText).unwrap();
            assert_eq!(got, ids, "{name} as {format}: {:?}", case.text);
        }
    }
}

/// The same vocabulary as the model publishes it in `tokenizer.json`; `None` for cuts that are not written down here.
fn tokenizer_json(vocab: &GgufVocab) -> Option<Value> {
    let setting = match vocab.pre.as_deref()? {
        pre @ ("smollm" | "llama-bpe" | "gpt-2") => pre,
        // The folder's NFC is checked on the small vocabulary; here the ids must be GGUF's.
        "qwen2" => "qwen2",
        _ => return None,
    };
    let fixture = data("byte_level.json");
    let variant = &fixture["variants"][setting];
    let kinds = vocab.token_types.as_ref()?;
    let pieces = || vocab.tokens.iter().zip(kinds).enumerate();
    let added: Vec<Value> = pieces()
        .filter(|(_, (_, kind))| [2, 3, 4].contains(*kind))
        .map(|(id, (piece, kind))| json!({"id": id, "content": piece, "special": *kind != 4}))
        .collect();
    // Padding is in no tokenizer.json.
    let model = pieces().filter(|(_, (_, kind))| [1, 6].contains(*kind));
    let model: serde_json::Map<String, Value> =
        model.map(|(id, (piece, _))| (piece.clone(), json!(id))).collect();
    Some(json!({
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": variant["pre_tokenizer"],
        "model": {"type": "BPE", "vocab": model, "merges": vocab.merges, "ignore_merges": variant["ignore_merges"]},
    }))
}

#[test]
fn llama2c_vocabulary_tokenises_as_sentence_piece() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/stories260K/tok512.bin");
    if !path.exists() {
        return skip("stories260K/tok512.bin is not beside the repository");
    }
    let pieces = read_llama2c_tokenizer(&path, 512).unwrap();
    let converted = converted(&GgufVocab::from_llama2c(&pieces).unwrap());
    let tokenizer = Tokenizer::from_llama2c(pieces).unwrap();
    let expected = data("parity/tok512.json");
    let mut cases = cases(&expected["cases"]);
    check_converted(&tokenizer, &converted, &cases, "tok512");
    // SentencePiece normalises (NFKC) and drops repeated spaces by this model's own setting; llama2.c does neither.
    cases.retain(|case| case.text.is_ascii() && !case.text.contains("  ") && case.text.trim() == case.text);
    cases.retain(|case| !case.text.contains(['\n', '\t', '\0', '\r', '\x1b']));
    assert!(cases.len() > 10);
    check_cases(&tokenizer, &cases, false, "tok512");
}
