//! A module's weights by path, and back. Knows no module.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

/// Float weights by their path in the module, e.g. `state.trunk.weight`.
pub fn params_of<M: Module>(module: &M) -> BTreeMap<String, TensorData> {
    let mut collector = Collector::default();
    module.visit(&mut collector);
    collector.params
}

/// Puts `params` into `module`.
///
/// # Errors
/// The first weight that is missing or has another shape, in words; `module` is then lost.
pub fn load_params<M: Module>(module: M, params: &BTreeMap<String, TensorData>) -> Result<M, String> {
    let mut loader = Loader {
        path: Vec::new(),
        params,
        problem: None,
    };
    let module = module.map(&mut loader);
    match loader.problem {
        None => Ok(module),
        Some(problem) => Err(problem),
    }
}

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    params: BTreeMap<String, TensorData>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.params.insert(self.path.join("."), param.val().into_data());
    }
}

struct Loader<'a> {
    path: Vec<String>,
    params: &'a BTreeMap<String, TensorData>,
    problem: Option<String>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        param.map(|tensor| match self.params.get(&path) {
            Some(data) if data.shape().as_slice() == tensor.dims().as_slice() => {
                let is_trained = tensor.is_require_grad();
                Tensor::from_data(data.clone(), &tensor.device()).set_require_grad(is_trained)
            }
            Some(data) => {
                let (got, expected) = (data.shape(), tensor.dims());
                self.problem = Some(format!("{path} has shape {got:?}, expected {expected:?}"));
                tensor
            }
            None => {
                self.problem = Some(format!("{path} is missing"));
                tensor
            }
        })
    }
}
