//! Rates of the linear layers of small language models, per precision and instruction set.
//!
//! `cargo run --release -p trimtab-kernels --example gemm_bench [threads] [--cold] [--rival]`
//!
//! Unit: 10^9 operations per second, a multiply-add being two; beside it the bytes of weights read per second.
//! `--cold` cycles through copies of the layer larger than most caches, as decoding cycles through a model's
//! layers; without it one layer stays in cache. `--rival` adds `rten-gemm` on prepacked weights, which rounds no
//! activations and scales no sums, so its figures flatter it.
#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::time::{Duration, Instant};

use rten_gemm::{GemmExecutor, GemmInT, GemmInputA, GemmInputB, GemmOptions, GemmOutT};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use trimtab_kernels::gemm::{GemmScratch, Isa, Linear, Precision, limits};
use trimtab_kernels::pool::Pool;

/// SmolLM2-135M, then the largest layers of Qwen2.5-0.5B and 1.5B: input length, output length.
const SHAPES: [(usize, usize); 9] = [
    (576, 960),
    (576, 576),
    (576, 3072),
    (1536, 576),
    (576, 49152),
    (896, 9728),
    (4864, 896),
    (1536, 17920),
    (8960, 1536),
];
const PRECISIONS: [Precision; 5] = [
    Precision::Int8,
    Precision::Int8Wide,
    Precision::Int4,
    Precision::Bf16,
    Precision::F32,
];
const ROWS: [usize; 4] = [1, 8, 32, 512];
/// Bytes of weights that `--cold` cycles through.
const COLD_BYTES: usize = 160 << 20;
/// Time for one figure.
const BUDGET: Duration = Duration::from_millis(150);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_cold = arguments.iter().any(|a| a == "--cold");
    let has_rival = arguments.iter().any(|a| a == "--rival");
    let num_threads = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(2);
    let pool = Pool::new(num_threads);
    println!(
        "{num_threads} threads, limits: int8 {:.0} GOP/s, f32 {:.0} GFLOP/s, read {:.1} GB/s",
        limits::int8_gops(&pool),
        limits::f32_gflops(&pool),
        limits::read_gb_per_second(&pool, COLD_BYTES),
    );
    println!(
        "{:<30}{}",
        "GOP/s (GB/s of weights)",
        ROWS.map(|rows| format!("{rows:>17}")).concat()
    );
    for shape in SHAPES {
        for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Portable) {
            for precision in PRECISIONS {
                own(&pool, isa, precision, shape, is_cold);
            }
        }
        if has_rival {
            rival::<u8, i8, i32>("u8i8", shape, is_cold);
            rival::<f32, f32, f32>("f32", shape, is_cold);
        }
    }
}

fn own(pool: &Pool, isa: Isa, precision: Precision, (in_len, out_len): (usize, usize), is_cold: bool) {
    let fill = |out_idx: usize, row: &mut [f32]| {
        for (k, value) in row.iter_mut().enumerate() {
            *value = ((out_idx * 31 + k * 17) % 255) as f32 / 127.0 - 1.0;
        }
    };
    let pack = || Linear::pack_for(isa, pool, precision, (in_len, out_len), &fill, None);
    let mut layers = vec![pack()];
    let num_layers = if is_cold {
        COLD_BYTES.div_ceil(layers[0].size_bytes())
    } else {
        1
    };
    layers.resize_with(num_layers, pack);
    let mut scratch = GemmScratch::default();
    let name = format!("{in_len}x{out_len} {precision:?} {}", isa.name());
    report(&name, layers[0].size_bytes(), (in_len, out_len), |rows| {
        let input: Vec<f32> = (0..rows * in_len).map(|i| (i % 97) as f32 / 97.0).collect();
        let mut output = vec![0.0; rows * out_len];
        seconds_per_call(|call_idx| {
            layers[call_idx % layers.len()].forward(pool, &input, &mut output, &mut scratch);
        })
    });
}

fn rival<A: GemmInT, W: GemmInT, S: GemmOutT>(
    type_name: &str,
    (in_len, out_len): (usize, usize),
    is_cold: bool,
) where
    GemmExecutor<A, W, S>: Default,
{
    let executor = GemmExecutor::<A, W, S>::default();
    let pack = || executor.prepack_b(NdTensor::<W, 2>::zeros([in_len, out_len]).view());
    let layer_bytes = in_len * out_len * size_of::<W>();
    let num_layers = if is_cold {
        COLD_BYTES.div_ceil(layer_bytes)
    } else {
        1
    };
    let layers: Vec<_> = (0..num_layers).map(|_| pack()).collect();
    let name = format!("{in_len}x{out_len} rten-gemm {type_name}");
    report(&name, layer_bytes, (in_len, out_len), |rows| {
        let input = NdTensor::<A, 2>::zeros([rows, in_len]);
        let mut output = vec![S::default(); rows * out_len];
        seconds_per_call(|call_idx| {
            let weights = GemmInputB::Packed(&layers[call_idx % num_layers]);
            executor
                .gemm(
                    &mut output,
                    GemmInputA::Unpacked(input.view()),
                    weights,
                    GemmOptions::default(),
                )
                .expect("the operands have matching shapes");
        })
    });
}

/// One line of the table.
fn report(
    name: &str,
    layer_bytes: usize,
    (in_len, out_len): (usize, usize),
    mut seconds: impl FnMut(usize) -> f64,
) {
    print!("{name:<30}");
    for rows in ROWS {
        let seconds = seconds(rows);
        let giga_operations = 2.0 * (rows * in_len * out_len) as f64 / 1e9;
        print!(
            "{:>9.0} ({:>5.1})",
            giga_operations / seconds,
            layer_bytes as f64 / 1e9 / seconds
        );
    }
    println!();
}

/// The median over short rounds of calls: other programs on the machine disturb some of them.
fn seconds_per_call(mut call: impl FnMut(usize)) -> f64 {
    let mut num_calls = 0;
    let mut round = || {
        let start = Instant::now();
        let first = num_calls;
        while num_calls == first || start.elapsed() < BUDGET / 15 {
            call(num_calls);
            num_calls += 1;
        }
        start.elapsed().as_secs_f64() / (num_calls - first) as f64
    };
    round();
    let mut rounds: Vec<f64> = (0..14).map(|_| round()).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}
