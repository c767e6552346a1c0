//! GGUF metadata of every architecture, and what is said about metadata that cannot be.

use trimtab_model::config::{Activation, AttentionSpan, ModelConfig, RopeConfig, RopeScaling};
use trimtab_model::from_gguf::config_from_gguf;
use trimtab_model::weights::RotaryOrder;
use trimtab_model::{ModelError, ModelFile};

use crate::gguf_file::GgufFile;

/// The metadata that every architecture has, and the embedding matrix `[40, 32]`.
fn base(architecture: &str) -> GgufFile {
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    GgufFile::default()
        .text("general.architecture", architecture)
        .u32(&key("embedding_length"), 32)
        .u32(&key("feed_forward_length"), 48)
        .u32(&key("block_count"), 12)
        .u32(&key("attention.head_count"), 4)
        .u32(&key("attention.head_count_kv"), 2)
        .u32(&key("context_length"), 256)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .tensor("token_embd.weight", &[40, 32], &[0.0; 40 * 32])
}

fn read(file: &GgufFile) -> Result<(ModelConfig, RotaryOrder), ModelError> {
    let checkpoint = file.open();
    config_from_gguf(&checkpoint, checkpoint.metadata().unwrap())
}

fn config(file: &GgufFile) -> ModelConfig {
    read(file).unwrap().0
}

fn llama_config() -> ModelConfig {
    ModelConfig {
        architecture: "llama".to_owned(),
        vocab_len: 40,
        hidden_len: 32,
        ffn_len: 48,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 8,
        context_len: 256,
        norm_eps: 1e-5,
        layer_spans: vec![AttentionSpan::Global; 12],
        rope: RopeConfig {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        },
        local_rope: None,
        activation: Activation::Silu,
        score_scale: 1.0 / 8.0_f32.sqrt(),
        embedding_scale: 1.0,
        qkv_bias: false,
        qk_norm: false,
        post_norms: false,
        tied_head: true,
    }
}

#[test]
fn llama() {
    let (config, rotary) = read(&base("llama")).unwrap();
    assert_eq!((config, rotary), (llama_config(), RotaryOrder::Interleaved));
}

#[test]
fn qwen() {
    let untied =
        base("qwen2")
            .f32("qwen2.rope.freq_base", 1e6)
            .tensor("output.weight", &[40, 32], &[0.0; 1280]);
    let (config, rotary) = read(&untied).unwrap();
    let expected = ModelConfig {
        architecture: "qwen2".to_owned(),
        rope: RopeConfig {
            theta: 1e6,
            scaling: RopeScaling::None,
        },
        qkv_bias: true,
        tied_head: false,
        ..llama_config()
    };
    assert_eq!((config, rotary), (expected, RotaryOrder::Halves));
    let (config, rotary) = read(&base("qwen3").u32("qwen3.attention.key_length", 16)).unwrap();
    let expected = ModelConfig {
        architecture: "qwen3".to_owned(),
        head_dim: 16,
        score_scale: 0.25,
        qk_norm: true,
        ..llama_config()
    };
    assert_eq!((config, rotary), (expected, RotaryOrder::Halves));
}

#[test]
fn gemma3() {
    let file = base("gemma3")
        .u32("gemma3.attention.sliding_window", 512)
        .f32("gemma3.rope.freq_base", 1e6);
    let (config, rotary) = read(&file).unwrap();
    let sliding = AttentionSpan::Sliding { window: 512 };
    let spans = |globals: &[usize]| -> Vec<AttentionSpan> {
        (0..12)
            .map(|layer| {
                if globals.contains(&layer) {
                    AttentionSpan::Global
                } else {
                    sliding
                }
            })
            .collect()
    };
    let expected = ModelConfig {
        architecture: "gemma3".to_owned(),
        layer_spans: spans(&[5, 11]),
        rope: RopeConfig {
            theta: 1e6,
            scaling: RopeScaling::None,
        },
        local_rope: Some(RopeConfig {
            theta: 10_000.0,
            scaling: RopeScaling::None,
        }),
        activation: Activation::GeluTanh,
        embedding_scale: 32.0_f32.sqrt(),
        qk_norm: true,
        post_norms: true,
        ..llama_config()
    };
    assert_eq!((config, rotary), (expected, RotaryOrder::Halves));
    let pattern = "gemma3.attention.sliding_window_pattern";
    let check =
        |file: GgufFile, globals: &[usize]| assert_eq!(self::config(&file).layer_spans, spans(globals));
    check(file.clone().u32(pattern, 4), &[3, 7, 11]);
    let flags: Vec<Vec<u8>> = (0..12).map(|layer| vec![u8::from(layer != 2)]).collect();
    check(file.clone().array(pattern, 7, &flags), &[2]);
    let numbers: Vec<Vec<u8>> = (0..12_u32)
        .map(|layer| u32::from(layer != 3).to_le_bytes().to_vec())
        .collect();
    check(file.clone().array(pattern, 4, &numbers), &[3]);
    let local = self::config(&file.f32("gemma3.rope.freq_base_swa", 500.0))
        .local_rope
        .unwrap();
    assert_eq!(local.theta, 500.0);
}

#[test]
fn rope_scaling() {
    let kind = |kind: &str| base("llama").text("llama.rope.scaling.type", kind);
    let scaling = |file: GgufFile| config(&file).rope.scaling;
    assert_eq!(
        scaling(kind("none").f32("llama.rope.scaling.factor", 4.0)),
        RopeScaling::None
    );
    assert_eq!(
        scaling(kind("linear").f32("llama.rope.scaling.factor", 4.0)),
        RopeScaling::Linear { factor: 4.0 }
    );
    assert_eq!(
        scaling(base("llama").f32("llama.rope.scale_linear", 2.0)),
        RopeScaling::Linear { factor: 2.0 }
    );
    let yarn = kind("yarn")
        .f32("llama.rope.scaling.factor", 4.0)
        .u32("llama.rope.scaling.original_context_length", 64);
    let expected = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context_len: 64,
        attention_factor: Some(0.1 * 4.0_f64.ln() + 1.0),
    };
    assert_eq!(scaling(yarn), expected);
    let divisors = base("llama").tensor("rope_freqs.weight", &[4], &[1.0, 1.0, 2.0, 8.0]);
    let listed = |divisors: &[f32]| RopeScaling::PerFrequency {
        divisors: divisors.to_vec(),
    };
    assert_eq!(scaling(divisors.clone()), listed(&[1.0, 1.0, 2.0, 8.0]));
    assert_eq!(
        scaling(divisors.f32("llama.rope.scaling.factor", 2.0)),
        listed(&[2.0, 2.0, 4.0, 16.0])
    );
}

#[test]
fn one_length_per_layer_is_read_where_all_are_equal() {
    let with = |lens: &[u32]| {
        let elements: Vec<Vec<u8>> = lens.iter().map(|len| len.to_le_bytes().to_vec()).collect();
        base("qwen3").array("qwen3.attention.key_length", 4, &elements)
    };
    assert_eq!(config(&with(&[16; 12])).head_dim, 16);
    let error = read(&with(&[16, 8])).unwrap_err().to_string();
    assert!(
        error.contains("qwen3.attention.key_length is [16, 8], expected one length for all layers"),
        "{error}"
    );
}

#[test]
fn impossible_metadata_are_refused_by_key() {
    let check = |file: GgufFile, expect: &str| {
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} does not contain {expect:?}");
    };
    check(GgufFile::default(), "general.architecture is missing");
    check(
        base("mamba"),
        r#"architecture "mamba" is not supported; supported: llama, qwen2, qwen3, gemma3"#,
    );
    let bare = GgufFile::default().text("general.architecture", "llama");
    check(bare.clone(), "llama.embedding_length is missing");
    check(
        bare.text("llama.embedding_length", "many"),
        r#""llama.embedding_length" is a text, expected an integer"#,
    );
    check(
        base("llama").u32("llama.attention.key_length", 7),
        "head_dim is 7",
    );
    check(
        base("llama").u32("llama.rope.dimension_count", 4),
        "llama.rope.dimension_count is 4, expected the width of a head, 8",
    );
    check(
        base("llama").text("llama.rope.scaling.type", "longrope"),
        r#"llama.rope.scaling.type is "longrope""#,
    );
    check(
        base("llama").text("llama.rope.scaling.type", "yarn"),
        "llama.rope.scaling.factor is missing",
    );
    check(
        base("llama").f32("llama.rope.freq_base", f32::NAN),
        "rope.theta is NaN",
    );
    check(
        base("llama").f32("llama.rope.scaling.factor", f32::INFINITY),
        "rope factor is inf",
    );
    check(
        base("llama").tensor("rope_freqs.weight", &[3], &[1.0; 3]),
        "rope_freqs.weight: expected shape [4], got [3]",
    );
    check(
        base("llama").tensor("rope_freqs.weight", &[4], &[0.0; 4]),
        "rope frequency divisors",
    );
    check(
        base("gemma3").f32("gemma3.final_logit_softcapping", 30.0),
        "softcapping is 30",
    );
}

#[test]
fn tensors_that_would_be_ignored_or_are_missing_are_refused() {
    let error = ModelFile::from_checkpoint(base("llama").open())
        .unwrap_err()
        .to_string();
    assert_eq!(error, r#"model.gguf: no tensor named "output_norm.weight""#);
}
