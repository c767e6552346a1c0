//! The training forward against the engine's exact path, and its gradients against finite differences.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use trimtab_base::{Seed, TokenId};
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_kernels::pool::Pool;
use trimtab_model::config::{Activation, AttentionSpan, ModelConfig, RopeConfig, RopeScaling};
use trimtab_model::load::WeightSource;
use trimtab_model::presets::{self, test_tiny, test_tiny_gemma, test_tiny_qwen};
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_model::{BatchRow, ForwardOutput, Model, ModelFile, PrecisionPlan, RowInput, Workspace};
use trimtab_train::decoder::{Decoder, DecoderOptions, Depth, TokenBatch};

/// The same model for the engine and for training.
struct Pair {
    config: ModelConfig,
    weights: Arc<dyn WeightSource>,
}

impl Pair {
    fn synthetic(config: ModelConfig) -> Self {
        let weights = Arc::new(SyntheticWeights::new(config.clone(), 7));
        Self { config, weights }
    }

    fn decoder(&self, depth: Depth) -> Decoder {
        let options = DecoderOptions {
            depth,
            with_head: true,
            seed: Seed(3),
        };
        let device = Device::flex().autodiff();
        Decoder::load(self.config.clone(), self.weights.as_ref(), &options, &device).unwrap()
    }

    fn engine(&self, tokens: &[u32]) -> ForwardOutput {
        engine_output(&self.config, &self.weights, tokens)
    }

    /// Sequences of three lengths, whose ids are spread over the vocabulary.
    fn sequences(&self, longest: usize) -> Vec<Vec<u32>> {
        [longest, longest / 2 + 1, 1]
            .map(|len| {
                (0..len)
                    .map(|i| (i * 17 + 5) as u32 % self.config.vocab_len as u32)
                    .collect()
            })
            .to_vec()
    }
}

/// Hidden states and logits of every position, by the engine's exact path.
pub(crate) fn engine_output(
    config: &ModelConfig,
    weights: &Arc<dyn WeightSource>,
    tokens: &[u32],
) -> ForwardOutput {
    let pool = Pool::new(1);
    let model = Model::load(config.clone(), Arc::clone(weights), PrecisionPlan::f32(), &pool).unwrap();
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(BLOCK_LEN) as u32).collect();
    let mut kv = KvCache::new(model.kv_layout(), blocks.len());
    let rows: Vec<BatchRow<'_>> = tokens
        .iter()
        .enumerate()
        .map(|(position, &token)| BatchRow {
            input: RowInput::Token(TokenId(token)),
            position: position as u32,
            blocks: &blocks,
        })
        .collect();
    let outputs: Vec<usize> = (0..tokens.len()).collect();
    let (mut ws, mut out) = (Workspace::default(), ForwardOutput::default());
    model
        .forward(&pool, &mut kv, &rows, &outputs, &mut ws, &mut out)
        .unwrap();
    out
}

fn batch(sequences: &[Vec<u32>]) -> TokenBatch {
    let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    TokenBatch::pad(&rows).unwrap()
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

/// Largest difference, in units of the expected values' root mean square.
pub(crate) fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let rms = (expected.iter().map(|e| e * e).sum::<f32>() / expected.len() as f32).sqrt();
    got.iter()
        .zip(expected)
        .map(|(g, e)| (g - e).abs())
        .fold(0.0, f32::max)
        / rms
}

fn assert_agrees(pair: &Pair, longest: usize) {
    let sequences = pair.sequences(longest);
    let tokens = batch(&sequences);
    let decoder = pair.decoder(Depth::Frozen);
    let hidden = decoder.forward(&tokens).unwrap();
    let (hidden_len, vocab_len) = (pair.config.hidden_len, pair.config.vocab_len);
    let logits = decoder
        .logits(
            hidden
                .clone()
                .reshape([tokens.batch() * tokens.seq(), hidden_len]),
        )
        .unwrap();
    let (hidden, logits) = (values(hidden), values(logits));
    for (row, sequence) in sequences.iter().enumerate() {
        let expected = pair.engine(sequence);
        let start = row * tokens.seq();
        let of = |all: &[f32], len: usize| all[start * len..(start + sequence.len()) * len].to_vec();
        let error = relative_error(&of(&hidden, hidden_len), &expected.hidden)
            .max(relative_error(&of(&logits, vocab_len), &expected.logits));
        // f32 rounding; a wrong rotation, mask, norm or group is off by more than 0.1.
        assert!(
            error < 1e-4,
            "{}, sequence of {}: relative error {error}",
            pair.config.architecture,
            sequence.len()
        );
    }
}

/// A published model's switches at the size of a test: fewer layers, narrower, the ratios of heads kept.
fn shrunk(config: ModelConfig) -> ModelConfig {
    let group = config.num_heads / config.num_kv_heads;
    let window = |span| match span {
        AttentionSpan::Global => AttentionSpan::Global,
        AttentionSpan::Sliding { .. } => AttentionSpan::Sliding { window: 5 },
    };
    ModelConfig {
        vocab_len: 50,
        hidden_len: 24,
        ffn_len: 40,
        num_heads: 2 * group,
        num_kv_heads: 2,
        head_dim: 8,
        layer_spans: config
            .layer_spans
            .iter()
            .rev()
            .take(3)
            .map(|&span| window(span))
            .collect(),
        ..config
    }
}

#[test]
fn every_family_agrees_with_the_engine() {
    let published = [
        presets::smollm2_135m(),
        presets::smollm2_360m(),
        presets::qwen2_5_0_5b(),
        presets::qwen2_5_1_5b(),
        presets::qwen3_0_6b(),
        presets::gemma3_270m(),
    ];
    let tiny = [test_tiny(), test_tiny_gemma(), test_tiny_qwen()];
    for config in tiny.into_iter().chain(published.map(shrunk)) {
        assert_agrees(&Pair::synthetic(config), 19);
    }
}

#[test]
fn every_switch_agrees_with_the_engine() {
    let scaled = |scaling| ModelConfig {
        rope: RopeConfig {
            theta: 10_000.0,
            scaling,
        },
        ..test_tiny()
    };
    let configs = [
        scaled(RopeScaling::Linear { factor: 4.0 }),
        scaled(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context_len: 64,
        }),
        scaled(RopeScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            original_context_len: 64,
            attention_factor: None,
        }),
        scaled(RopeScaling::PerFrequency {
            divisors: vec![1.0, 2.0, 3.0, 4.0],
        }),
        // Switches that no published family combines.
        ModelConfig {
            qkv_bias: true,
            activation: Activation::Silu,
            ..test_tiny_gemma()
        },
        ModelConfig {
            num_kv_heads: 1,
            tied_head: false,
            layer_spans: vec![
                AttentionSpan::Sliding { window: 1 },
                AttentionSpan::Sliding { window: 3 },
            ],
            ..test_tiny()
        },
    ];
    for config in configs {
        assert_agrees(&Pair::synthetic(config), 19);
    }
}

#[test]
fn a_real_model_agrees_with_the_engine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let Some(path) = ["shared/data/stories260K", "data/stories260K"]
        .map(|path| root.join(path).join("stories260K.bin"))
        .into_iter()
        .find(|path| path.exists())
    else {
        println!("skipped: no shared/data/stories260K beside the repository");
        return;
    };
    let file = ModelFile::open(&path).unwrap();
    let pair = Pair {
        config: file.config().clone(),
        weights: file.weights(),
    };
    assert_agrees(&pair, 100);
}

#[test]
fn impossible_batches_are_refused() {
    let decoder = Pair::synthetic(test_tiny()).decoder(Depth::Frozen);
    let check = |sequences: &[&[u32]], expect: &str| {
        let error = TokenBatch::pad(sequences)
            .and_then(|tokens| decoder.forward(&tokens).map(drop))
            .unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
    };
    check(&[], "at least one sequence");
    check(&[&[1], &[]], "sequence 1 of the batch is empty");
    check(&[&[1, 40]], "40 is outside the vocabulary of 40");
    check(&[&[0; 257]], "257 tokens exceeds the model's context of 256");
}
