//! Gradients by finite differences, what each depth trains, and trained weights in the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use trimtab_base::Seed;
use trimtab_model::config::ModelConfig;
use trimtab_model::load::WeightSource;
use trimtab_model::presets::{test_tiny, test_tiny_gemma, test_tiny_qwen};
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_train::decoder::{Decoder, DecoderOptions, Depth, LoraConfig, LoraTarget, TokenBatch};

use crate::decoder::{engine_output, relative_error, values};

pub(crate) fn lora() -> Depth {
    Depth::Lora(LoraConfig {
        rank: 2,
        alpha: 3.0,
        ..LoraConfig::default()
    })
}

fn options(depth: Depth, seed: u64) -> DecoderOptions {
    DecoderOptions {
        depth,
        with_head: true,
        seed: Seed(seed),
    }
}

pub(crate) fn load(config: &ModelConfig, source: &dyn WeightSource, depth: Depth) -> Decoder {
    let device = Device::flex().autodiff();
    Decoder::load(config.clone(), source, &options(depth, 3), &device).unwrap()
}

fn tokens() -> TokenBatch {
    TokenBatch::pad(&[&[3, 14, 15, 9, 26, 5], &[35, 8, 9]]).unwrap()
}

/// A scalar that every real hidden state and logit moves; padding is left out.
fn probe(decoder: &Decoder) -> Tensor<1> {
    let tokens = tokens();
    let hidden = decoder.forward(&tokens).unwrap(); // [batch, seq, hidden]
    let [batch, seq, hidden_len] = hidden.dims();
    let mask = TensorData::new(tokens.mask(), [batch * seq, 1]);
    let rows = hidden.reshape([batch * seq, hidden_len]) * Tensor::from_data(mask, decoder.device());
    let wave = |len: usize| {
        let values: Vec<f32> = (0..batch * seq * len).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::<2>::from_data(TensorData::new(values, [batch * seq, len]), decoder.device())
    };
    let logits = decoder.logits(rows.clone()).unwrap();
    let [_rows, vocab_len] = logits.dims();
    (rows * wave(hidden_len)).sum() + (logits * wave(vocab_len)).tanh().sum()
}

/// Trained values and gradients by path.
#[derive(Default)]
struct Gather {
    path: Vec<String>,
    grads: GradientsParams,
    found: BTreeMap<String, (Vec<f32>, Option<Vec<f32>>)>,
}

impl ModuleVisitor for Gather {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = self.grads.get::<D>(param.id).map(values);
        let previous = self
            .found
            .insert(self.path.join("."), (values(param.val()), grad));
        assert!(previous.is_none(), "two parameters at {}", self.path.join("."));
    }
}

fn trained_params(
    decoder: &Decoder,
    grads: GradientsParams,
) -> BTreeMap<String, (Vec<f32>, Option<Vec<f32>>)> {
    let mut gather = Gather {
        grads,
        ..Gather::default()
    };
    decoder.visit(&mut gather);
    gather.found
}

/// Adds numbers to trained parameters: `step` at one place of one path, or a wave everywhere.
struct Nudge<'a> {
    path: Vec<String>,
    change: &'a dyn Fn(&str, usize) -> f32,
}

impl ModuleMapper for Nudge<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        param.map(|tensor| {
            let shape = tensor.dims();
            let len = shape.iter().product();
            let change: Vec<f32> = (0..len).map(|i| (self.change)(&path, i)).collect();
            let change = Tensor::<D>::from_data(TensorData::new(change, shape), &tensor.device());
            (tensor + change).detach().require_grad()
        })
    }
}

fn nudged(decoder: Decoder, change: &dyn Fn(&str, usize) -> f32) -> Decoder {
    decoder.map(&mut Nudge {
        path: Vec::new(),
        change,
    })
}

/// Moves every trained parameter a little, so that no adapter is zero any more.
pub(crate) fn moved(decoder: Decoder) -> Decoder {
    nudged(decoder, &|path, i| 0.05 * ((i + path.len()) as f32 * 1.3).sin())
}

fn assert_gradients(config: &ModelConfig, depth: Depth) {
    let weights = SyntheticWeights::new(config.clone(), 7);
    let decoder = moved(load(config, &weights, depth));
    let grads = GradientsParams::from_grads(probe(&decoder).backward(), &decoder);
    for (path, (value, grad)) in trained_params(&decoder, grads) {
        let grad = grad.unwrap_or_else(|| panic!("{path} has no gradient"));
        // Along the gradient's own direction: one difference that all entries add up to.
        let norm = grad.iter().map(|g| g * g).sum::<f32>().sqrt();
        assert!(norm > 0.0, "{path}: the gradient is zero");
        let scale = value.iter().map(|v| v * v).sum::<f32>().sqrt().max(0.1);
        let step = 2e-3 * scale;
        let at = |sign: f32| {
            let change = |at: &str, i: usize| {
                if at == path {
                    sign * step * grad[i] / norm
                } else {
                    0.0
                }
            };
            values(probe(&nudged(decoder.clone(), &change)))[0]
        };
        let difference = (at(1.0) - at(-1.0)) / (2.0 * step);
        let error = (difference - norm).abs() / norm;
        // f32 differences; a gradient that lacks a term is off by a tenth or more.
        assert!(
            error < 0.02,
            "{} {path}: {difference} by differences, {norm} by the tape",
            config.architecture
        );
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for config in [test_tiny(), test_tiny_gemma(), test_tiny_qwen()] {
        assert_gradients(&config, lora());
        assert_gradients(&config, Depth::Full);
    }
}

#[test]
fn only_what_the_depth_says_is_trained() {
    let config = test_tiny_qwen();
    let weights = SyntheticWeights::new(config.clone(), 7);
    let count = |depth| load(&config, &weights, depth).num_params();
    assert_eq!(count(Depth::Frozen), 0);
    assert_eq!(count(Depth::Full), config.num_parameters());
    let (hidden, ffn) = (config.hidden_len, config.ffn_len);
    let query_and_down = Depth::Lora(LoraConfig {
        rank: 2,
        alpha: 1.0,
        targets: vec![LoraTarget::Query, LoraTarget::Down],
    });
    assert_eq!(
        count(query_and_down),
        2 * 2 * ((hidden + hidden) + (ffn + hidden))
    );
    let frozen = load(&config, &weights, Depth::Frozen);
    let hidden = frozen.forward(&tokens()).unwrap();
    assert!(!hidden.is_tracked(), "a frozen decoder records a tape");
}

#[test]
fn adapters_begin_at_the_base_and_their_seed_decides_the_rest() {
    let config = test_tiny();
    let weights = SyntheticWeights::new(config.clone(), 7);
    let hidden = |decoder: &Decoder| values(decoder.forward(&tokens()).unwrap());
    let base = hidden(&load(&config, &weights, Depth::Frozen));
    let adapted = load(&config, &weights, lora());
    assert_eq!(hidden(&adapted), base);
    assert_ne!(hidden(&moved(adapted.clone())), base);
    let of_seed = |seed| {
        let device = Device::flex().autodiff();
        let decoder = Decoder::load(config.clone(), &weights, &options(lora(), seed), &device).unwrap();
        trained_params(&decoder, GradientsParams::new())
    };
    assert_eq!(of_seed(3), of_seed(3));
    assert_ne!(of_seed(3), of_seed(4));
    // Normal with variance 1 / in over all matrices that read the residual stream.
    let drawn: Vec<f64> = of_seed(3)
        .into_iter()
        .filter(|(path, (value, _))| path.ends_with("adapter.down") && value.len() == 64)
        .flat_map(|(_, (value, _))| value)
        .map(f64::from)
        .collect();
    assert_eq!(drawn.len(), 2 * 6 * 64);
    let variance = drawn.iter().map(|v| v * v).sum::<f64>() / drawn.len() as f64 * 32.0;
    // Chi-square over 768 draws: its standard deviation is 0.051.
    assert!((variance - 1.0).abs() < 0.17, "variance {variance} of 1");
}

#[test]
fn impossible_adapters_are_refused() {
    let config = test_tiny();
    let weights = SyntheticWeights::new(config.clone(), 7);
    let check = |change: &dyn Fn(&mut LoraConfig), expect: &str| {
        let mut lora = LoraConfig::default();
        change(&mut lora);
        let device = Device::flex().autodiff();
        let result = Decoder::load(config.clone(), &weights, &options(Depth::Lora(lora), 0), &device);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expect), "{message:?} does not say {expect:?}");
    };
    check(&|lora| lora.rank = 0, "lora.rank is 0");
    check(&|lora| lora.rank = 17, "lora.rank is 17");
    check(&|lora| lora.alpha = f64::NAN, "lora.alpha is NaN");
    check(&|lora| lora.targets.clear(), "lora.targets is empty");
}

#[test]
fn the_engine_runs_trained_weights_as_they_are() {
    for config in [test_tiny(), test_tiny_gemma(), test_tiny_qwen()] {
        for depth in [lora(), Depth::Full] {
            let base: Arc<dyn WeightSource> = Arc::new(SyntheticWeights::new(config.clone(), 7));
            let decoder = moved(load(&config, base.as_ref(), depth));
            let trained: Arc<dyn WeightSource> = Arc::new(decoder.trained_weights(Arc::clone(&base)));
            assert_same_states(&decoder, &config, &trained);
            let sequence = [3, 14, 15];
            let (before, after) = (
                engine_output(&config, &base, &sequence).hidden,
                engine_output(&config, &trained, &sequence).hidden,
            );
            assert!(relative_error(&after, &before) > 1e-2, "training changed nothing");
        }
    }
}

/// The engine's states under `weights` are the decoder's.
pub(crate) fn assert_same_states(decoder: &Decoder, config: &ModelConfig, weights: &Arc<dyn WeightSource>) {
    let sequence = [3, 14, 15, 9, 26, 5, 35];
    let tokens = TokenBatch::pad(&[&sequence]).unwrap();
    let ours = values(decoder.forward(&tokens).unwrap());
    let engines = engine_output(config, weights, &sequence).hidden;
    let error = relative_error(&engines, &ours);
    assert!(error < 1e-4, "{}: relative error {error}", config.architecture);
}
