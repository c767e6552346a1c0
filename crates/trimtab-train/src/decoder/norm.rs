//! Root-mean-square normalisation of the last axis. Knows no place in a decoder.

use burn::module::Module;
use burn::tensor::Tensor;

use super::fused;
use super::weight::Weight;

/// `x / sqrt(mean(x^2) + eps) * weight`.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[len]`, as the engine uses it: Gemma's stored offset has been added.
    pub(super) weight: Weight<1>,
    pub(super) eps: f64,
}

impl RmsNorm {
    /// Normalises the last axis, which has the weight's length.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match fused::rms_norm(&x, &self.weight.value(), self.eps) {
            Some(normed) => normed,
            None => self.forward_in_tensors(x),
        }
    }

    /// [`Self::forward`] on any device.
    pub(super) fn forward_in_tensors<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let rms = (x.clone().square().mean_dim(D - 1) + self.eps).sqrt(); // [.., 1]
        x / rms * self.weight.value().unsqueeze()
    }
}
