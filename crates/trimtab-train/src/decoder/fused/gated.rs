//! `act(gate) * up` in one pass.

use burn::tensor::Tensor;
use rayon::prelude::*;
use trimtab_kernels::training::gated::{Gate, backward, forward};
use trimtab_model::config::Activation;

use super::tape::{Function, Gradient, Output, Values, apply};

/// Values of a task.
const TASK_LEN: usize = 32 << 10;

/// `act(gate) * up`, on the CPU. `[rows, ffn]`
pub(in crate::decoder) fn gated(
    gate: &Tensor<2>,
    up: &Tensor<2>,
    activation: Activation,
) -> Option<Tensor<2>> {
    let act = match activation {
        Activation::Silu => Gate::Silu,
        Activation::GeluTanh => Gate::GeluTanh,
    };
    let inputs = [gate.clone().into_dispatch(), up.clone().into_dispatch()];
    apply(inputs, |[gate, up]| {
        let mut values = vec![0.0; gate.as_slice().len()];
        values
            .par_chunks_mut(TASK_LEN)
            .zip(gate.as_slice().par_chunks(TASK_LEN))
            .zip(up.as_slice().par_chunks(TASK_LEN))
            .for_each(|((out, gate), up)| forward(act, gate, up, out));
        Output {
            values,
            shape: gate.shape(),
            function: Gated { act, gate, up },
        }
    })
}

#[derive(Debug, Clone)]
struct Gated {
    act: Gate,
    gate: Values,
    up: Values,
}

impl Function<2> for Gated {
    /// Both, whichever are wanted: one pass gives them.
    fn backward(self, grad: &[f32], wanted: [bool; 2]) -> [Option<Gradient>; 2] {
        let (mut by_gate, mut by_up) = (vec![0.0; grad.len()], vec![0.0; grad.len()]);
        by_gate
            .par_chunks_mut(TASK_LEN)
            .zip(by_up.par_chunks_mut(TASK_LEN))
            .zip(self.gate.as_slice().par_chunks(TASK_LEN))
            .zip(self.up.as_slice().par_chunks(TASK_LEN))
            .zip(grad.par_chunks(TASK_LEN))
            .for_each(|((((by_gate, by_up), gate), up), grad)| {
                backward(self.act, (gate, up), grad, (by_gate, by_up));
            });
        let shape = self.gate.shape();
        let gradient = |values, wanted: bool| {
            wanted.then(|| Gradient {
                values,
                shape: shape.clone(),
            })
        };
        [gradient(by_gate, wanted[0]), gradient(by_up, wanted[1])]
    }
}
