use proptest::prelude::*;

use super::*;

/// All gates with ups of 1, so that results are those of the activation.
fn apply(activation: fn(&Pool, &[f32], usize, &mut [f32]), gates: &[f32]) -> Vec<f32> {
    let gate_up = [gates, &vec![1.0; gates.len()]].concat();
    let mut out = vec![f32::NAN; gates.len()];
    activation(&Pool::new(2), &gate_up, gates.len(), &mut out);
    out
}

fn exact_silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn exact_gelu(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    // tanh(u) + 1 cancels for negative u.
    x / (1.0 + (-2.0 * inner).exp())
}

/// Gates of all magnitudes and signs.
fn gates() -> Vec<f32> {
    let positive = (0..0x42b0_0000_u32).step_by(9973).map(f32::from_bits);
    positive.flat_map(|gate| [gate, -gate]).collect()
}

#[test]
fn silu_is_near_the_exact_value() {
    let gates = gates();
    for (&gate, got) in gates.iter().zip(apply(silu_mul, &gates)) {
        let expected = exact_silu(f64::from(gate));
        let error = (f64::from(got) - expected).abs();
        assert!(
            error <= 5e-7 * expected.abs() + 1e-36,
            "silu({gate}) = {got}, expected {expected}"
        );
    }
}

#[test]
fn gelu_is_near_the_exact_value() {
    let gates = gates();
    for (&gate, got) in gates.iter().zip(apply(gelu_tanh_mul, &gates)) {
        let expected = exact_gelu(f64::from(gate));
        let error = (f64::from(got) - expected).abs();
        let bound = if gate > -1.0 {
            5e-7 * expected.abs() + 1e-38
        } else {
            5e-7
        };
        assert!(error <= bound, "gelu({gate}) = {got}, expected {expected}");
    }
}

#[test]
fn ends_are_as_documented() {
    for activation in [silu_mul, gelu_tanh_mul] {
        let out = apply(
            activation,
            &[f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 0.0, -500.0, 500.0],
        );
        assert!(out[0].is_nan() && out[1].is_nan());
        assert_eq!(out[2..], [f32::INFINITY, 0.0, 0.0, 500.0]);
    }
}

#[test]
fn instruction_sets_agree_to_the_last_bit() {
    let gates = gates();
    let ups: Vec<f32> = gates.iter().rev().copied().collect();
    let run = |isa: Isa| {
        let mut out = vec![0.0; 2 * gates.len()];
        let (silu, gelu) = out.split_at_mut(gates.len());
        let (gate, up) = (&*gates, &*ups);
        for_isa!(isa, silu_mul_slice(gate: &[f32], up: &[f32], silu: &mut [f32]));
        for_isa!(isa, gelu_tanh_mul_slice(gate: &[f32], up: &[f32], gelu: &mut [f32]));
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    for isa in Isa::available() {
        assert_eq!(run(isa), run(Isa::Portable), "{isa:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_are_split_where_gates_end(num_rows in 1_usize..9, ffn_len in 1_usize..3000, num_threads in 1_usize..4) {
        let gate_up: Vec<f32> = (0..2 * num_rows * ffn_len).map(|i| (i % 199) as f32 * 0.1 - 9.0).collect();
        let mut out = vec![f32::NAN; num_rows * ffn_len];
        silu_mul(&Pool::new(num_threads), &gate_up, ffn_len, &mut out);
        for (row, out) in gate_up.chunks_exact(2 * ffn_len).zip(out.chunks_exact(ffn_len)) {
            let silu = apply(silu_mul, &row[..ffn_len]);
            let expected: Vec<f32> = silu.iter().zip(&row[ffn_len..]).map(|(silu, up)| silu * up).collect();
            prop_assert_eq!(out, &expected[..]);
        }
    }
}

#[test]
fn silu_alone_is_silu_times_one() {
    let pool = Pool::new(2);
    let mut values: Vec<f32> = (0..10_000).map(|i| i as f32 / 100.0 - 50.0).collect();
    let gate_up: Vec<f32> = values.iter().flat_map(|&value| [value, 1.0]).collect();
    let mut expected = vec![0.0; values.len()];
    silu_mul(&pool, &gate_up, 1, &mut expected);
    silu(&pool, &mut values);
    assert_eq!(values, expected);
}
