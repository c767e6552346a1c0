//! `AdamW` over a module, its state by path so that it can be stored and found again. Knows no loss.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, GradientsParams, Optimizer as _};
use burn::tensor::{Device, Tensor, TensorData};

use super::scalars::Scalars;

/// Names of the two moments in a checkpoint.
const MOMENTS: [&str; 2] = ["first", "second"];

/// `AdamW` (Loshchilov & Hutter, arXiv 1711.05101) with decay on matrices only; a decayed bias would pull values to 0.
///
/// The arithmetic is burn's. Its own module optimiser is not used because that keys its state by random ids, which a
/// resumed process does not have, and clips each weight by itself instead of the whole gradient.
pub struct Optimizer {
    matrices: AdamW,
    vectors: AdamW,
    states: BTreeMap<String, AdamWState<1>>,
}

impl Optimizer {
    /// An optimiser without state.
    pub fn new(weight_decay: f64) -> Self {
        let config = AdamWConfig::new().with_epsilon(1e-8);
        Self {
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
        let optimizer = &mut *self.optimizer;
        let rule = if D >= 2 {
            &optimizer.matrices
        } else {
            &optimizer.vectors
        };
        param.map(|tensor| {
            // AdamW is elementwise, so every weight goes through it as a vector.
            let (shape, len) = (tensor.dims(), tensor.dims().iter().product::<usize>());
            let grad = grad.reshape([len]).mul_scalar(self.grad_factor);
            let state = optimizer.states.remove(&path);
            let (updated, state) = rule.step(self.learning_rate, tensor.inner().reshape([len]), grad, state);
            optimizer.states.extend(state.map(|state| (path.clone(), state)));
            Tensor::from_inner(updated.reshape(shape)).require_grad()
        })
    }
}

/// Euclidean norm of all gradients together.
pub(super) fn norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    let mut visitor = NormVisitor {
        grads,
        sums_of_squares: Scalars::default(),
    };
    module.visit(&mut visitor);
    let sums = visitor.sums_of_squares.read();
    sums.into_iter().map(f64::from).sum::<f64>().sqrt()
}

struct NormVisitor<'a> {
    grads: &'a GradientsParams,
    sums_of_squares: Scalars,
}

impl ModuleVisitor for NormVisitor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.sums_of_squares.push(grad.square().sum());
        }
    }
}
