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
