//! Integrals over `[0, 1]`: a library's adaptive rule on each panel of a mesh. Knows functions, not what they mean.

use quadrature::double_exponential;

/// Absolute error aimed at on each panel.
const TARGET_ERROR: f64 = 1e-13;

/// An integral with what the rule says of its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Integral {
    pub(crate) value: f64,
    /// Sum of the panels' error estimates.
    pub(crate) error: f64,
}

/// `int f` from the first to the last of `edges`, which rise; `f` is smooth between any two neighbours.
pub(crate) fn integrate(f: impl Fn(f64) -> f64, edges: &[f64]) -> Integral {
    let mut integral = Integral {
        value: 0.0,
        error: 0.0,
    };
    for ends in edges.windows(2) {
        let panel = double_exponential::integrate(&f, ends[0], ends[1], TARGET_ERROR);
        integral.value += panel.integral;
        integral.error += panel.error_estimate;
    }
    integral
}

/// Edges with further ones inside; ascending, each once.
pub(crate) fn edges_with(edges: &[f64], further: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let (first, last) = (edges[0], edges[edges.len() - 1]);
    let mut all = edges.to_vec();
    all.extend(further.into_iter().filter(|&edge| first < edge && edge < last));
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrals_are_those_of_closed_forms() {
        let check = |f: &dyn Fn(f64) -> f64, edges: &[f64], expect: f64| {
            let integral = integrate(f, edges);
            assert!(
                (integral.value - expect).abs() < 1e-12,
                "{integral:?}, expected {expect}"
            );
            assert!(integral.error < 1e-9, "{integral:?}");
        };
        check(&|u| u * u, &[0.0, 1.0], 1.0 / 3.0);
        check(&|u| u.sqrt(), &[0.0, 0.5, 1.0], 2.0 / 3.0);
        check(
            &|u| (-50.0 * u).exp(),
            &[0.0, 1.0],
            (1.0 - (-50.0_f64).exp()) / 50.0,
        );
        check(&|u| f64::from(u > 0.3), &edges_with(&[0.0, 1.0], [0.3, 2.0]), 0.7);
    }

    #[test]
    fn edges_are_merged_in_order() {
        assert_eq!(
            edges_with(&[0.0, 0.5, 1.0], [0.7, 0.5, -1.0, 1.0]),
            [0.0, 0.5, 0.7, 1.0]
        );
    }
}
