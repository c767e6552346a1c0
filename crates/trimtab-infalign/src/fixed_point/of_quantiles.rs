//! The best-of-N fixed point with the policy's own quantile as the variable. Knows weights on quantiles, no transform.
//!
//! With `q = F(u)` the equation `(log f)' = g(F(u)) g(u) / beta` reads `df/dq = g(q) g(u(q)) / beta`, so that
//! `f(q) = f(0) + int_0^q g g(u) / beta` and `u(q) = int_0^q 1 / f` (derived here). Everything is positive, nothing is an
//! exponential, and the steep part, which is about beta wide in `u`, is `1/N` wide in `q`. What is iterated is
//! `1 - u(q)`, to which `g(u)` is blunt where it is small; `f(0)` follows from `u(1) = 1`.

use super::Anderson;
use crate::panels::Panels;
use crate::procedure::PreparedProcedure;

/// Iterations until what was found is taken as it is: the residual of the equation in `u` judges it.
const MAX_ITERATIONS: usize = 200;
/// Change of `1 - u(q)` at which it is found.
const TOLERANCE: f64 = 1e-15;
/// Newton's steps for a number.
const MAX_STEPS: usize = 200;

/// `log f` of the fixed point at `points`, values of `u`; `panels` are of `q`.
pub(super) fn log_densities(
    panels: &Panels,
    procedure: &PreparedProcedure,
    beta: f64,
    points: &[f64],
) -> Vec<f64> {
    let equation = OfQuantiles::new(panels, procedure, beta);
    let reference = equation.levels.iter().map(|q| 1.0 - q).collect();
    let mut solver = Anderson::new(reference);
    let mut least_density = 1.0;
    while solver.num_iterations() < MAX_ITERATIONS && !solver.is_done(TOLERANCE) {
        let densities = equation.densities(solver.values(), &mut least_density);
        solver.take(&equation.above(&densities));
    }
    let densities = equation.densities(&solver.into_best(), &mut least_density);
    equation.log_densities_at(&densities, points)
}

struct OfQuantiles<'a> {
    panels: &'a Panels,
    procedure: &'a PreparedProcedure,
    /// `q` at the points of the panels.
    levels: Vec<f64>,
    /// `g(q) / beta` there.
    weights: Vec<f64>,
}

impl<'a> OfQuantiles<'a> {
    fn new(panels: &'a Panels, procedure: &'a PreparedProcedure, beta: f64) -> Self {
        let levels = panels.points();
        let weights = levels.iter().map(|&q| procedure.weight(q) / beta).collect();
        Self {
            panels,
            procedure,
            levels,
            weights,
        }
    }

    /// `f` at all points, given `1 - u` there; `least` is `f(0)`, on entry a guess.
    fn densities(&self, above: &[f64], least: &mut f64) -> Vec<f64> {
        let slopes: Vec<f64> = above
            .iter()
            .zip(&self.weights)
            .map(|(above, weight)| weight * self.procedure.weight((1.0 - above).clamp(0.0, 1.0)))
            .collect();
        let rises = self.panels.cumulative(&slopes);
        for _ in 0..MAX_STEPS {
            let inverse: Vec<f64> = rises.iter().map(|rise| 1.0 / (*least + rise)).collect();
            let squares: Vec<f64> = inverse.iter().map(|inverse| inverse * inverse).collect();
            // u(1) falls in f(0) and is convex, so that from below Newton's steps never pass the root.
            let step = (self.panels.integral(&inverse) - 1.0) / self.panels.integral(&squares);
            let next = if step > -*least {
                *least + step
            } else {
                0.5 * *least
            };
            let is_found = (next - *least).abs() <= f64::EPSILON * *least;
            *least = next;
            if is_found {
                break;
            }
        }
        rises.iter().map(|rise| *least + rise).collect()
    }

    /// `1 - u` at all points.
    fn above(&self, densities: &[f64]) -> Vec<f64> {
        self.panels.remaining(&inverses(densities))
    }

    /// `log f` where `u` is each of `points`, which rise.
    fn log_densities_at(&self, densities: &[f64], points: &[f64]) -> Vec<f64> {
        let (below, above) = (
            self.panels.cumulative(&inverses(densities)),
            self.above(densities),
        );
        let log_density = |&u: &f64| {
            let next = if u < 0.5 {
                below.partition_point(|&below| below < u)
            } else {
                above.partition_point(|&above| above > 1.0 - u)
            };
            let (from, to) = self.panels.around(next);
            // How much is missing at q, from the end where it is told most exactly.
            let missing = |q: f64| {
                if u < 0.5 {
                    u - self.panels.at(&below, q)
                } else {
                    self.panels.at(&above, q) - (1.0 - u)
                }
            };
            let mut q = from;
            let mut density = self.panels.at(densities, q);
            // u is concave in q, so that from the left Newton's steps do not pass the root.
            for _ in 0..MAX_STEPS {
                let next = (q + missing(q) * density).clamp(from, to);
                let is_found = next <= q;
                q = next.max(q);
                density = self.panels.at(densities, q);
                if is_found {
                    break;
                }
            }
            density.ln()
        };
        points.iter().map(log_density).collect()
    }
}

fn inverses(densities: &[f64]) -> Vec<f64> {
    densities.iter().map(|density| density.recip()).collect()
}
