//! Models that change their format: the same logits to the last bit and the same ids, whatever the container.

use std::fs;
use std::path::{Path, PathBuf};

use trimtab_base::TokenId;
use trimtab_checkpoint::{Checkpoint, Dtype, Format, GgufEntries, write_gguf, write_whole};
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_model::config::{ModelConfig, RopeConfig, RopeScaling};
use trimtab_model::family::check_same_model;
use trimtab_model::load::WeightSource;
use trimtab_model::names::{LayerRole, Role, roles};
use trimtab_model::presets::{test_tiny, test_tiny_gemma, test_tiny_qwen};
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_model::to_gguf::config_to_gguf;
use trimtab_model::{BatchRow, FileTensors, ForwardOutput, ModelFile, PrecisionPlan, RowInput, Workspace};
use trimtab_runtime::{
    ExportOptions, LoadOptions, LoadedModel, ModelFormat, WeightType, check_export, export_model,
};
use trimtab_tokenizer::SpecialTokens;

/// Texts that are compared.
const TEXTS: [&str; 4] = [
    "the cat sat",
    "  two  spaces, é and \u{1F980}\n",
    "<|end|>a<|end|>",
    "0123",
];

/// The tiny models, by their families' names.
fn llama() -> ModelConfig {
    ModelConfig {
        architecture: "llama".to_owned(),
        ..test_tiny()
    }
}

fn qwen2() -> ModelConfig {
    ModelConfig {
        architecture: "qwen2".to_owned(),
        ..test_tiny_qwen()
    }
}

/// A vocabulary of so many tokens.
struct Vocab {
    len: usize,
    entries: GgufEntries,
}

/// The character of each byte in byte-level vocabularies: itself if it prints, else the next from U+0100.
fn byte_chars() -> Vec<String> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut shifted = 0x100;
    let own = (0..=255_u8).map(|byte| {
        if prints(byte) {
            return char::from(byte).to_string();
        }
        shifted += 1;
        char::from_u32(shifted - 1).unwrap().to_string()
    });
    own.collect()
}

fn byte_level() -> Vocab {
    let mut tokens = byte_chars();
    tokens.extend(["at", "he", "the", "Ġc", "Ġcat", "<|end|>"].map(str::to_owned));
    let mut kinds = vec![1; tokens.len()];
    kinds[tokens.len() - 1] = 3;
    let mut entries = GgufEntries::default();
    entries.text("tokenizer.ggml.model", "gpt2");
    entries.text("tokenizer.ggml.pre", "smollm");
    entries.texts("tokenizer.ggml.tokens", &tokens);
    entries.i32s("tokenizer.ggml.token_type", &kinds);
    entries.texts("tokenizer.ggml.merges", &["a t", "h e", "t he", "Ġ c", "Ġc at"]);
    entries.u32("tokenizer.ggml.eos_token_id", tokens.len() as u32 - 1);
    entries.text("tokenizer.chat_template", "{{ messages[0].content }}<|end|>");
    Vocab {
        len: tokens.len(),
        entries,
    }
}

/// Pieces and scores of a SentencePiece vocabulary, without those of the first three tokens.
fn pieces() -> Vec<(String, f32)> {
    let bytes = (0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0));
    let joined = ["▁t", "he", "▁the", "at", "▁c", "▁cat"];
    let joined = joined
        .iter()
        .zip(0..)
        .map(|(piece, rank)| ((*piece).to_owned(), -(rank as f32)));
    let chars = "▁abcdefghijklmnopqrstuvwxyz0123456789".chars();
    let chars = chars
        .zip(100..)
        .map(|(ch, rank)| (ch.to_string(), -(rank as f32)));
    bytes.chain(joined).chain(chars).collect()
}

fn space_mark() -> Vocab {
    let special = ["<unk>", "<s>", "</s>"].map(|piece| (piece.to_owned(), 0.0));
    let (mut tokens, mut scores): (Vec<String>, Vec<f32>) = special.into_iter().chain(pieces()).unzip();
    tokens.push("<|end|>".to_owned());
    scores.push(0.0);
    let kinds: Vec<i32> = (0..tokens.len())
        .map(|id| match id {
            0 => 2,
            1 | 2 => 3,
            3..259 => 6,
            _ if id + 1 == tokens.len() => 3,
            _ => 1,
        })
        .collect();
    let mut entries = GgufEntries::default();
    entries.text("tokenizer.ggml.model", "llama");
    entries.texts("tokenizer.ggml.tokens", &tokens);
    entries.f32s("tokenizer.ggml.scores", &scores);
    entries.i32s("tokenizer.ggml.token_type", &kinds);
    entries.u32("tokenizer.ggml.bos_token_id", 1);
    entries.u32("tokenizer.ggml.eos_token_id", 2);
    Vocab {
        len: tokens.len(),
        entries,
    }
}

/// A GGUF file of made-up weights. Padded by `padding` rows.
fn gguf_base(config: &ModelConfig, vocab: Vocab, padding: usize, folder: &Path) -> PathBuf {
    let config = ModelConfig {
        vocab_len: vocab.len + padding,
        ..config.clone()
    };
    let mut entries = vocab.entries;
    config_to_gguf(&config, Dtype::F32, &mut entries).unwrap();
    let weights = SyntheticWeights::new(config.clone(), 3);
    let tensors = FileTensors::new(&config, &weights, Format::Gguf, Dtype::F32).unwrap();
    let path = folder.join("base.gguf");
    write_whole(&path, |out| {
        write_gguf(&entries, tensors.tensors(), &tensors, out)
    })
    .unwrap();
    path
}

fn loaded(path: &Path) -> LoadedModel {
    let options = LoadOptions {
        plan: PrecisionPlan::f32(),
        num_threads: 1,
    };
    LoadedModel::open(path, options).unwrap()
}

/// Logits of a sequence. `[positions * vocab]`
fn logits(model: &LoadedModel, tokens: &[TokenId]) -> Vec<f32> {
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(BLOCK_LEN) as u32).collect();
    let row = |(position, &token): (usize, &TokenId)| BatchRow {
        input: RowInput::Token(token),
        position: position as u32,
        blocks: &blocks,
    };
    let rows: Vec<BatchRow<'_>> = tokens.iter().enumerate().map(row).collect();
    let outputs: Vec<usize> = (0..tokens.len()).collect();
    let mut kv = KvCache::new(model.model().kv_layout(), blocks.len());
    let (mut ws, mut out) = (Workspace::default(), ForwardOutput::default());
    model
        .model()
        .forward(model.pool(), &mut kv, &rows, &outputs, &mut ws, &mut out)
        .unwrap();
    out.logits
}

fn export(from: &Path, format: ModelFormat, to: &Path) {
    let base = ModelFile::open(from).unwrap();
    export_model(&base, base.weights().as_ref(), &ExportOptions::exact(format), to).unwrap();
}

/// Bits of logits, ids of texts, and what ends an answer.
fn assert_same(expected: &Path, got: &Path, what: &str) {
    let (expected, got) = (loaded(expected), loaded(got));
    check_same_model(expected.config(), got.config()).unwrap();
    for text in TEXTS {
        for special in [SpecialTokens::AsText, SpecialTokens::Parse] {
            let ids = expected.tokenizer().encode(text, special).unwrap();
            assert_eq!(
                got.tokenizer().encode(text, special).unwrap(),
                ids,
                "{what}: {text:?}"
            );
        }
        let ids = expected.tokenizer().encode_prompt(text).unwrap();
        assert_eq!(
            got.tokenizer().encode_prompt(text).unwrap(),
            ids,
            "{what}: {text:?}"
        );
        let (expected, got) = (logits(&expected, &ids), logits(&got, &ids));
        let differ = expected
            .iter()
            .zip(&got)
            .filter(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differ.count(), 0, "{what}: logits of {text:?}");
        assert_eq!(expected.len(), got.len(), "{what}");
    }
    assert_eq!(
        expected.tokenizer().stop_tokens(),
        got.tokenizer().stop_tokens(),
        "{what}"
    );
}

/// The base, as the hub's layout, as GGUF again, as the hub's layout again.
fn assert_round_trip(base: &Path, folder: &Path, what: &str) {
    let [first, gguf, second] = ["first", "model.gguf", "second"].map(|name| folder.join(name));
    export(base, ModelFormat::Hf, &first);
    assert_same(base, &first, &format!("{what} to hf"));
    export(&first, ModelFormat::Gguf, &gguf);
    assert_same(base, &gguf, &format!("{what} to hf to gguf"));
    export(&gguf, ModelFormat::Hf, &second);
    assert_same(base, &second, &format!("{what} to hf to gguf to hf"));
    let read = |path: &Path| fs::read(path.join("model.safetensors")).unwrap();
    assert_eq!(read(&first), read(&second), "{what}: weights of both folders");
    let left: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let partial = left
        .iter()
        .filter(|path| path.to_string_lossy().contains("partial"));
    assert_eq!(partial.count(), 0, "{left:?}");
}

#[test]
fn every_family_goes_round() {
    let qwen3 = ModelConfig {
        architecture: "qwen3".to_owned(),
        qkv_bias: false,
        qk_norm: true,
        tied_head: false,
        ..qwen2()
    };
    let stretched = ModelConfig {
        rope: RopeConfig {
            theta: 10_000.0,
            scaling: RopeScaling::Linear { factor: 4.0 },
        },
        ..llama()
    };
    let untied = ModelConfig {
        tied_head: false,
        ..llama()
    };
    let gemma = ModelConfig {
        architecture: "gemma3".to_owned(),
        ..test_tiny_gemma()
    };
    let check = |what: &str, config: ModelConfig, vocab: Vocab, padding: usize| {
        let folder = tempfile::tempdir().unwrap();
        let base = gguf_base(&config, vocab, padding, folder.path());
        assert_round_trip(&base, folder.path(), what);
    };
    check("llama", llama(), byte_level(), 0);
    check("llama, SentencePiece", untied, space_mark(), 0);
    check("llama, stretched", stretched, byte_level(), 3);
    check("qwen2", qwen2(), byte_level(), 5);
    check("qwen3", qwen3, byte_level(), 0);
    check("gemma3", gemma, space_mark(), 4);
}

/// A llama2.c model with a vocabulary that joins.
fn llama2c_base(folder: &Path) -> PathBuf {
    let config = llama();
    let special =
        [("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0)].map(|(piece, score)| (piece.to_owned(), score));
    let tokens: Vec<(String, f32)> = special.into_iter().chain(pieces()).collect();
    let mut vocab = 8_u32.to_le_bytes().to_vec();
    for (piece, score) in &tokens {
        let piece = piece.replace('▁', " ");
        vocab.extend(score.to_le_bytes());
        vocab.extend((piece.len() as u32).to_le_bytes());
        vocab.extend(piece.as_bytes());
    }
    fs::write(folder.join("tokenizer.bin"), vocab).unwrap();
    let config = ModelConfig {
        vocab_len: tokens.len(),
        ..config
    };
    let header = [
        config.hidden_len,
        config.ffn_len,
        config.num_layers(),
        config.num_heads,
        config.num_kv_heads,
        config.vocab_len,
        config.context_len,
    ];
    let num_values = config.num_parameters() + config.context_len * config.head_dim;
    let values = (0..num_values).map(|idx| (idx as f32 * 0.37).sin() * 0.4);
    let bytes = header.iter().flat_map(|&len| (len as i32).to_le_bytes());
    let bytes: Vec<u8> = bytes.chain(values.flat_map(f32::to_le_bytes)).collect();
    let path = folder.join("model.bin");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn llama2c_models_leave_in_both_formats() {
    let folder = tempfile::tempdir().unwrap();
    let base = llama2c_base(folder.path());
    let (hf, gguf) = (folder.path().join("hf"), folder.path().join("model.gguf"));
    export(&base, ModelFormat::Hf, &hf);
    export(&base, ModelFormat::Gguf, &gguf);
    let (first, second, third) = (loaded(&base), loaded(&hf), loaded(&gguf));
    for text in TEXTS {
        let ids = first.tokenizer().encode_prompt(text).unwrap();
        for (name, other) in [("hf", &second), ("gguf", &third)] {
            assert_eq!(
                other.tokenizer().encode_prompt(text).unwrap(),
                ids,
                "{name}: {text:?}"
            );
            assert_eq!(logits(other, &ids), logits(&first, &ids), "{name}: {text:?}");
        }
    }
    assert_same(&gguf, &hf, "llama2.c as gguf and as hf");
}

#[test]
fn the_published_fields_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let base = gguf_base(&llama(), byte_level(), 0, folder.path());
    let hf = folder.path().join("hf");
    export(&base, ModelFormat::Hf, &hf);
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(hf.join(name)).unwrap()).unwrap()
    };
    let config = json("config.json");
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!(config["model_type"], "llama");
    assert_eq!(config["torch_dtype"], "float32");
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["eos_token_id"], 261);
    let tokenizer = json("tokenizer_config.json");
    assert_eq!(tokenizer["chat_template"], "{{ messages[0].content }}<|end|>");
    assert_eq!(tokenizer["eos_token"], "<|end|>");
    assert_eq!(json("generation_config.json")["eos_token_id"][0], 261);
    // llama.cpp's order of rows: that of a head's first half and second half alternate.
    let gguf = folder.path().join("again.gguf");
    export(&hf, ModelFormat::Gguf, &gguf);
    let (hub, gguf) = (Checkpoint::open(&hf).unwrap(), Checkpoint::open(&gguf).unwrap());
    let (hub, gguf) = (
        hub.tensor("model.layers.0.self_attn.q_proj.weight").unwrap(),
        gguf.tensor("blk.0.attn_q.weight").unwrap(),
    );
    for (row, stored) in [(0, 0), (4, 1), (1, 2), (5, 3), (8, 8), (12, 9)] {
        assert_eq!(hub.row_bytes(row), gguf.row_bytes(stored), "row {row}");
    }
}

#[test]
fn smaller_types_round_and_shards_open() {
    let folder = tempfile::tempdir().unwrap();
    let base = gguf_base(&llama(), byte_level(), 0, folder.path());
    let file = ModelFile::open(&base).unwrap();
    for (weights, bits) in [(WeightType::Bf16, 8), (WeightType::F16, 11)] {
        for format in [ModelFormat::Hf, ModelFormat::Gguf] {
            let path = folder.path().join("small");
            let options = ExportOptions {
                format,
                weights,
                max_shard_bytes: 20_000,
            };
            // The second format replaces the first under the same name.
            export_model(&file, file.weights().as_ref(), &options, &path).unwrap();
            let small = ModelFile::open(&path).unwrap();
            assert_eq!(
                path.join("model.safetensors.index.json").is_file(),
                format == ModelFormat::Hf
            );
            for role in roles(file.config()) {
                assert_close(role, file.weights().as_ref(), small.weights().as_ref(), bits);
            }
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            }
        }
        fs::remove_file(folder.path().join("small")).unwrap();
    }
}

fn assert_close(role: Role, expected: &dyn WeightSource, got: &dyn WeightSource, bits: i32) {
    let shape = expected.shape(role).unwrap();
    let len = *shape.last().unwrap();
    let (mut a, mut b) = (vec![0.0; len], vec![0.0; len]);
    expected.read_row(role, 0, &mut a);
    got.read_row(role, 0, &mut b);
    for (a, b) in a.iter().zip(&b) {
        assert!(
            (a - b).abs() <= a.abs() * 2.0_f32.powi(-bits) + 1e-7,
            "{role:?}: {a} {b}"
        );
    }
    let is_rounded = a != b;
    assert!(is_rounded || shape.len() == 1, "{role:?} was not rounded");
}

/// Weights with one number that is too large for half precision.
struct TooLarge(SyntheticWeights);

impl WeightSource for TooLarge {
    fn shape(&self, role: Role) -> Result<Vec<usize>, trimtab_model::ModelError> {
        self.0.shape(role)
    }

    fn read_row(&self, role: Role, row: usize, out: &mut [f32]) {
        self.0.read_row(role, row, out);
        if role == Role::Layer(1, LayerRole::Down) && row == 2 {
            out[1] = 1e6;
        }
    }

    fn release(&self, _role: Role) {}
}

#[test]
fn what_cannot_be_written_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let base = gguf_base(&llama(), byte_level(), 0, folder.path());
    let file = ModelFile::open(&base).unwrap();
    let weights = TooLarge(SyntheticWeights::new(file.config().clone(), 3));
    for format in [ModelFormat::Hf, ModelFormat::Gguf] {
        let options = ExportOptions {
            weights: WeightType::F16,
            ..ExportOptions::exact(format)
        };
        let out = folder.path().join("out");
        let error = export_model(&file, &weights, &options, &out)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("F16 cannot hold 1000000") && error.contains("write BF16"),
            "{error}"
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "something was left"
        );
    }
    // A Llama with biases: transformers has no such class, llama.cpp has.
    let biased = ModelConfig {
        qkv_bias: true,
        ..llama()
    };
    let base = gguf_base(&biased, byte_level(), 0, folder.path());
    let file = ModelFile::open(&base).unwrap();
    let error = check_export(&file, ModelFormat::Hf).unwrap_err().to_string();
    assert!(
        error.contains("qkv_bias is true") && error.contains("write GGUF"),
        "{error}"
    );
    check_export(&file, ModelFormat::Gguf).unwrap();
}

#[test]
fn llama3s_rule_survives_as_divisors() {
    let rule = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context_len: 8192,
    };
    let config = ModelConfig {
        rope: RopeConfig {
            theta: 500_000.0,
            scaling: rule.clone(),
        },
        ..llama()
    };
    let folder = tempfile::tempdir().unwrap();
    let base = gguf_base(&config, byte_level(), 0, folder.path());
    let file = ModelFile::open(&base).unwrap();
    assert!(matches!(
        file.config().rope.scaling,
        RopeScaling::PerFrequency { .. }
    ));
    let hf = folder.path().join("hf");
    export(&base, ModelFormat::Hf, &hf);
    assert_eq!(ModelFile::open(&hf).unwrap().config().rope.scaling, rule);
}
