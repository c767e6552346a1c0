//! Each operation against the tensor operations that it stands for: values and gradients.
//!
//! The tensor operations' own gradients are those of an automatic tape: agreement with them is to rounding. Along one
//! direction gradients are also those of finite differences, and on any number of threads they are the same bits.

use burn::tensor::{Device, Tensor, TensorData};
use trimtab_model::config::{Activation, AttentionSpan};
use trimtab_model::presets::test_tiny;

use super::{Geometry, attention, gated};
use crate::decoder::attention::attend_in_tensors;
use crate::decoder::layer::gated_in_tensors;
use crate::decoder::linear::{Adapter, Linear};
use crate::decoder::norm::RmsNorm;
use crate::decoder::positions::SpanTables;
use crate::decoder::weight::Weight;

/// Of values and gradients of order 1.
const TOLERANCE: f32 = 2e-5;

fn device() -> Device {
    Device::flex().autodiff()
}

fn wave<const D: usize>(shape: [usize; D], step: f32) -> Tensor<D> {
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i| (0.3 + i as f32 * step).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn assert_near<const D: usize>(got: Tensor<D>, expected: Tensor<D>, what: &str) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    for (idx, (got, expected)) in values(got).into_iter().zip(values(expected)).enumerate() {
        let error = (got - expected).abs();
        assert!(
            error < TOLERANCE * (1.0 + expected.abs()),
            "{what} {idx}: {got} against {expected}"
        );
    }
}

/// A function of matrices.
type Operation<'a, const N: usize> = &'a dyn Fn([Tensor<2>; N]) -> Tensor<2>;

/// The loss whose gradients are compared: outputs with weights of order 1.
fn weighted(out: Tensor<2>) -> Tensor<2> {
    let weights = wave(out.dims(), 0.9);
    out * weights
}

/// Value, and gradients by every input.
fn run<const N: usize>(inputs: &[Tensor<2>; N], of: Operation<'_, N>) -> (Tensor<2>, [Tensor<2>; N]) {
    let inputs = inputs.clone().map(|input| input.detach().require_grad());
    let out = of(inputs.clone());
    let grads = weighted(out.clone()).sum().backward();
    let by_inputs = inputs.map(|input| input.grad(&grads).expect("every input is on the tape"));
    (out.inner(), by_inputs)
}

/// Holds the gradient by each input to the loss's difference along itself, the direction that shows most.
fn check_by_finite_differences<const N: usize>(
    inputs: &[Tensor<2>; N],
    of: Operation<'_, N>,
    grads: &[Tensor<2>; N],
) {
    const STEP: f64 = 3e-2;
    for (idx, grad) in grads.iter().enumerate() {
        let squares = values(grad.clone())
            .into_iter()
            .map(|part| f64::from(part).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let loss = |step: f64| -> f64 {
            let mut moved = inputs.clone();
            moved[idx] = moved[idx].clone() + Tensor::from_inner(grad.clone()) * (step / norm);
            values(weighted(of(moved))).into_iter().map(f64::from).sum()
        };
        let difference = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
        assert!(
            (difference - norm).abs() < 5e-3 * norm,
            "gradient {idx}: {norm} against {difference}"
        );
    }
}

/// Holds value and gradients on one thread and on three to the same bits.
fn check_on_threads<const N: usize>(
    inputs: &[Tensor<2>; N],
    of: impl Fn([Tensor<2>; N]) -> Tensor<2> + Sync,
) {
    let on = |num_threads| -> Vec<Vec<u32>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(num_threads)
            .build()
            .unwrap();
        let (out, grads) = pool.install(|| run(inputs, &of));
        let all = std::iter::once(out).chain(grads);
        all.map(|tensor| values(tensor).into_iter().map(f32::to_bits).collect())
            .collect()
    };
    assert_eq!(on(1), on(3));
}

/// Holds `fused` to `tensors` on inputs of these shapes: value, and gradients by every input.
fn check<const N: usize>(
    inputs: [Tensor<2>; N],
    fused: impl Fn([Tensor<2>; N]) -> Tensor<2> + Sync,
    tensors: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let (got, got_grads) = run(&inputs, &fused);
    let (expected, expected_grads) = run(&inputs, &tensors);
    check_by_finite_differences(&inputs, &fused, &got_grads);
    check_on_threads(&inputs, &fused);
    assert_near(got, expected, "value");
    for (idx, (got, expected)) in got_grads.into_iter().zip(expected_grads).enumerate() {
        assert_near(got, expected, &format!("gradient {idx}"));
    }
    let plain = inputs.map(Tensor::inner);
    assert_near(fused(plain.clone()), tensors(plain), "value off the tape");
}

#[test]
fn norms_are_those_of_tensor_operations() {
    let norm = |weight: Tensor<2>| RmsNorm {
        weight: Weight::Frozen(weight.flatten(0, 1)),
        eps: 1e-5,
    };
    check(
        [wave([150, 24], 0.7), wave([1, 24], 0.4)],
        |[x, weight]| norm(weight).forward(x),
        |[x, weight]| norm(weight).forward_in_tensors(x),
    );
}

#[test]
fn gated_activations_are_those_of_tensor_operations() {
    for activation in [Activation::Silu, Activation::GeluTanh] {
        check(
            [wave([30, 20], 0.7) * 4.0, wave([30, 20], 0.3)],
            |[gate, up]| gated(&gate, &up, activation).expect("these tensors are in memory"),
            |[gate, up]| gated_in_tensors(gate, up, activation),
        );
    }
}

#[test]
fn linear_layers_are_those_of_tensor_operations() {
    let linear = |matrix, bias: Option<Tensor<2>>, adapter| Linear {
        matrix: Weight::Frozen(matrix),
        bias: bias.map(|bias| Weight::Frozen(bias.flatten(0, 1))),
        adapter,
    };
    check(
        [wave([70, 12], 0.7), wave([12, 20], 0.3), wave([1, 20], 0.5)],
        |[x, matrix, bias]| linear(matrix, Some(bias), None).forward(x),
        |[x, matrix, bias]| linear(matrix, Some(bias), None).forward_in_tensors(x),
    );
    // Parameters are leaves of their own: gradients by them are compared in whole decoders.
    let adapter = || Adapter::new(wave([12, 3], 0.2), wave([3, 20], 0.9), 0.75);
    check(
        [wave([70, 12], 0.7), wave([12, 20], 0.3)],
        |[x, matrix]| linear(matrix, None, Some(adapter())).forward(x),
        |[x, matrix]| linear(matrix, None, Some(adapter())).forward_in_tensors(x),
    );
}

#[test]
fn adapters_gradients_are_those_of_tensor_operations() {
    check(
        [
            wave([70, 12], 0.7),
            wave([12, 20], 0.3),
            wave([12, 3], 0.2),
            wave([3, 20], 0.9),
        ],
        |[x, matrix, down, up]| {
            super::linear(&x, &matrix, Some((down, up, 0.75))).expect("these tensors are in memory")
        },
        |[x, matrix, down, up]| x.clone().matmul(matrix) + x.matmul(down).matmul(up) * 0.75,
    );
}

#[test]
fn attention_is_that_of_tensor_operations() {
    // More queries than one block has, and windows shorter and longer than a block.
    for (seq, window) in [(5, None), (150, None), (150, Some(7)), (150, Some(100))] {
        let span = window.map_or(AttentionSpan::Global, |window| AttentionSpan::Sliding { window });
        let mut config = test_tiny();
        config.layer_spans = vec![span; config.layer_spans.len()];
        let (batch, num_heads, num_kv_heads, head_dim) = (2, 4, 2, config.head_dim);
        let tables = SpanTables::of_model(&config, seq, &device()).remove(0);
        let geometry = Geometry {
            seq,
            num_heads,
            num_kv_heads,
            head_dim,
            span,
            query_table: tables.query.table.clone(),
            key_table: tables.key.table.clone(),
        };
        check(
            [
                wave([batch * seq, num_heads * head_dim], 0.7) * 2.0,
                wave([batch * seq, num_kv_heads * head_dim], 0.37) * 2.0,
                wave([batch * seq, num_kv_heads * head_dim], 0.51),
            ],
            |[query, key, value]| {
                attention(&query, &key, &value, &geometry).expect("these tensors are in memory")
            },
            |inputs| attend_in_tensors(inputs, (batch, &geometry), &tables),
        );
    }
}
