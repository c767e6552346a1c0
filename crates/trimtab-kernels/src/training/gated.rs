//! Gated activations, `act(gate) * up`, and their gradients.

use crate::exp::exp;
use crate::isa::{Isa, for_isa};

/// An activation of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`.
    GeluTanh,
}

/// `out = act(gate) * up`.
///
/// # Panics
/// If lengths differ.
pub fn forward(act: Gate, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(
        gate.len() == up.len() && gate.len() == out.len(),
        "expected as many gates as outputs"
    );
    let isa = Isa::detect();
    match act {
        Gate::Silu => for_isa!(isa, silu_forward(gate: &[f32], up: &[f32], out: &mut [f32])),
        Gate::GeluTanh => for_isa!(isa, gelu_forward(gate: &[f32], up: &[f32], out: &mut [f32])),
    }
}

/// Gradients by `gate` and by `up`, given that by the output.
///
/// # Panics
/// If lengths differ.
pub fn backward(
    act: Gate,
    (gate, up): (&[f32], &[f32]),
    grad: &[f32],
    (by_gate, by_up): (&mut [f32], &mut [f32]),
) {
    let lens = [up.len(), grad.len(), by_gate.len(), by_up.len()];
    assert_eq!(lens, [gate.len(); 4], "expected as many gates as outputs");
    let isa = Isa::detect();
    match act {
        Gate::Silu => {
            for_isa!(isa, silu_backward(gate: &[f32], up: &[f32], grad: &[f32], by_gate: &mut [f32], by_up: &mut [f32]));
        }
        Gate::GeluTanh => {
            for_isa!(isa, gelu_backward(gate: &[f32], up: &[f32], grad: &[f32], by_gate: &mut [f32], by_up: &mut [f32]));
        }
    }
}

#[inline(always)]
fn silu_forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
    forward_with(silu, gate, up, out);
}

#[inline(always)]
fn gelu_forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
    forward_with(gelu_tanh, gate, up, out);
}

#[inline(always)]
fn silu_backward(gate: &[f32], up: &[f32], grad: &[f32], by_gate: &mut [f32], by_up: &mut [f32]) {
    backward_with(silu, (gate, up), grad, (by_gate, by_up));
}

#[inline(always)]
fn gelu_backward(gate: &[f32], up: &[f32], grad: &[f32], by_gate: &mut [f32], by_up: &mut [f32]) {
    backward_with(gelu_tanh, (gate, up), grad, (by_gate, by_up));
}

#[inline(always)]
fn forward_with(act: impl Fn(f32) -> (f32, f32), gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = act(gate).0 * up;
    }
}

#[inline(always)]
fn backward_with(
    act: impl Fn(f32) -> (f32, f32),
    (gate, up): (&[f32], &[f32]),
    grad: &[f32],
    (by_gate, by_up): (&mut [f32], &mut [f32]),
) {
    let inputs = gate.iter().zip(up).zip(grad);
    for ((by_gate, by_up), ((&gate, up), grad)) in by_gate.iter_mut().zip(by_up).zip(inputs) {
        let (value, slope) = act(gate);
        *by_gate = grad * up * slope;
        *by_up = grad * value;
    }
}

/// The value and its derivative.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + exp(-x));
    (x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid)))
}

/// `sqrt(2 / pi)`, twice: `(1 + tanh(u)) / 2 = 1 / (1 + e^-2u)`.
const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// The value and its derivative.
#[inline(always)]
fn gelu_tanh(x: f32) -> (f32, f32) {
    let inner = TWICE_SQRT_2_OVER_PI * (x + CUBIC * (x * x * x));
    let inner_slope = TWICE_SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * (x * x));
    let sigmoid = 1.0 / (1.0 + exp(-inner));
    (x * sigmoid, sigmoid + x * sigmoid * (1.0 - sigmoid) * inner_slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(act: Gate, x: f64) -> f64 {
        match act {
            Gate::Silu => x / (1.0 + (-x).exp()),
            Gate::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                x * (1.0 + inner.tanh()) / 2.0
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let gate: Vec<f32> = (0..201).map(|i| (i - 100) as f32 / 12.5).collect();
        let up: Vec<f32> = (0..201).map(|i| (i as f32 * 0.7).sin()).collect();
        let grad: Vec<f32> = (0..201).map(|i| (i as f32 * 0.3).cos()).collect();
        for act in [Gate::Silu, Gate::GeluTanh] {
            let mut out = vec![0.0; 201];
            forward(act, &gate, &up, &mut out);
            let (mut by_gate, mut by_up) = (vec![0.0; 201], vec![0.0; 201]);
            backward(act, (&gate, &up), &grad, (&mut by_gate, &mut by_up));
            for i in 0..201 {
                let (x, u, g) = (f64::from(gate[i]), f64::from(up[i]), f64::from(grad[i]));
                let slope = (exact(act, x + 1e-5) - exact(act, x - 1e-5)) / 2e-5;
                assert!((f64::from(out[i]) - exact(act, x) * u).abs() < 1e-5);
                assert!(
                    (f64::from(by_gate[i]) - g * u * slope).abs() < 1e-5,
                    "{act:?} at {x}"
                );
                assert!(
                    (f64::from(by_up[i]) - g * exact(act, x)).abs() < 1e-5,
                    "{act:?} at {x}"
                );
            }
        }
    }

    #[test]
    fn far_gates_have_finite_gradients() {
        for act in [Gate::Silu, Gate::GeluTanh] {
            let (mut by_gate, mut by_up) = ([0.0; 2], [0.0; 2]);
            backward(
                act,
                (&[-200.0, 200.0], &[1.0; 2]),
                &[1.0; 2],
                (&mut by_gate, &mut by_up),
            );
            assert_eq!(
                (by_gate, by_up.map(f32::abs)),
                ([0.0, 1.0], [0.0, 200.0]),
                "{act:?}"
            );
        }
    }
}
