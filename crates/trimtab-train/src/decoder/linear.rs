//! A linear layer: its matrix, its bias, its low-rank adapter. Knows no role in a decoder.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::fused;
use super::weight::Weight;

/// A low-rank addition to a frozen matrix (`LoRA`, arXiv 2106.09685, sec. 4.1): `W + scale * A B`, in rows.
#[derive(Module, Debug)]
pub struct Adapter {
    /// `[in, rank]`, drawn from a normal law.
    pub(super) down: Param<Tensor<2>>,
    /// `[rank, out]`, zero at the start, so that training begins at the base.
    pub(super) up: Param<Tensor<2>>,
    /// `alpha / rank`.
    pub(super) scale: f64,
}

impl Adapter {
    /// An adapter that begins with these two matrices.
    pub fn new(down: Tensor<2>, up: Tensor<2>, scale: f64) -> Self {
        Self {
            down: Param::from_tensor(down),
            up: Param::from_tensor(up),
            scale,
        }
    }

    /// What the adapter adds to the matrix. `[in, out]`
    pub fn delta(&self) -> Tensor<2> {
        self.down.val().matmul(self.up.val()) * self.scale
    }
}

/// `y = x W + b`, for rows `x`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[in, out]`: the transpose of what files hold, so that its gradient `x^T dy` comes out in its own order.
    pub(super) matrix: Weight<2>,
    /// `[out]`
    pub(super) bias: Option<Weight<1>>,
    pub(super) adapter: Option<Adapter>,
}

impl Linear {
    /// `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let adapter = self.adapter.as_ref();
        let adapter = adapter.map(|adapter| (adapter.down.val(), adapter.up.val(), adapter.scale));
        match fused::linear(&rows, &self.matrix.value(), adapter) {
            Some(out) => self.add_bias(out),
            None => self.forward_in_tensors(rows),
        }
    }

    /// [`Self::forward`] on any device.
    pub(super) fn forward_in_tensors(&self, rows: Tensor<2>) -> Tensor<2> {
        let low_rank = self
            .adapter
            .as_ref()
            .map(|adapter| rows.clone().matmul(adapter.down.val()).matmul(adapter.up.val()) * adapter.scale);
        let mut out = rows.matmul(self.matrix.value()); // [rows, out]
        if let Some(low_rank) = low_rank {
            out = out + low_rank;
        }
        self.add_bias(out)
    }

    fn add_bias(&self, out: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            Some(bias) => out + bias.value().unsqueeze(),
            None => out,
        }
    }

    /// The matrix with its adapter merged in. `[in, out]`
    pub fn merged(&self) -> Tensor<2> {
        let matrix = self.matrix.value();
        match &self.adapter {
            Some(adapter) => matrix + adapter.delta(),
            None => matrix,
        }
    }

    /// Whether anything in it is trained.
    pub fn is_trained(&self) -> bool {
        self.adapter.is_some() || self.matrix.is_trained()
    }
}
