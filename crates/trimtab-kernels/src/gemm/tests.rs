use proptest::prelude::*;

use super::*;

/// Values from a fixed stream, uniform in `-1..1`.
pub(super) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

const PRECISIONS: [Precision; 5] = [
    Precision::F32,
    Precision::Bf16,
    Precision::Int8,
    Precision::Int8Wide,
    Precision::Int4,
];

struct Layer {
    in_len: usize,
    out_len: usize,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Layer {
    fn random(in_len: usize, out_len: usize, seed: u64) -> Self {
        let bias = seed.is_multiple_of(2).then(|| random(out_len, seed + 100));
        Self {
            in_len,
            out_len,
            weights: random(in_len * out_len, seed),
            bias,
        }
    }

    fn pack(&self, isa: Isa, pool: &Pool, precision: Precision) -> Linear {
        let fill = |out_idx: usize, row: &mut [f32]| {
            row.copy_from_slice(&self.weights[out_idx * self.in_len..(out_idx + 1) * self.in_len]);
        };
        Linear::pack_for(
            isa,
            pool,
            precision,
            (self.in_len, self.out_len),
            &fill,
            self.bias.clone(),
        )
    }

    /// In `f64`, as the formula says.
    fn exact(&self, input: &[f32]) -> Vec<f64> {
        let rows = input.chunks_exact(self.in_len);
        let outputs = rows.flat_map(|row| {
            self.weights
                .chunks_exact(self.in_len)
                .enumerate()
                .map(|(out_idx, weights)| {
                    let products = row
                        .iter()
                        .zip(weights)
                        .map(|(&a, &w)| f64::from(a) * f64::from(w));
                    products.sum::<f64>() + self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[out_idx]))
                })
        });
        outputs.collect()
    }
}

fn forward(linear: &Linear, pool: &Pool, input: &[f32]) -> Vec<f32> {
    let rows = input.len() / linear.in_len();
    // Stale values must not show through.
    let mut output = vec![f32::NAN; rows * linear.out_len()];
    linear.forward(pool, input, &mut output, &mut GemmScratch::default());
    output
}

fn root_mean_square(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, len) = values
        .into_iter()
        .fold((0.0, 0.0), |(sum, len), v| (sum + v * v, len + 1.0));
    (sum / len).sqrt()
}

fn relative_error(output: &[f32], exact: &[f64]) -> f64 {
    let errors = output.iter().zip(exact).map(|(&o, &e)| f64::from(o) - e);
    root_mean_square(errors) / root_mean_square(exact.iter().copied())
}

/// Input and output lengths around the sizes of panels, blocks and tiles.
const SHAPES: [(usize, usize); 9] = [
    (1, 1),
    (3, 17),
    (64, 16),
    (65, 33),
    (172, 64),
    (288, 80),
    (100, 130),
    (576, 96),
    (1024, 48),
];

#[test]
fn every_precision_is_near_the_formula_on_every_path() {
    let pool = Pool::new(2);
    for (seed, (in_len, out_len)) in (0..).zip(SHAPES) {
        let layer = Layer::random(in_len, out_len, seed);
        let input = random(7 * in_len, seed + 50);
        let exact = layer.exact(&input);
        for isa in Isa::available() {
            for (precision, tolerance) in PRECISIONS.into_iter().zip([1e-6, 4e-3, 2e-2, 1e-2, 0.12]) {
                let output = forward(&layer.pack(isa, &pool, precision), &pool, &input);
                let error = relative_error(&output, &exact);
                assert!(
                    error < tolerance,
                    "{isa:?} {precision:?} {in_len}x{out_len}: {error}"
                );
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_batch_around_it() {
    let pools: Vec<Pool> = (1..=3).map(Pool::new).collect();
    for (in_len, out_len) in [(100, 150), (576, 70)] {
        let layer = Layer::random(in_len, out_len, 4);
        let input = random(200 * in_len, 5);
        for isa in Isa::available() {
            for precision in PRECISIONS {
                let linear = layer.pack(isa, &pools[0], precision);
                let alone: Vec<f32> = input
                    .chunks_exact(in_len)
                    .flat_map(|row| forward(&linear, &pools[0], row))
                    .collect();
                for (pool, rows) in pools.iter().cycle().zip((1..=70).chain([128, 129, 200])) {
                    let first = 200 - rows;
                    let together = forward(&linear, pool, &input[first * in_len..]);
                    assert!(
                        alone[first * out_len..] == together,
                        "{isa:?} {precision:?} {rows} rows"
                    );
                }
            }
        }
    }
}

#[test]
fn integer_paths_agree_to_the_last_bit() {
    let pool = Pool::new(2);
    for (seed, (in_len, out_len)) in (10..).zip(SHAPES) {
        let layer = Layer::random(in_len, out_len, seed);
        let mut input = random(67 * in_len, seed + 50);
        input[in_len / 2] = 1000.0;
        for precision in [Precision::Int8, Precision::Int8Wide, Precision::Int4] {
            let reference = forward(&layer.pack(Isa::Portable, &pool, precision), &pool, &input);
            for isa in Isa::available() {
                let output = forward(&layer.pack(isa, &pool, precision), &pool, &input);
                assert!(output == reference, "{isa:?} {precision:?} {in_len}x{out_len}");
            }
        }
    }
}

#[test]
fn float_paths_with_fused_products_agree_to_the_last_bit() {
    let fused = |isa: &Isa| *isa != Isa::Portable || cfg!(target_feature = "fma");
    let pool = Pool::new(2);
    for (seed, (in_len, out_len)) in (30..).zip(SHAPES) {
        let layer = Layer::random(in_len, out_len, seed);
        let input = random(29 * in_len, seed + 50);
        for precision in [Precision::F32, Precision::Bf16] {
            let output = |isa| forward(&layer.pack(isa, &pool, precision), &pool, &input);
            let outputs: Vec<_> = Isa::available().into_iter().filter(fused).map(output).collect();
            assert!(
                outputs.windows(2).all(|pair| pair[0] == pair[1]),
                "{precision:?} {in_len}x{out_len}"
            );
        }
    }
}

#[test]
fn bf16_weights_lose_nothing_that_was_bf16_already() {
    let pool = Pool::new(1);
    let mut layer = Layer::random(130, 50, 2);
    layer
        .weights
        .iter_mut()
        .for_each(|w| *w = half::bf16::from_f32(*w).to_f32());
    let input = random(9 * 130, 3);
    for isa in Isa::available() {
        let [exact, half] = [Precision::F32, Precision::Bf16].map(|p| layer.pack(isa, &pool, p));
        assert_eq!(
            forward(&exact, &pool, &input),
            forward(&half, &pool, &input),
            "{isa:?}"
        );
        assert_eq!(half.size_bytes() - 64 * 4, (exact.size_bytes() - 64 * 4) / 2);
    }
}

#[test]
fn no_rows_are_no_work_and_rows_of_zeros_give_the_bias() {
    let pool = Pool::new(2);
    let layer = Layer::random(70, 20, 2);
    for isa in Isa::available() {
        for precision in PRECISIONS {
            let linear = layer.pack(isa, &pool, precision);
            assert!(forward(&linear, &pool, &[]).is_empty());
            let bias = layer.bias.as_ref().unwrap();
            for row in forward(&linear, &pool, &[0.0; 3 * 70]).chunks_exact(20) {
                assert_eq!(row, bias);
            }
            // Below the smallest magnitude whose inverse scale is finite a row counts as zero.
            let tiny = forward(&linear, &pool, &[1e-39; 70]);
            assert!(
                tiny.iter().zip(bias).all(|(o, b)| (o - b).abs() <= 1e-36),
                "{isa:?} {precision:?}"
            );
        }
    }
}

#[test]
fn a_row_that_is_not_finite_spoils_only_itself() {
    let pool = Pool::new(2);
    let layer = Layer::random(150, 40, 3);
    let clean = random(20 * 150, 9);
    for isa in Isa::available() {
        for precision in PRECISIONS {
            let linear = layer.pack(isa, &pool, precision);
            let expected = forward(&linear, &pool, &clean);
            for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut input = clean.clone();
                input[5 * 150 + 77] = poison;
                let output = forward(&linear, &pool, &input);
                for (row, (output, expected)) in output.chunks(40).zip(expected.chunks(40)).enumerate() {
                    if row == 5 {
                        assert!(
                            output.iter().all(|o| !o.is_finite()),
                            "{isa:?} {precision:?} {poison}"
                        );
                    } else {
                        assert_eq!(output, expected, "{isa:?} {precision:?} {poison} row {row}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_weight_that_is_not_finite_shows_in_its_output_only() {
    let pool = Pool::new(1);
    let mut layer = Layer::random(64, 18, 1);
    layer.weights[17 * 64 + 3] = f32::NAN;
    for isa in Isa::available() {
        for precision in PRECISIONS {
            let output = forward(&layer.pack(isa, &pool, precision), &pool, &random(64, 8));
            assert!(
                output[17].is_nan() && output[..17].iter().all(|o| o.is_finite()),
                "{isa:?} {precision:?}"
            );
        }
    }
}

#[test]
fn outliers_cost_wide_activations_nothing() {
    let pool = Pool::new(1);
    let layer = Layer::random(576, 64, 1);
    let mut input = random(16 * 576, 2);
    input
        .iter_mut()
        .step_by(192)
        .for_each(|outlier| *outlier *= 300.0);
    // Weights as they are stored, so that only the activations' rounding is left.
    let linear = layer.pack(Isa::detect(), &pool, Precision::Int8);
    let mut stored = Layer {
        weights: vec![0.0; 576 * 64],
        bias: None,
        ..layer
    };
    for (out_idx, row) in stored.weights.chunks_exact_mut(576).enumerate() {
        linear.dequantize_row(out_idx, row);
    }
    // The outliers' own products would hide the error of the rest.
    let exact = stored.exact(&input);
    let error = |precision| {
        let output = forward(&stored.pack(Isa::detect(), &pool, precision), &pool, &input);
        root_mean_square(output.iter().zip(&exact).map(|(&o, &e)| f64::from(o) - e))
    };
    let (int8, wide) = (error(Precision::Int8), error(Precision::Int8Wide));
    assert!(wide < int8 / 50.0, "{wide} against {int8}");
}

#[test]
fn dequantized_rows_are_the_weights_that_products_see() {
    let pool = Pool::new(1);
    let layer = Layer {
        bias: None,
        ..Layer::random(75, 37, 1)
    };
    let mut unit = vec![0.0; 75];
    let mut row = vec![0.0; 75];
    for isa in Isa::available() {
        for (precision, largest_error) in PRECISIONS.into_iter().zip([0.0, 4e-3, 4e-3, 4e-3, 0.14]) {
            let linear = layer.pack(isa, &pool, precision);
            for k in [0, 1, 31, 32, 63, 64, 74] {
                unit.fill(0.0);
                unit[k] = 1.0;
                let column = forward(&linear, &pool, &unit);
                for (out_idx, seen) in column.into_iter().enumerate() {
                    linear.dequantize_row(out_idx, &mut row);
                    assert!(
                        (row[k] - seen).abs() < 1e-6,
                        "{isa:?} {precision:?} {k} {out_idx}"
                    );
                    let error = (row[k] - layer.weights[out_idx * 75 + k]).abs();
                    assert!(error <= largest_error, "{precision:?} {error}");
                }
            }
        }
    }
}

/// The documented formula of the integer precisions, from scratch.
fn int8_by_formula(layer: &Layer, input: &[f32], levels_per_value: f32) -> Vec<f32> {
    let scale_of = |row: &[f32], top: f32| row.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / top;
    let levels = |row: &[f32], top: f32| -> Vec<i64> {
        let inverse = top / row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        row.iter()
            .map(|v| (v * inverse).round_ties_even() as i64)
            .collect()
    };
    let mut output = Vec::new();
    for act_row in input.chunks_exact(layer.in_len) {
        let (row_scale, acts) = (
            scale_of(act_row, levels_per_value),
            levels(act_row, levels_per_value),
        );
        for (out_idx, weight_row) in layer.weights.chunks_exact(layer.in_len).enumerate() {
            let (out_scale, weights) = (scale_of(weight_row, 127.0), levels(weight_row, 127.0));
            let sum: i64 = acts.iter().zip(&weights).map(|(a, w)| a * w).sum();
            let bias = layer.bias.as_ref().map_or(0.0, |bias| bias[out_idx]);
            output.push(sum as f32 * (row_scale * out_scale) + bias);
        }
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn int8_is_the_formula_to_the_last_bit(in_len in 1_usize..200, out_len in 1_usize..70, rows in 1_usize..40, seed in 0_u64..1000) {
        let pool = Pool::new(2);
        let layer = Layer::random(in_len, out_len, seed);
        let input = random(rows * in_len, seed + 7);
        for isa in Isa::available() {
            let output = forward(&layer.pack(isa, &pool, Precision::Int8), &pool, &input);
            prop_assert_eq!(&output, &int8_by_formula(&layer, &input, 127.0));
            // The two planes' sums are added in floats, which rounds once more.
            let wide = forward(&layer.pack(isa, &pool, Precision::Int8Wide), &pool, &input);
            for (wide, exact) in wide.iter().zip(int8_by_formula(&layer, &input, 127.0 * 128.0)) {
                prop_assert!((wide - exact).abs() <= 1e-6 * in_len as f32, "{} {}", wide, exact);
            }
        }
    }
}

#[test]
fn scratch_may_be_shared_between_layers_of_any_size() {
    let pool = Pool::new(2);
    let mut scratch = GemmScratch::default();
    for (seed, (in_len, out_len)) in (0..).zip(SHAPES.into_iter().chain(SHAPES.into_iter().rev())) {
        for precision in [Precision::Int8, Precision::Int8Wide, Precision::Int4] {
            let linear = Layer::random(in_len, out_len, seed).pack(Isa::detect(), &pool, precision);
            let input = random(18 * in_len, seed);
            let mut output = vec![0.0; 18 * out_len];
            linear.forward(&pool, &input, &mut output, &mut scratch);
            assert_eq!(output, forward(&linear, &pool, &input));
        }
    }
}

#[test]
#[should_panic(expected = "expected whole input rows of 10")]
fn a_part_of_a_row_is_refused() {
    let pool = Pool::new(1);
    let linear = Layer::random(10, 4, 0).pack(Isa::detect(), &pool, Precision::F32);
    linear.forward(&pool, &[0.0; 15], &mut [0.0; 4], &mut GemmScratch::default());
}

#[test]
#[should_panic(expected = "expected 2 output rows of 4")]
fn an_output_of_another_size_is_refused() {
    let pool = Pool::new(1);
    let linear = Layer::random(10, 4, 0).pack(Isa::detect(), &pool, Precision::Int8);
    linear.forward(&pool, &[0.0; 20], &mut [0.0; 4], &mut GemmScratch::default());
}

#[test]
fn the_chosen_instruction_set_is_the_last_available() {
    assert_eq!(Isa::available().last(), Some(&Isa::detect()));
    assert_eq!(isa_name(), Isa::detect().name());
}
