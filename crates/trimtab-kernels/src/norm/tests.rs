use proptest::prelude::*;

use super::*;

const EPS: f32 = 1e-5;

fn expected(row: &[f32], weight: &[f32]) -> Vec<f64> {
    let mean_square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / row.len() as f64;
    let scale = 1.0 / (mean_square + f64::from(EPS)).sqrt();
    let scaled = row.iter().zip(weight);
    scaled
        .map(|(&x, &w)| f64::from(x) * scale * f64::from(w))
        .collect()
}

fn norm(num_threads: usize, input: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; input.len()];
    rms_norm(&Pool::new(num_threads), input, weight, EPS, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_follow_the_formula_alone_and_in_any_batch(
        row_len in 1_usize..700, num_rows in 1_usize..60, exponent in -20_i32..18, seed in 0_u32..1000,
    ) {
        let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed * 977) >> 8) as f32 / 1e7 - 0.8;
        let input: Vec<f32> = (0..row_len * num_rows).map(|i| value(i) * 10_f32.powi(exponent)).collect();
        let weight: Vec<f32> = (0..row_len).map(|i| value(i + 13)).collect();
        let all = norm(2, &input, &weight);
        for (row, out) in input.chunks_exact(row_len).zip(all.chunks_exact(row_len)) {
            prop_assert_eq!(&norm(1, row, &weight), out);
            for (&got, expected) in out.iter().zip(expected(row, &weight)) {
                prop_assert!((f64::from(got) - expected).abs() <= 3e-7 * expected.abs() + 1e-38, "{got} {expected}");
            }
        }
    }

    #[test]
    fn adding_and_norming_are_one_step(num_rows in 1_usize..40, row_len in 1_usize..600) {
        let input: Vec<f32> = (0..num_rows * row_len).map(|i| (i % 97) as f32 - 40.0).collect();
        let delta: Vec<f32> = (0..num_rows * row_len).map(|i| (i % 89) as f32 * 0.1).collect();
        let weight = vec![0.5; row_len];
        let sums: Vec<f32> = input.iter().zip(&delta).map(|(a, b)| a + b).collect();
        let (mut residual, mut out) = (input, vec![0.0; delta.len()]);
        add_rms_norm(&Pool::new(2), &mut residual, &delta, &weight, EPS, &mut out);
        prop_assert_eq!(&residual, &sums);
        prop_assert_eq!(out, norm(1, &sums, &weight));
    }
}

#[test]
fn instruction_sets_agree_to_the_last_bit() {
    let input: Vec<f32> = (0..5 * 577).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    let weight: Vec<f32> = (0..577).map(|i| (i as f32 * 0.11).cos()).collect();
    let run = |isa: Isa| {
        let mut out = vec![0.0; input.len()];
        let (input, weight, eps, out_slice) = (&*input, &*weight, EPS, &mut *out);
        for_isa!(isa, norm_rows(input: &[f32], weight: &[f32], eps: f32, out_slice: &mut [f32]));
        out
    };
    for isa in Isa::available() {
        assert_eq!(run(isa), run(Isa::Portable), "{isa:?}");
    }
}

#[test]
fn a_row_that_is_not_finite_spoils_only_itself() {
    let mut input = vec![1.0; 3 * 100];
    input[150] = f32::INFINITY;
    let out = norm(2, &input, &[1.0; 100]);
    assert_eq!(out[..100], norm(1, &input[..100], &[1.0; 100])[..]);
    assert!(out[150].is_nan() && out[200..].iter().all(|value| value.is_finite()));
}

#[test]
#[should_panic(expected = "expected whole rows of 3")]
fn a_part_of_a_row_is_refused() {
    rms_norm(&Pool::new(1), &[0.0; 7], &[1.0; 3], EPS, &mut [0.0; 7]);
}
