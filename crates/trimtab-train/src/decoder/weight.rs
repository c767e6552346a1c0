//! A weight that is either part of the frozen base or trained. Knows no layer and no file.
//!
//! A frozen weight is a plain tensor, which burn's visitors skip: it has no gradient, no optimiser state and no place
//! in a checkpoint, not because a flag says so but because nothing that could hold one exists.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A weight of rank `D`.
#[derive(Module, Debug)]
pub enum Weight<const D: usize> {
    /// A constant.
    Frozen(Tensor<D>),
    /// A parameter.
    Trained(Param<Tensor<D>>),
}

impl<const D: usize> Weight<D> {
    /// A parameter with this initial value.
    pub fn trained(value: Tensor<D>) -> Self {
        Self::Trained(Param::from_tensor(value))
    }

    /// The value, on the tape if it is trained.
    pub fn value(&self) -> Tensor<D> {
        match self {
            Self::Frozen(value) => value.clone(),
            Self::Trained(param) => param.val(),
        }
    }

    /// Whether the optimiser may change it.
    pub fn is_trained(&self) -> bool {
        matches!(self, Self::Trained(_))
    }
}
