//! Times what a scorer adds to a decoding step: heads, the product over the vocabulary in each precision, and a guided
//! draw beside a plain one. Knows sizes, no model.
//!
//! `cargo run --release -p trimtab-scorer --example scorer_bench [threads]`; best of many repetitions, in microseconds.
#![allow(clippy::print_stdout, reason = "an example tells what it found")]

use std::time::Instant;

use trimtab_kernels::gemm::Precision;
use trimtab_kernels::pool::Pool;
use trimtab_kernels::vocab::{sample_guided_row, sample_row};
use trimtab_scorer::{HeadSizes, ScorerSet, ScorerWeights};

/// Sizes of SmolLM2-135M with the heads that `train scorer` makes.
const SIZES: HeadSizes = HeadSizes {
    hidden_len: 576,
    vocab_len: 49_152,
    trunk_len: 512,
    features_len: 64,
};
const REPETITIONS: usize = 200;

fn best_us(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best * 1e6
}

fn main() {
    let num_threads = std::env::args()
        .nth(1)
        .map_or(2, |text| text.parse().expect("a number of threads"));
    let pool = Pool::new(num_threads);
    let wave = |idx: usize| (idx as f32 * 0.37).sin();
    for rows in [1, 8, 32] {
        let hidden: Vec<f32> = (0..rows * SIZES.hidden_len).map(wave).collect();
        let logits: Vec<f32> = (0..rows * SIZES.vocab_len).map(|idx| 8.0 * wave(idx)).collect();
        let mut tilts = vec![0.0; logits.len()];
        for precision in [
            Precision::F32,
            Precision::Bf16,
            Precision::Int8,
            Precision::Int8Wide,
        ] {
            let weights = ScorerWeights::random(1, SIZES);
            let set = ScorerSet::new(&pool, precision, vec![weights]).expect("one scorer fits itself");
            let weights = vec![Some(1.0); rows];
            let took = best_us(|| drop(set.tilts(&pool, &hidden, &weights, &mut tilts)));
            let mut values = vec![0.0; rows];
            let states = best_us(|| set.state_values(&pool, &hidden, &mut values));
            println!("rows {rows:2}, {precision:?}: tilts {took:7.0}, state values {states:6.0}");
        }
        let draw = |guided: bool| {
            best_us(|| {
                pool.run(rows, &|row| {
                    let range = row * SIZES.vocab_len..(row + 1) * SIZES.vocab_len;
                    let (logits, tilt) = (&logits[range.clone()], &tilts[range]);
                    let drawn = if guided {
                        sample_guided_row(logits, tilt, 1.0, 0.5)
                    } else {
                        sample_row(logits, 1.0, 0.5)
                    };
                    std::hint::black_box(drawn);
                });
            })
        };
        println!(
            "rows {rows:2}: plain draw {:7.0}, guided draw {:7.0}",
            draw(false),
            draw(true)
        );
    }
}
