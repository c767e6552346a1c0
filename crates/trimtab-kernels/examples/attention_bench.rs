//! Times of everything in a decoding step that is not a linear layer, in the shapes of SmolLM2-135M.
//!
//! `cargo run --release -p trimtab-kernels --example attention_bench [threads] [--f32] [--rival]`
//!
//! Unit: milliseconds for all 30 layers of one forward pass, the shortest of some rounds; for attention also 10^9
//! operations per second (a multiply-add being two). `--f32` stores keys and values as floats. `--rival` compares one
//! thread's softmax, exponential and `silu` with `rten-vecmath`.
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use rten_simd::{SimdOp, SimdUnaryOp};
use trimtab_kernels::activation::{gelu_tanh_mul, silu_mul};
use trimtab_kernels::attention::{AttentionRow, AttentionScratch, attend};
use trimtab_kernels::gemm::{isa_name, limits::f32_gflops};
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache, KvLayout, KvStorage};
use trimtab_kernels::norm::{add_rms_norm, rms_norm};
use trimtab_kernels::pool::Pool;
use trimtab_kernels::rope::{RopeTable, apply_rope};
use trimtab_kernels::vocab::{argmax_row, log_sum_exp_row, sample_row, top_k_row};

const NUM_LAYERS: usize = 30;
const NUM_HEADS: usize = 9;
const NUM_KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const HIDDEN_LEN: usize = NUM_HEADS * HEAD_DIM;
const FFN_LEN: usize = 1536;
const VOCAB_LEN: usize = 49_152;
/// Time spent on one figure.
const BUDGET: Duration = Duration::from_millis(400);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let num_threads = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let storage = if args.iter().any(|arg| arg == "--f32") {
        KvStorage::F32
    } else {
        KvStorage::F16
    };
    let pool = Pool::new(num_threads);
    println!(
        "{num_threads} threads, {}, keys and values in {storage:?}",
        isa_name()
    );
    println!("limit: {:.1} Gop/s of f32", f32_gflops(&pool));
    if args.iter().any(|arg| arg == "--rival") {
        return rivals();
    }
    for batch in [1, 8, 32] {
        decode(&pool, storage, batch, 128, 32);
    }
    decode(&pool, storage, 32, 128, 64);
    decode(&pool, storage, 1, 2048, 64);
    decode(&pool, storage, 16, 2048, 64);
    decode(&pool, storage, 16, 0, 2048);
    for (start, len) in [(0, 512), (1536, 512)] {
        prefill(&pool, storage, start, len);
    }
    for batch in [1, 8, 32, 512] {
        rows(&pool, batch);
    }
    vocab(&pool);
}

/// One step of `batch` candidates with a common prompt and `own_len` positions of their own each.
fn decode(pool: &Pool, storage: KvStorage, batch: usize, prompt_len: usize, own_len: usize) {
    let (shared, own) = (prompt_len / BLOCK_LEN, own_len.div_ceil(BLOCK_LEN));
    let blocks: Vec<Vec<u32>> = (0..batch)
        .map(|candidate| {
            let first_own = shared + candidate * own;
            (0..shared)
                .chain(first_own..first_own + own)
                .map(|block| block as u32)
                .collect()
        })
        .collect();
    let row = |blocks| AttentionRow {
        blocks,
        first_key: 0,
        num_keys: prompt_len + own_len,
    };
    let rows: Vec<AttentionRow<'_>> = blocks.iter().map(|blocks| row(blocks)).collect();
    attention(
        pool,
        storage,
        &rows,
        &format!("decode {batch:2}, prompt {prompt_len:4} + {own_len:4}"),
    );
}

fn prefill(pool: &Pool, storage: KvStorage, start: usize, len: usize) {
    let blocks: Vec<u32> = (0..((start + len) / BLOCK_LEN) as u32).collect();
    let row = |position| AttentionRow {
        blocks: &blocks,
        first_key: 0,
        num_keys: position + 1,
    };
    let rows: Vec<AttentionRow<'_>> = (start..start + len).map(row).collect();
    attention(
        pool,
        storage,
        &rows,
        &format!("prefill {start:4}..{:4}", start + len),
    );
}

fn attention(pool: &Pool, storage: KvStorage, rows: &[AttentionRow<'_>], name: &str) {
    let layout = KvLayout {
        num_layers: NUM_LAYERS,
        num_kv_heads: NUM_KV_HEADS,
        head_dim: HEAD_DIM,
        storage,
    };
    let num_blocks = 1 + rows.iter().flat_map(|row| row.blocks).max().copied().unwrap_or(0);
    let mut kv = KvCache::new(layout, num_blocks as usize);
    let mut random = noise();
    for block in 0..num_blocks {
        for slot in 0..BLOCK_LEN {
            let key: Vec<f32> = random.by_ref().take(NUM_KV_HEADS * HEAD_DIM).collect();
            for layer in 0..NUM_LAYERS {
                kv.write(layer, block, slot, &key, &key);
            }
        }
    }
    let queries: Vec<f32> = random.take(rows.len() * HIDDEN_LEN).collect();
    let mut out = vec![0.0; queries.len()];
    let mut scratch = AttentionScratch::default();
    let seconds = shortest_layers(|layer| {
        attend(
            pool,
            &kv,
            layer,
            rows,
            NUM_HEADS,
            0.125,
            &queries,
            &mut out,
            &mut scratch,
        );
    });
    let num_keys: usize = rows.iter().map(|row| row.num_keys - row.first_key).sum();
    let gops = (num_keys * NUM_LAYERS * HIDDEN_LEN * 4) as f64 / seconds / 1e9;
    println!("attention, {name:32} {:8.3} ms {gops:7.1} Gop/s", seconds * 1e3);
}

/// Norms, rotations, stores and activations of `batch` rows, for all layers.
fn rows(pool: &Pool, batch: usize) {
    let hidden: Vec<f32> = noise().take(batch * HIDDEN_LEN).collect();
    let (mut residual, mut out) = (hidden.clone(), hidden.clone());
    let weight = vec![1.0; HIDDEN_LEN];
    let report = |name: &str, per_layer: f64| {
        println!(
            "{name:12} {batch:3} rows {:8.3} ms",
            per_layer * NUM_LAYERS as f64 * 1e3
        );
    };
    report(
        "norm",
        shortest(|| rms_norm(pool, &hidden, &weight, 1e-5, &mut out)),
    );
    let zeros = vec![0.0; hidden.len()];
    report(
        "add+norm",
        shortest(|| add_rms_norm(pool, &mut residual, &zeros, &weight, 1e-5, &mut out)),
    );
    let inv_freq: Vec<f64> = (0..HEAD_DIM / 2)
        .map(|i| 1e4_f64.powf(-2.0 * i as f64 / HEAD_DIM as f64))
        .collect();
    let table = RopeTable::new(&inv_freq, 1.0);
    let positions: Vec<u32> = (0..batch as u32).collect();
    report(
        "rope",
        shortest(|| {
            apply_rope(
                pool, &mut out, HIDDEN_LEN, NUM_HEADS, HEAD_DIM, &positions, &table,
            );
        }),
    );
    let layout = KvLayout {
        num_layers: 1,
        num_kv_heads: NUM_KV_HEADS,
        head_dim: HEAD_DIM,
        storage: KvStorage::F16,
    };
    let mut kv = KvCache::new(layout, batch);
    report(
        "store",
        shortest(|| {
            for (block, row) in hidden.chunks_exact(HIDDEN_LEN).enumerate() {
                let (key, value) = row[..2 * NUM_KV_HEADS * HEAD_DIM].split_at(NUM_KV_HEADS * HEAD_DIM);
                kv.write(0, block as u32, 3, key, value);
            }
        }),
    );
    let gate_up: Vec<f32> = noise().map(|x| 4.0 * x).take(batch * 2 * FFN_LEN).collect();
    let mut gated = vec![0.0; batch * FFN_LEN];
    report("silu", shortest(|| silu_mul(pool, &gate_up, FFN_LEN, &mut gated)));
    report(
        "gelu",
        shortest(|| gelu_tanh_mul(pool, &gate_up, FFN_LEN, &mut gated)),
    );
}

fn vocab(pool: &Pool) {
    let logits: Vec<f32> = noise().map(|x| 8.0 * x).take(32 * VOCAB_LEN).collect();
    let row = |i: usize| &logits[i * VOCAB_LEN..(i + 1) * VOCAB_LEN];
    let each = |apply: &(dyn Fn(&[f32]) + Sync)| shortest(|| pool.run(32, &|i| apply(row(i)))) * 1e3;
    let sample = |inverse_temperature| {
        each(&move |row| {
            consume(sample_row(row, inverse_temperature, 0.7));
        })
    };
    println!("sample, temperature 1    32 rows {:8.3} ms", sample(1.0));
    println!("sample, temperature 0.7  32 rows {:8.3} ms", sample(1.0 / 0.7));
    println!(
        "argmax                   32 rows {:8.3} ms",
        each(&|row| consume(argmax_row(row)))
    );
    println!(
        "log-sum-exp              32 rows {:8.3} ms",
        each(&|row| consume(log_sum_exp_row(row)))
    );
    println!(
        "top 8                    32 rows {:8.3} ms",
        each(&|row| consume(top_k_row(row, 8)))
    );
}

/// One thread on arrays in the first-level cache; times ours over theirs.
fn rivals() {
    const LEN: usize = 4096;
    let pool = Pool::new(1);
    let input: Vec<f32> = noise().map(|x| 8.0 * x).take(2 * LEN).collect();
    let mut out = vec![0.0; LEN];
    let ratio = |name: &str, ours: f64, theirs: f64| {
        let per_value = |seconds: f64| seconds / LEN as f64 * 1e9;
        println!(
            "{name:12} {:6.3} ns a value, rten-vecmath {:6.3}, {:5.2} times as fast",
            per_value(ours),
            per_value(theirs),
            theirs / ours
        );
    };
    let ours = shortest(|| silu_mul(&pool, &input, LEN, &mut out));
    let theirs = shortest(|| {
        out.copy_from_slice(&input[..LEN]);
        rten_vecmath::Silu {}.map_mut(&mut out);
        out.iter_mut().zip(&input[LEN..]).for_each(|(out, up)| *out *= up);
    });
    ratio("silu * up", ours, theirs);
    // A draw at temperature 1 is a softmax whose terms are not stored, and a search.
    let ours = shortest(|| consume(sample_row(&input[..LEN], 1.0, 0.5)));
    let theirs = shortest(|| {
        out.copy_from_slice(&input[..LEN]);
        rten_vecmath::Softmax::new_mut(&mut out).dispatch();
        black_box(&out);
    });
    ratio("softmax", ours, theirs);
    let ours = shortest(|| consume(log_sum_exp_row(&input[..LEN])));
    let theirs = shortest(|| {
        out.copy_from_slice(&input[..LEN]);
        rten_vecmath::Exp {}.map_mut(&mut out);
        black_box(&out);
    });
    ratio("exp, summed", ours, theirs);
}

/// Keeps the compiler from leaving out what nobody reads.
fn consume<T>(value: T) {
    black_box(value);
}

/// Numbers in `-1..1` that look random, the same on every run.
fn noise() -> impl Iterator<Item = f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    })
}

/// Seconds of all layers, one after the other as in a forward pass, each at its shortest: on a machine with other
/// work no whole pass may go undisturbed.
fn shortest_layers(mut layer: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    let mut best = [f64::INFINITY; NUM_LAYERS];
    while start.elapsed() < BUDGET {
        for (layer_idx, best) in best.iter_mut().enumerate() {
            let layer_start = Instant::now();
            layer(layer_idx);
            *best = best.min(layer_start.elapsed().as_secs_f64());
        }
    }
    best.iter().sum()
}

/// Seconds of the shortest round of as many as fit the budget.
fn shortest(mut round: impl FnMut()) -> f64 {
    round();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < BUDGET {
        let round_start = Instant::now();
        round();
        best = best.min(round_start.elapsed().as_secs_f64());
    }
    best
}
