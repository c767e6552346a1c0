//! `x W + scale (x A) B`: products that add to one result, without what lies between.

use std::sync::Arc;

use burn::tensor::Tensor;
use trimtab_kernels::product::{Target, View, product};

use super::tape::{Function, Gradient, Output, Values, apply};

/// Rows times a matrix and, where there is one, times its adapter: `(down, up, scale)`. On the CPU.
///
/// `rows`: `[rows, in]`, `matrix`: `[in, out]`, `down`: `[in, rank]`, `up`: `[rank, out]`; result `[rows, out]`.
pub(in crate::decoder) fn linear(
    rows: &Tensor<2>,
    matrix: &Tensor<2>,
    adapter: Option<(Tensor<2>, Tensor<2>, f64)>,
) -> Option<Tensor<2>> {
    let (rows, matrix) = (rows.clone().into_dispatch(), matrix.clone().into_dispatch());
    let Some((down, up, scale)) = adapter else {
        return apply([rows, matrix], |[x, matrix]| {
            let mut values = vec![0.0; num_rows(&x) * matrix.row_len()];
            add_product(&mut values, (view(&x), view(&matrix)), 1.0, false);
            Output {
                values,
                shape: vec![num_rows(&x), matrix.row_len()],
                function: Plain { x, matrix },
            }
        });
    };
    let inputs = [rows, matrix, down.into_dispatch(), up.into_dispatch()];
    apply(inputs, |[x, matrix, down, up]| {
        let mut narrow = vec![0.0; num_rows(&x) * down.row_len()]; // [rows, rank]
        add_product(&mut narrow, (view(&x), view(&down)), 1.0, false);
        let mut values = vec![0.0; num_rows(&x) * matrix.row_len()];
        let narrow_view = View::rows(&narrow, down.row_len());
        add_product(&mut values, (narrow_view, view(&up)), scale as f32, false);
        add_product(&mut values, (view(&x), view(&matrix)), 1.0, true);
        Output {
            values,
            shape: vec![num_rows(&x), matrix.row_len()],
            function: Adapted {
                plain: Plain { x, matrix },
                down,
                up,
                scale: scale as f32,
                narrow: Arc::new(narrow),
            },
        }
    })
}

fn view(values: &Values) -> View<'_> {
    View::rows(values.as_slice(), values.row_len())
}

fn num_rows(values: &Values) -> usize {
    view(values).dims().0
}

/// `out (+)= factor * left * right`.
fn add_product(out: &mut [f32], (left, right): (View<'_>, View<'_>), factor: f32, adds: bool) {
    let target = Target {
        data: out,
        stride: right.dims().1,
        adds,
    };
    product(left, right, factor, target);
}

/// A product as a gradient.
fn gradient(left: View<'_>, right: View<'_>, factor: f32) -> Gradient {
    let shape = vec![left.dims().0, right.dims().1];
    let mut values = vec![0.0; shape[0] * shape[1]];
    add_product(&mut values, (left, right), factor, false);
    Gradient { values, shape }
}

#[derive(Debug, Clone)]
struct Plain {
    x: Values,
    matrix: Values,
}

impl Plain {
    /// `grad W^T`.
    fn by_x(&self, grad: View<'_>) -> Gradient {
        gradient(grad, view(&self.matrix).transposed(), 1.0)
    }

    /// `x^T grad`.
    fn by_matrix(&self, grad: View<'_>) -> Gradient {
        gradient(view(&self.x).transposed(), grad, 1.0)
    }
}

impl Function<2> for Plain {
    fn backward(self, grad: &[f32], [by_x, by_matrix]: [bool; 2]) -> [Option<Gradient>; 2] {
        let grad = View::rows(grad, self.matrix.row_len());
        [
            by_x.then(|| self.by_x(grad)),
            by_matrix.then(|| self.by_matrix(grad)),
        ]
    }
}

#[derive(Debug, Clone)]
struct Adapted {
    plain: Plain,
    down: Values,
    up: Values,
    scale: f32,
    /// `x A`. `[rows, rank]`
    narrow: Arc<Vec<f32>>,
}

impl Function<4> for Adapted {
    fn backward(self, grad: &[f32], wanted: [bool; 4]) -> [Option<Gradient>; 4] {
        let [by_x, by_matrix, by_down, by_up] = wanted;
        let grad = View::rows(grad, self.up.row_len());
        let by_narrow = gradient(grad, view(&self.up).transposed(), self.scale); // [rows, rank]
        let by_narrow = View::rows(&by_narrow.values, self.down.row_len());
        let by_x = by_x.then(|| {
            let mut by_x = self.plain.by_x(grad);
            let low_rank = (by_narrow, view(&self.down).transposed());
            add_product(&mut by_x.values, low_rank, 1.0, true);
            by_x
        });
        let narrow = View::rows(&self.narrow, self.down.row_len());
        [
            by_x,
            by_matrix.then(|| self.plain.by_matrix(grad)),
            by_down.then(|| gradient(view(&self.plain.x).transposed(), by_narrow, 1.0)),
            by_up.then(|| gradient(narrow.transposed(), grad, self.scale)),
        ]
    }
}
