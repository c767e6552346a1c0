//! Trained models written in each format and opened again: the same weights, the same hidden states.

use std::path::Path;

use serde_json::json;
use trimtab_checkpoint::Format;
use trimtab_model::ModelFile;
use trimtab_model::config::ModelConfig;
use trimtab_model::load::WeightSource;
use trimtab_model::names::{LayerRole, Role, roles, tensor_name};
use trimtab_model::presets::{test_tiny, test_tiny_gemma, test_tiny_qwen};
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_train::decoder::{Depth, write_model};

use crate::decoder::relative_error;
use crate::decoder_training::{assert_same_states, load, lora, moved};

/// Trains a little by hand, writes, opens again.
fn assert_round_trip(base: &ModelFile, folder: &Path, entry: &str) {
    for depth in [lora(), Depth::Full] {
        let decoder = moved(load(base.config(), base.weights().as_ref(), depth));
        let trained = decoder.trained_weights(base.weights());
        let path = write_model(base, &trained, folder).unwrap();
        assert_eq!(path, folder.join(entry));
        let opened = ModelFile::open(&path).unwrap();
        assert_eq!(opened.config(), base.config());
        for role in roles(base.config()) {
            assert_same_tensor(role, &trained, opened.weights().as_ref());
        }
        assert_same_states(&decoder, opened.config(), &opened.weights());
    }
}

fn assert_same_tensor(role: Role, expected: &dyn WeightSource, got: &dyn WeightSource) {
    let shape = expected.shape(role).unwrap();
    let (num_rows, len) = if shape.len() == 1 {
        (1, shape[0])
    } else {
        (shape[0], shape[1])
    };
    let (mut expected_row, mut got_row) = (vec![0.0; len], vec![0.0; len]);
    for row in 0..num_rows {
        expected.read_row(role, row, &mut expected_row);
        got.read_row(role, row, &mut got_row);
        // Exact but for Gemma's norms, which go through `w - 1`.
        let error = relative_error(&got_row, &expected_row);
        assert!(error < 1e-6, "{role:?} row {row}: {error}");
    }
}

/// Name, shape and little-endian numbers of every tensor, rows in the engine's order.
fn synthetic_tensors(config: &ModelConfig, format: Format) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let weights = SyntheticWeights::new(config.clone(), 7);
    let tensor = |role| {
        let shape = weights.shape(role).unwrap();
        let (num_rows, len) = if shape.len() == 1 {
            (1, shape[0])
        } else {
            (shape[0], shape[1])
        };
        let mut bytes = Vec::new();
        for row in 0..num_rows {
            let mut values = vec![0.0; len];
            weights.read_row(role, row, &mut values);
            bytes.extend(values.iter().flat_map(|value: &f32| value.to_le_bytes()));
        }
        (tensor_name(format, role, config.post_norms), shape, bytes)
    };
    roles(config).into_iter().map(tensor).collect()
}

/// A hub folder of synthetic weights, with a file that stands for its tokenizer.
fn hub_folder(config: &ModelConfig, model_type: &str, folder: &Path) {
    let mut header = json!({
        "model_type": model_type, "vocab_size": config.vocab_len, "hidden_size": config.hidden_len,
        "intermediate_size": config.ffn_len, "num_hidden_layers": 2, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_dim,
        "max_position_embeddings": config.context_len, "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head, "rope_theta": 10_000.0
    });
    if model_type == "gemma3_text" {
        header["sliding_window"] = json!(5);
        header["sliding_window_pattern"] = json!(2);
        header["rope_local_base_freq"] = json!(100.0);
    }
    std::fs::write(folder.join("config.json"), header.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    let tensors = synthetic_tensors(config, Format::SafeTensors);
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn hub_folders_are_written_and_open_again() {
    let check = |config: ModelConfig, model_type: &str| {
        let (base, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        hub_folder(&config, model_type, base.path());
        let file = ModelFile::open(base.path()).unwrap();
        assert_round_trip(&file, out.path(), "model");
        assert!(
            out.path().join("model/tokenizer.json").is_file(),
            "the tokenizer was left behind"
        );
    };
    check(test_tiny(), "llama");
    check(test_tiny_qwen(), "qwen2");
    check(test_tiny_gemma(), "gemma3_text");
}

#[test]
fn llama2c_files_are_written_and_open_again() {
    for tied_head in [true, false] {
        let config = ModelConfig {
            tied_head,
            ..test_tiny()
        };
        let (base, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = base.path().join("tiny.bin");
        let vocab_len = config.vocab_len as i32 * if tied_head { 1 } else { -1 };
        let header = [32, 48, 2, 4, 2, vocab_len, 256];
        let tables = config.context_len * config.head_dim;
        let values = (0..config.num_parameters() + tables).map(|i| (i as f32 * 0.37).sin() * 0.2);
        let bytes: Vec<u8> = header
            .iter()
            .flat_map(|word: &i32| word.to_le_bytes())
            .chain(values.flat_map(f32::to_le_bytes))
            .collect();
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(base.path().join("tok40.bin"), "vocabulary").unwrap();
        assert_round_trip(&ModelFile::open(&path).unwrap(), out.path(), "model.bin");
        assert!(
            out.path().join("tok40.bin").is_file(),
            "the tokenizer was left behind"
        );
    }
}

/// A GGUF file with a configuration, a list of texts as a vocabulary has it, and an array of numbers.
fn gguf_bytes(config: &ModelConfig, architecture: &str, with_divisors: bool) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut entry = |key: &str, kind: u32, value: &[u8]| {
        entries.push([&text(key)[..], &kind.to_le_bytes()[..], value].concat());
    };
    entry("general.architecture", 8, &text(architecture));
    let numbers = [
        ("embedding_length", config.hidden_len),
        ("feed_forward_length", config.ffn_len),
        ("block_count", config.num_layers()),
        ("attention.head_count", config.num_heads),
        ("attention.head_count_kv", config.num_kv_heads),
        ("context_length", config.context_len),
    ];
    for (name, value) in numbers {
        entry(&key(name), 4, &(value as u32).to_le_bytes());
    }
    let eps = key("attention.layer_norm_rms_epsilon");
    entry(&eps, 6, &config.norm_eps.to_le_bytes());
    let array = |kind: u32, elements: &[Vec<u8>]| {
        let start = [
            &kind.to_le_bytes()[..],
            &(elements.len() as u64).to_le_bytes()[..],
        ]
        .concat();
        [start, elements.concat()].concat()
    };
    let pieces: Vec<Vec<u8>> = (0..config.vocab_len)
        .map(|id| text(&format!("piece {id}")))
        .collect();
    entry("tokenizer.ggml.tokens", 9, &array(8, &pieces));
    let scores: Vec<Vec<u8>> = (0..config.vocab_len)
        .map(|id| (id as f32).to_le_bytes().to_vec())
        .collect();
    entry("tokenizer.ggml.scores", 9, &array(6, &scores));
    let mut tensors = synthetic_tensors(config, Format::Gguf);
    if with_divisors {
        let divisors = [1.0_f32, 1.5, 2.0, 4.0]
            .iter()
            .flat_map(|d| d.to_le_bytes())
            .collect();
        tensors.push(("rope_freqs.weight".to_owned(), vec![4], divisors));
    }
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    out.extend(entries.concat());
    let mut data: Vec<u8> = Vec::new();
    for (name, shape, bytes) in &tensors {
        out.extend(text(name));
        out.extend((shape.len() as u32).to_le_bytes());
        out.extend(shape.iter().rev().flat_map(|&len| (len as u64).to_le_bytes()));
        out.extend(0_u32.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}

#[test]
fn gguf_files_are_written_and_open_again() {
    let check = |config: ModelConfig, architecture: &str, with_divisors: bool| {
        let (base, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = base.path().join("tiny.gguf");
        std::fs::write(&path, gguf_bytes(&config, architecture, with_divisors)).unwrap();
        let file = ModelFile::open(&path).unwrap();
        assert_round_trip(&file, out.path(), "model.gguf");
        let written = ModelFile::open(&out.path().join("model.gguf")).unwrap();
        let texts = |file: &ModelFile| -> Vec<String> {
            let metadata = file.checkpoint().metadata().unwrap();
            let pieces = metadata.texts("tokenizer.ggml.tokens").unwrap().unwrap();
            pieces.into_iter().map(str::to_owned).collect()
        };
        assert_eq!(texts(&written), texts(&file), "the tokenizer was left behind");
    };
    check(test_tiny(), "llama", true);
    check(test_tiny_qwen(), "qwen2", false);
}

#[test]
fn llamas_rows_are_interleaved_again() {
    // The round trip alone would not see an order that is wrong both ways: the bytes must be the base's.
    let base = tempfile::tempdir().unwrap();
    let config = test_tiny();
    let path = base.path().join("tiny.gguf");
    let bytes = gguf_bytes(&config, "llama", false);
    std::fs::write(&path, &bytes).unwrap();
    let file = ModelFile::open(&path).unwrap();
    let written = write_model(&file, file.weights().as_ref(), base.path()).unwrap();
    let written = ModelFile::open(&written).unwrap();
    for part in [LayerRole::Query, LayerRole::Key] {
        let name = tensor_name(Format::Gguf, Role::Layer(1, part), false);
        let (ours, bases) = (
            written.checkpoint().tensor(&name).unwrap(),
            file.checkpoint().tensor(&name).unwrap(),
        );
        for row in 0..bases.num_rows() {
            assert_eq!(ours.row_bytes(row), bases.row_bytes(row), "{name} row {row}");
        }
    }
}
