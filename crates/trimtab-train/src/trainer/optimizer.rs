//! `AdamW` over a module, its state by path so that it can be stored and found again. Knows no loss.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, GradientsParams, Optimizer as _};
use burn::tensor::{Device, Tensor, TensorData};
use trimtab_kernels::training::adamw::Step;

use super::in_memory;

use super::scalars::Scalars;

/// Names of the two moments in a checkpoint.
const MOMENTS: [&str; 2] = ["first", "second"];
/// Decays of the two moments.
const BETAS: [f32; 2] = [0.9, 0.999];
/// Added to the root of the second moment.
const EPSILON: f32 = 1e-8;

/// `AdamW` (Loshchilov & Hutter, arXiv 1711.05101) with decay on matrices only; a decayed bias would pull values to 0.
///
/// The arithmetic is burn's; on the CPU it is one pass over the weights in place of one for each operation. Burn's own
/// module optimiser is not used because that keys its state by random ids, which a resumed process does not have, and
/// clips each weight by itself instead of the whole gradient.
pub struct Optimizer {
    matrices: AdamW,
    vectors: AdamW,
    weight_decay: f64,
    states: BTreeMap<String, AdamWState<1>>,
}

impl Optimizer {
    /// An optimiser without state.
    pub fn new(weight_decay: f64) -> Self {
        let config = AdamWConfig::new()
            .with_beta_1(BETAS[0])
            .with_beta_2(BETAS[1])
            .with_epsilon(EPSILON);
        Self {
            weight_decay,
            matrices: config.clone().with_weight_decay(weight_decay as f32).build(),
            vectors: config.with_weight_decay(0.0).build(),
            states: BTreeMap::new(),
        }
    }

    /// One update with `grad_factor` times the gradients. Weights without a gradient stay.
    pub fn step<M: Module>(
        &mut self,
        learning_rate: f64,
        module: M,
        grads: &mut GradientsParams,
        grad_factor: f64,
    ) -> M {
        module.map(&mut Updater {
            path: Vec::new(),
            optimizer: self,
            learning_rate,
            grads,
            grad_factor,
        })
    }

    /// The state as named tensors, `<moment>.<steps>.<path>`.
    pub fn to_tensors(&self) -> BTreeMap<String, TensorData> {
        let mut tensors = BTreeMap::new();
        for (path, state) in &self.states {
            let moments = [&state.momentum.moment_1, &state.momentum.moment_2];
            for (name, moment) in MOMENTS.iter().zip(moments) {
                tensors.insert(format!("{name}.{}.{path}", state.momentum.time), moment.to_data());
            }
        }
        tensors
    }

    /// Takes back what [`Self::to_tensors`] gave.
    ///
    /// # Errors
    /// The first name that was not made there, in words.
    pub fn load_tensors(
        &mut self,
        tensors: &BTreeMap<String, TensorData>,
        devices: &[Device],
    ) -> Result<(), String> {
        let device = devices.first().cloned().unwrap_or_else(Device::flex).inner();
        for (name, data) in tensors {
            let Some(rest) = name.strip_prefix("first.") else {
                continue;
            };
            let second = tensors.get(&format!("second.{rest}"));
            let parts = rest
                .split_once('.')
                .and_then(|(time, path)| Some((time.parse().ok()?, path)));
            let (Some(second), Some((time, path))) = (second, parts) else {
                return Err(format!("optimiser state {name} is incomplete"));
            };
            let moment = |data: &TensorData| Tensor::<1>::from_data(data.clone(), &device);
            let momentum = AdaptiveMomentumState::new(time, moment(data), moment(second));
            self.states.insert(path.to_owned(), AdamWState::new(momentum));
        }
        Ok(())
    }
}

struct Updater<'a> {
    path: Vec<String>,
    optimizer: &'a mut Optimizer,
    learning_rate: f64,
    grads: &'a mut GradientsParams,
    grad_factor: f64,
}

impl ModuleMapper for Updater<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return param;
        };
        let path = self.path.join(".");
        param.map(|tensor| {
            // AdamW is elementwise, so every weight goes through it as a vector.
            let (shape, len) = (tensor.dims(), tensor.dims().iter().product::<usize>());
            let state = self.optimizer.states.remove(&path);
            let vectors = (tensor.inner().reshape([len]), grad.reshape([len]));
            let (updated, state) = self.step(D >= 2, vectors, state);
            self.optimizer
                .states
                .extend(state.map(|state| (path.clone(), state)));
            Tensor::from_inner(updated.reshape(shape)).require_grad()
        })
    }
}

impl Updater<'_> {
    /// The next value of a weight and of its state.
    fn step(
        &self,
        is_matrix: bool,
        (weight, grad): (Tensor<1>, Tensor<1>),
        state: Option<AdamWState<1>>,
    ) -> (Tensor<1>, Option<AdamWState<1>>) {
        if in_memory::holds(&weight) && in_memory::holds(&grad) {
            let momentum = state.map(|state| state.momentum);
            let time = 1 + momentum.as_ref().map_or(0, |momentum| momentum.time);
            let zeros = || Tensor::zeros(weight.dims(), &weight.device());
            let [first, second] = momentum.map_or_else(
                || [zeros(), zeros()],
                |momentum| [momentum.moment_1, momentum.moment_2],
            );
            let numbers = self.numbers(is_matrix, time as i32);
            let [updated, first, second] = in_memory::step(numbers, &grad, [weight, first, second]);
            let state = AdamWState::new(AdaptiveMomentumState::new(time, first, second));
            return (updated, Some(state));
        }
        let rule = if is_matrix {
            &self.optimizer.matrices
        } else {
            &self.optimizer.vectors
        };
        rule.step(
            self.learning_rate,
            weight,
            grad.mul_scalar(self.grad_factor),
            state,
        )
    }

    fn numbers(&self, is_matrix: bool, time: i32) -> Step {
        let decay = if is_matrix {
            self.optimizer.weight_decay
        } else {
            0.0
        };
        Step {
            grad_factor: self.grad_factor as f32,
            beta_1: BETAS[0],
            beta_2: BETAS[1],
            correction_1: 1.0 - BETAS[0].powi(time),
            correction_2: 1.0 - BETAS[1].powi(time),
            epsilon: EPSILON,
            keep: (1.0 - self.learning_rate * decay) as f32,
            rate: self.learning_rate as f32,
        }
    }
}

/// Euclidean norm of all gradients together.
pub(super) fn norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    let mut visitor = NormVisitor {
        grads,
        in_memory: 0.0,
        sums_of_squares: Scalars::default(),
    };
    module.visit(&mut visitor);
    let sums = visitor.sums_of_squares.read();
    let elsewhere: f64 = sums.into_iter().map(f64::from).sum();
    (visitor.in_memory + elsewhere).sqrt()
}

struct NormVisitor<'a> {
    grads: &'a GradientsParams,
    /// Of gradients in this process's memory.
    in_memory: f64,
    /// Of those on a device.
    sums_of_squares: Scalars,
}

impl ModuleVisitor for NormVisitor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            let len = grad.dims().iter().product::<usize>();
            let grad = grad.reshape([len]);
            if in_memory::holds(&grad) {
                self.in_memory += in_memory::sum_of_squares(&grad);
            } else {
                self.sums_of_squares.push(grad.square().sum());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_in_memory_is_that_of_burn() {
        let device = Device::flex();
        let wave = |step: f32| {
            let values: Vec<f32> = (0..1000).map(|i| (i as f32 * step).sin()).collect();
            Tensor::<1>::from_data(TensorData::new(values, [1000]), &device)
        };
        let mut optimizer = Optimizer::new(0.3);
        let mut grads = GradientsParams::new();
        let updater = Updater {
            path: Vec::new(),
            optimizer: &mut optimizer,
            learning_rate: 0.01,
            grads: &mut grads,
            grad_factor: 0.5,
        };
        for is_matrix in [true, false] {
            let rule = if is_matrix {
                &updater.optimizer.matrices
            } else {
                &updater.optimizer.vectors
            };
            let (mut ours, mut burns) = ((wave(0.7), None), (wave(0.7), None));
            for step in [0.3, 1.1, 0.9] {
                ours = updater.step(is_matrix, (ours.0, wave(step)), ours.1);
                burns = rule.step(0.01, burns.0, wave(step).mul_scalar(0.5), burns.1);
            }
            let (ours_state, burns_state) = (ours.1.unwrap().momentum, burns.1.unwrap().momentum);
            assert_eq!(ours_state.time, burns_state.time);
            for (got, expected) in [
                (ours.0, burns.0),
                (ours_state.moment_1, burns_state.moment_1),
                (ours_state.moment_2, burns_state.moment_2),
            ] {
                let worst = (got - expected).abs().max().into_scalar::<f32>();
                assert!(worst < 1e-6, "{worst}");
            }
        }
    }
}
