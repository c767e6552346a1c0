//! Single numbers from a device, many at once. Knows not what they mean.
//!
//! Each read waits until the device has done all that it was told, which on a GPU costs more than the number.

use burn::tensor::{Tensor, Transaction};

/// Numbers that are computed and not read yet.
#[derive(Default)]
pub(super) struct Scalars(Vec<Tensor<1>>);

impl Scalars {
    /// Adds one. `[1]`
    pub(super) fn push(&mut self, scalar: Tensor<1>) {
        self.0.push(scalar);
    }

    /// All of them, in their order.
    pub(super) fn read(self) -> Vec<f32> {
        let register = |all: Transaction, scalar: Tensor<1>| all.register(scalar);
        let all = self.0.into_iter().fold(Transaction::default(), register);
        all.execute()
            .iter()
            .map(|data| data.iter::<f32>().next().expect("a scalar has one number"))
            .collect()
    }
}
