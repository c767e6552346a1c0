//! Tokens per second of a training step (forward, backward, `AdamW`) of an 8.4M-parameter decoder: width 256, 6 layers,
//! vocabulary 4096, 16 sequences of 128 tokens.
//!
//! ```sh
//! cargo run --release -p trimtab-train --example decoder_speed
//! ```
#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use trimtab_base::Seed;
use trimtab_model::ModelConfig;
use trimtab_model::config::AttentionSpan;
use trimtab_model::presets::test_tiny;
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_train::decoder::{Decoder, DecoderError, DecoderOptions, Depth, LoraConfig, TokenBatch};
use trimtab_train::trainer::Optimizer;

const BATCH: usize = 16;
const SEQ: usize = 128;
const NUM_STEPS: u32 = 10;

fn config() -> ModelConfig {
    ModelConfig {
        architecture: "8.4M".to_owned(),
        vocab_len: 4096,
        hidden_len: 256,
        ffn_len: 1024,
        num_heads: 8,
        num_kv_heads: 8,
        head_dim: 32,
        layer_spans: vec![AttentionSpan::Global; 6],
        score_scale: 1.0 / 32.0_f32.sqrt(),
        tied_head: false,
        ..test_tiny()
    }
}

/// What a step minimises.
#[derive(Clone, Copy)]
enum Loss {
    /// Next-token cross-entropy, through the output head.
    Tokens,
    /// A regression on hidden states, as a scorer's: no output head.
    States,
}

fn loss(decoder: &Decoder, tokens: &TokenBatch, loss: Loss) -> Result<Tensor<1>, DecoderError> {
    let hidden = decoder.forward(tokens)?; // [batch, seq, hidden]
    let [batch, seq, hidden_len] = hidden.dims();
    let rows = hidden.reshape([batch * seq, hidden_len]);
    Ok(match loss {
        Loss::States => (rows.mean_dim(1) - 1.0).square().sum(),
        Loss::Tokens => {
            let ids = tokens.token_ids();
            let next: Vec<i32> = (0..ids.len()).map(|i| ids[(i + 1) % ids.len()] as i32).collect();
            let next = TensorData::new(next, [ids.len(), 1]);
            let next = Tensor::<2, Int>::from_data(next, decoder.device());
            log_softmax(decoder.logits(rows)?, 1).gather(1, next).mean().neg()
        }
    })
}

fn measure(name: &str, depth: Depth, kind: Loss) -> Result<(), DecoderError> {
    let config = config();
    let options = DecoderOptions {
        depth,
        with_head: matches!(kind, Loss::Tokens),
        seed: Seed(0),
    };
    let weights = SyntheticWeights::new(config.clone(), 1);
    let device = Device::flex().autodiff();
    let mut decoder = Decoder::load(config, &weights, &options, &device)?;
    let sequences: Vec<Vec<u32>> = (0..BATCH)
        .map(|row| (0..SEQ).map(|i| ((row * 977 + i * 31) % 4096) as u32).collect())
        .collect();
    let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let tokens = TokenBatch::pad(&rows)?;
    let mut optimizer = Optimizer::new(0.01);
    let mut started = Instant::now();
    let mut last = 0.0;
    // The first step warms caches and allocates moments.
    for step in 0..=NUM_STEPS {
        if step == 1 {
            started = Instant::now();
        }
        let loss = loss(&decoder, &tokens, kind)?;
        let mut grads = GradientsParams::from_grads(loss.backward(), &decoder);
        decoder = optimizer.step(1e-3, decoder, &mut grads, 1.0);
        last = loss.into_scalar::<f32>();
    }
    let seconds = started.elapsed().as_secs_f64() / f64::from(NUM_STEPS);
    println!(
        "{name}: {:.0} tokens/s ({:.0} ms a step, {} trained parameters, loss {last:.3})",
        (BATCH * SEQ) as f64 / seconds,
        seconds * 1e3,
        decoder.num_params()
    );
    Ok(())
}

fn main() -> Result<(), DecoderError> {
    measure("full, next token", Depth::Full, Loss::Tokens)?;
    measure("full, states", Depth::Full, Loss::States)?;
    measure(
        "adapters, states",
        Depth::Lora(LoraConfig::default()),
        Loss::States,
    )
}
