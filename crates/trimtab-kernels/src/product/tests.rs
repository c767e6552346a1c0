//! Products against the formula in f64.

use proptest::prelude::*;

use super::*;

fn values(len: usize, seed: u32) -> Vec<f32> {
    let value = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 9) as f32 / 8_388_608.0 - 0.5;
    (0..len as u32).map(value).collect()
}

fn at(view: View<'_>, row: usize, col: usize) -> f64 {
    f64::from(view.data[view.start + row * view.strides.0 + col * view.strides.1])
}

proptest! {
    #[test]
    fn products_are_the_sums_of_the_formula(
        rows in 1_usize..40, inner in 1_usize..40, cols in 1_usize..40,
        left_turned: bool, right_turned: bool, adds: bool, cut in 0_usize..4,
    ) {
        let (a, b) = (values(rows * inner, 1), values(inner * cols, 2));
        let left = if left_turned { View::rows(&a, rows).transposed() } else { View::rows(&a, inner) };
        let right = if right_turned { View::rows(&b, inner).transposed() } else { View::rows(&b, cols) };
        let first = cut.min(inner - 1);
        let (left, right) = (left.col_range(first..inner), right.row_range(first..inner));
        let stride = cols + 3;
        let mut out = vec![0.25; rows * stride];
        product(left, right, 2.0, Target { data: &mut out[2..], stride, adds });
        for row in 0..rows {
            prop_assert_eq!(out[row * stride + 1], 0.25);
            prop_assert_eq!(out[(row + 1) * stride - 1], 0.25);
            for col in 0..cols {
                let sum: f64 = (0..inner - first).map(|k| at(left, row, k) * at(right, k, col)).sum();
                let expected = 2.0 * sum + if adds { 0.25 } else { 0.0 };
                prop_assert!((f64::from(out[2 + row * stride + col]) - expected).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let (rows, inner, cols) = (210, 900, 130);
    let (a, b) = (values(rows * inner, 1), values(inner * cols, 2));
    let on_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads can be made");
        let mut out = vec![0.0; rows * cols];
        let turned = View::rows(&a, rows).transposed();
        let target = Target {
            data: &mut out,
            stride: cols,
            adds: false,
        };
        pool.install(|| product(turned, View::rows(&b, cols), 1.0, target));
        out
    };
    let one = on_threads(1);
    assert_eq!(one, on_threads(2));
    assert_eq!(one, on_threads(3));
}
