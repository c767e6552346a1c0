//! The same weights written in every format give the same logits, bit for bit: names, rotary orders, offset norms,
//! tied heads and configurations all have to be right for that.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};
use trimtab_base::TokenId;
use trimtab_checkpoint::{Checkpoint, Format};
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_kernels::pool::Pool;
use trimtab_model::config::{AttentionSpan, ModelConfig};
use trimtab_model::load::WeightSource;
use trimtab_model::names::{LayerRole, Role, roles, tensor_name};
use trimtab_model::presets::{test_tiny, test_tiny_gemma, test_tiny_qwen};
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_model::{
    BatchRow, ForwardOutput, Model, ModelError, ModelFile, PrecisionPlan, RowInput, Workspace,
};

use crate::gguf_file::GgufFile;

const TOKENS: [u32; 20] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 8, 9, 7, 9, 32, 38, 4, 6, 26, 4];

fn logits(model: &Model, pool: &Pool) -> Vec<f32> {
    let blocks: Vec<u32> = (0..TOKENS.len().div_ceil(BLOCK_LEN) as u32).collect();
    let rows: Vec<BatchRow<'_>> = TOKENS
        .iter()
        .enumerate()
        .map(|(position, &token)| BatchRow {
            input: RowInput::Token(TokenId(token)),
            position: position as u32,
            blocks: &blocks,
        })
        .collect();
    let outputs: Vec<usize> = (0..TOKENS.len()).collect();
    let mut kv = KvCache::new(model.kv_layout(), blocks.len());
    let (mut ws, mut out) = (Workspace::default(), ForwardOutput::default());
    model
        .forward(pool, &mut kv, &rows, &outputs, &mut ws, &mut out)
        .unwrap();
    out.logits
}

/// Opens the file and compares with the weights that were written.
fn check(checkpoint: Checkpoint, config: &ModelConfig, weights: &SyntheticWeights) {
    let pool = Pool::new(1);
    let file = ModelFile::from_checkpoint(checkpoint).unwrap();
    assert_eq!(file.config(), config);
    let read = file.load(PrecisionPlan::f32(), &pool, &[]).unwrap();
    let written = Model::load(
        config.clone(),
        Arc::new(weights.clone()),
        PrecisionPlan::f32(),
        &pool,
    )
    .unwrap();
    assert_eq!(
        logits(&read, &pool),
        logits(&written, &pool),
        "{}",
        config.architecture
    );
}

fn weights(config: &ModelConfig) -> SyntheticWeights {
    SyntheticWeights::new(config.clone(), 11)
}

/// All rows of a tensor in the order of a file that permutes the rows of query and key heads, as llama.cpp's
/// converter states it: `reshape(heads, 2, head_dim / 2, in).swapaxes(1, 2)`.
fn rows(config: &ModelConfig, role: Role, interleaved: bool) -> (Vec<usize>, Vec<f32>) {
    let weights = weights(config);
    let shape = weights.shape(role).unwrap();
    let [num_rows, len] = match shape[..] {
        [len] => [1, len],
        [num_rows, len] => [num_rows, len],
        _ => panic!("tensors have one or two axes"),
    };
    let permuted = interleaved && matches!(role, Role::Layer(_, LayerRole::Query | LayerRole::Key));
    let (dim, half) = (config.head_dim, config.head_dim / 2);
    let mut values = vec![0.0; num_rows * len];
    for (at, row) in values.chunks_exact_mut(len).enumerate() {
        let source = if permuted {
            at / dim * dim + at % 2 * half + at % dim / 2
        } else {
            at
        };
        weights.read_row(role, source, row);
    }
    (shape, values)
}

fn gguf(config: &ModelConfig, interleaved: bool) -> GgufFile {
    let key = |suffix: &str| format!("{}.{suffix}", config.architecture);
    let mut file = GgufFile::default()
        .text("general.architecture", &config.architecture)
        .u32(&key("embedding_length"), 32)
        .u32(&key("feed_forward_length"), 48)
        .u32(&key("block_count"), 2)
        .u32(&key("attention.head_count"), 4)
        .u32(&key("attention.head_count_kv"), 2)
        .u32(&key("context_length"), 256)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5);
    if let AttentionSpan::Sliding { window } = config.layer_spans[0] {
        file = file
            .u32(&key("attention.sliding_window"), window as u32)
            .u32(&key("attention.sliding_window_pattern"), 2)
            .f32(&key("rope.freq_base_swa"), 100.0);
    }
    for role in roles(config) {
        let (shape, values) = rows(config, role, interleaved);
        file = file.tensor(
            &tensor_name(Format::Gguf, role, config.post_norms),
            &shape,
            &values,
        );
    }
    file
}

fn named(architecture: &str, config: ModelConfig) -> ModelConfig {
    ModelConfig {
        architecture: architecture.to_owned(),
        ..config
    }
}

fn tiny_qwen3() -> ModelConfig {
    ModelConfig {
        qk_norm: true,
        ..named("qwen3", test_tiny())
    }
}

#[test]
fn gguf_of_every_architecture() {
    let llama = named("llama", test_tiny());
    check(gguf(&llama, true).open(), &llama, &weights(&llama));
    for config in [
        named("qwen2", test_tiny_qwen()),
        tiny_qwen3(),
        named("gemma3", test_tiny_gemma()),
    ] {
        check(gguf(&config, false).open(), &config, &weights(&config));
    }
}

#[test]
fn gguf_with_tensors_of_no_place() {
    let llama = named("llama", test_tiny());
    let file = gguf(&llama, true).tensor("blk.1.attn_output.bias", &[32], &[0.0; 32]);
    let error = ModelFile::from_checkpoint(file.open()).unwrap_err().to_string();
    assert_eq!(
        error,
        r#"tensor blk.1.attn_output.bias has no place in this decoder for architecture "llama""#
    );
}

#[test]
fn shapes_that_contradict_the_metadata_name_the_tensor() {
    // Twice the feed-forward width that the tensors have.
    let llama = named("llama", test_tiny());
    let narrow = ModelConfig { ffn_len: 24, ..llama };
    let file = ModelFile::from_checkpoint(gguf(&narrow, true).open()).unwrap();
    let error = file
        .load(PrecisionPlan::f32(), &Pool::new(1), &[])
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "tensor blk.0.ffn_gate.weight: expected shape [48, 32], got [24, 32]"
    );
}

/// A safetensors file of f32 tensors under `prefix`.
fn safetensors(config: &ModelConfig, prefix: &str) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for role in roles(config) {
        let (shape, mut values) = rows(config, role, false);
        if config.post_norms && role.is_norm() {
            // Gemma's published files store w - 1.
            for value in &mut values {
                *value -= 1.0;
            }
        }
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let name = format!(
            "{prefix}{}",
            tensor_name(Format::SafeTensors, role, config.post_norms)
        );
        header.insert(
            name,
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn hf_json(config: &ModelConfig) -> Value {
    let mut json = json!({
        "model_type": config.architecture, "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": config.tied_head,
    });
    if config.post_norms {
        json["sliding_window"] = json!(5);
        json["layer_types"] = json!(["sliding_attention", "full_attention"]);
        json["rope_local_base_freq"] = json!(100.0);
    }
    json
}

#[test]
fn safetensors_of_every_architecture() {
    let open = |json: Value, file: Vec<u8>| {
        Checkpoint::from_safetensors_bytes(json.to_string().into_bytes(), vec![file]).unwrap()
    };
    let gemma = named("gemma3_text", test_tiny_gemma());
    let families = [
        named("llama", test_tiny()),
        named("qwen2", test_tiny_qwen()),
        tiny_qwen3(),
        gemma.clone(),
    ];
    for config in families {
        check(
            open(hf_json(&config), safetensors(&config, "")),
            &config,
            &weights(&config),
        );
    }
    let nested = json!({"model_type": "gemma3", "text_config": hf_json(&gemma)});
    check(
        open(nested, safetensors(&gemma, "language_model.")),
        &gemma,
        &weights(&gemma),
    );
}

/// The file with one more tensor.
fn with_tensor(file: &[u8], name: &str, shape: &[usize], values: &[f32]) -> Vec<u8> {
    let header_len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&file[8..8 + header_len]).unwrap();
    let mut data = file[8 + header_len..].to_vec();
    let start = data.len();
    data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

#[test]
fn sequence_classifiers_have_a_score_head_and_no_other() {
    let config = named("qwen2", test_tiny_qwen());
    let decoder = ModelConfig {
        tied_head: true,
        ..config.clone()
    };
    let weight: Vec<f32> = (0..64).map(|idx| idx as f32 / 64.0).collect();
    let file = with_tensor(&safetensors(&decoder, ""), "score.weight", &[2, 32], &weight);
    let mut json = hf_json(&config);
    json["tie_word_embeddings"] = json!(false);
    let open = |json: &Value, file: &[u8]| {
        let json = json.to_string().into_bytes();
        ModelFile::from_checkpoint(Checkpoint::from_safetensors_bytes(json, vec![file.to_vec()]).unwrap())
    };
    // For a language model the tensor is one that would be ignored, and the head is missing.
    assert!(open(&json, &file).is_err());
    json["architectures"] = json!(["Qwen2ForSequenceClassification"]);
    json["id2label"] = json!({"0": "NEGATIVE", "1": "POSITIVE"});
    let head = open(&json, &file).unwrap().score_head().unwrap().unwrap();
    assert_eq!((head.labels.len(), head.labels[1].as_str()), (2, "POSITIVE"));
    assert_eq!((head.hidden_len, &head.weight), (32, &weight));
    let refuse = |file: &[u8], expect: &str| {
        let error = open(&json, file).unwrap().score_head().unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let plain = safetensors(&decoder, "");
    refuse(&plain, "score.weight");
    refuse(&with_tensor(&plain, "score.weight", &[4, 16], &weight), "[4, 16]");
    let mut broken = weight.clone();
    broken[5] = f32::NAN;
    refuse(&with_tensor(&plain, "score.weight", &[2, 32], &broken), "NaN");
    json["architectures"] = json!(["Qwen2ForCausalLM"]);
    json["tie_word_embeddings"] = json!(true);
    assert_eq!(open(&json, &plain).unwrap().score_head().unwrap(), None);
}

#[test]
fn llama2c_tied_and_untied() {
    use LayerRole as L;
    for tied_head in [true, false] {
        let config = ModelConfig {
            tied_head,
            ..named("llama2c", test_tiny())
        };
        let vocab_len = if tied_head { 40 } else { -40 };
        let header = [32, 48, 2, 4, 2, vocab_len, 256_i32];
        let mut bytes: Vec<u8> = header.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut push = |role: Role| {
            bytes.extend(
                rows(&config, role, true)
                    .1
                    .iter()
                    .flat_map(|value| value.to_le_bytes()),
            );
        };
        push(Role::Embedding);
        for part in [
            L::AttentionNorm,
            L::Query,
            L::Key,
            L::Value,
            L::AttentionOutput,
            L::FfnNorm,
            L::Gate,
            L::Down,
            L::Up,
        ] {
            (0..2).for_each(|layer| push(Role::Layer(layer, part)));
        }
        push(Role::FinalNorm);
        bytes.extend(vec![0; 256 * 8 * 4]);
        if !tied_head {
            bytes.extend(
                rows(&config, Role::Head, true)
                    .1
                    .iter()
                    .flat_map(|value| value.to_le_bytes()),
            );
        }
        check(
            Checkpoint::from_llama2c_bytes(bytes).unwrap(),
            &config,
            &weights(&config),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Bytes of the metadata and the tensor table replaced: an error, or a model that loads, never a panic.
    #[test]
    fn damaged_gguf_files_are_refused_or_load(edits in proptest::collection::vec((24..3000_usize, any::<u8>()), 1..5)) {
        static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| gguf(&named("gemma3", test_tiny_gemma()), false).bytes());
        let mut bytes = FILE.clone();
        for (place, byte) in edits {
            bytes[place] = byte;
        }
        let loaded = Checkpoint::from_gguf_bytes(bytes)
            .map_err(ModelError::from)
            .and_then(ModelFile::from_checkpoint)
            .and_then(|file| file.load(PrecisionPlan::int8(), &Pool::new(1), &[]));
        if let Err(error) = loaded {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
