//! Fixed points: transforms that are the gradient of the win rate at the policy they lead to (InfAlign B3, B5). Knows
//! procedures, no reward.
//!
//! The win rate's first variation at a policy with distribution function `F` is
//! `Phi(u) = -int_u^1 g(F(v)) g(v) dv`, up to a constant; for best-of-N `-N^2 int_u^1 F^(N-1) v^(N-1) dv`. The policy
//! that is optimal for it is another one, `exp(Phi / beta) / Z`, and so on. For worst-of-N that iteration settles, with
//! Anderson's acceleration. For best-of-N it swings at small betas; there the policy's own quantiles are the better variable
//! (`of_quantiles`), and the iteration only polishes.
//!
//! `Phi / beta` may span a hundred orders of magnitude. Where it is beyond a nat below the top only its relative error
//! matters, since the density there is next to nothing; so `Phi` is integrated from the top, where it is small, and its
//! changes are counted so.

mod anderson;
mod of_quantiles;

use serde::Serialize;

pub(crate) use self::anderson::Anderson;
use crate::error::InfalignError;
use crate::panels::{Panels, unresolved};
use crate::procedure::{PreparedProcedure, Procedure};

/// Panels of fixed points: halving down to 2^-40 at both ends, 24 between, more for many candidates, whose powers are steep:
/// those of worst-of-N more so, since its log-density is one of them.
const DEPTH: u32 = 40;
const NUM_INNER: u32 = 24;
const BEST_OF_PER_PART: u32 = 16;
const WORST_OF_PER_PART: u32 = 8;
/// Iterations until a fixed point is given up, and until a polished one is as good as it gets.
const MAX_ITERATIONS: usize = 500;
const MAX_POLISHINGS: usize = 30;
/// A fixed point is found when one more application changes `Phi / beta`, a log-density, by no more than this.
const TOLERANCE_NATS: f64 = 1e-10;
/// A fixed point that does not come nearer is good enough at this change.
const ENOUGH_NATS: f64 = 1e-7;

/// A best-of-N policy falls by a nat within `beta / N^2` of the top; nearer to the rounding of quantiles, it is noise.
const MIN_WIDTH_OF_BEST: f64 = 1e-11;

/// How well a fixed point satisfies its equation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Certificate {
    /// Iterations made.
    pub num_iterations: usize,
    /// Greatest change of the log-density by one more application of the equation, in nats; relative where the density is
    /// more than a nat below its greatest.
    pub residual_nats: f64,
    /// `beta KL(f || f')` with `f'` the policy after one more application, in units of win rate. For best-of-N, where the
    /// problem is concave, no policy at all has an objective `W - beta KL` greater by more than this (derived here). For
    /// worst-of-N it says that the policy is stationary, no more.
    pub gap: f64,
    /// Greatest part of a panel's values that its polynomial truncates, in nats, relative as the residual is.
    pub truncation_nats: f64,
}

/// A solved fixed point, `Phi` with `Phi(1) = 0`.
#[derive(Debug, Clone)]
pub(crate) struct FixedPoint {
    panels: Panels,
    /// `Phi` at the points of the panels.
    values: Vec<f64>,
    certificate: Certificate,
}

impl FixedPoint {
    /// Solves for best-of-N or worst-of-N; `start` is the solution at a neighbouring beta.
    ///
    /// # Errors
    /// [`InfalignError::NotConverged`].
    pub(crate) fn solve(choice: Choice, beta: f64, start: Option<&Self>) -> Result<Self, InfalignError> {
        let equation = Equation::new(choice, beta);
        let first = match (choice, start) {
            (Choice::BestOf(_), _) => equation.of_quantiles(),
            (Choice::WorstOf(_), Some(start)) => start.values.clone(),
            // The limit of small KL, where F(u) = u.
            (Choice::WorstOf(_), None) => equation.variation_at(&equation.points),
        };
        let most = match choice {
            Choice::BestOf(_) => MAX_POLISHINGS,
            Choice::WorstOf(_) => MAX_ITERATIONS,
        };
        let mut solver = Anderson::counting_in(first, beta);
        while solver.num_iterations() < most && !solver.is_done(TOLERANCE_NATS) {
            let image = equation.apply(solver.values());
            solver.take(&image);
        }
        let residual_nats = solver.least_residual();
        let is_noise = match choice {
            Choice::BestOf(n) => beta < MIN_WIDTH_OF_BEST * f64::from(n).powi(2),
            Choice::WorstOf(_) => false,
        };
        if residual_nats <= ENOUGH_NATS && !is_noise {
            return Ok(equation.certified(solver));
        }
        Err(InfalignError::NotConverged {
            procedure: choice.procedure().to_string(),
            beta,
            num_iterations: solver.num_iterations(),
            residual_nats,
        })
    }

    /// `Phi(u)`, not positive.
    pub(crate) fn value(&self, u: f64) -> f64 {
        self.panels.at(&self.values, u)
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// Of which number of draws which is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The best.
    BestOf(u32),
    /// The worst.
    WorstOf(u32),
}

impl Choice {
    fn procedure(self) -> Procedure {
        match self {
            Self::BestOf(n) => Procedure::BestOf { n },
            Self::WorstOf(n) => Procedure::WorstOf { n },
        }
    }
}

/// The equation on the points of panels.
struct Equation {
    panels: Panels,
    points: Vec<f64>,
    procedure: PreparedProcedure,
    /// `g` at the points.
    reference_weights: Vec<f64>,
    beta: f64,
}

impl Equation {
    fn new(choice: Choice, beta: f64) -> Self {
        let procedure = choice.procedure().prepare().expect("neither has a table");
        let num_parts = match choice {
            Choice::BestOf(n) => n.div_ceil(BEST_OF_PER_PART),
            Choice::WorstOf(n) => n.div_ceil(WORST_OF_PER_PART),
        };
        let panels = Panels::graded(DEPTH, NUM_INNER, num_parts);
        let points = panels.points();
        let reference_weights = points.iter().map(|&u| procedure.weight(u)).collect();
        Self {
            panels,
            points,
            procedure,
            reference_weights,
            beta,
        }
    }

    /// One application: the policy of a transform, and the first variation there.
    fn apply(&self, values: &[f64]) -> Vec<f64> {
        self.variation_at(&self.distribution(values).0)
    }

    /// `F` of the policy of a transform, at all points, and the log of its normaliser.
    fn distribution(&self, values: &[f64]) -> (Vec<f64>, f64) {
        let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = values
            .iter()
            .map(|value| ((value - greatest) / self.beta).exp())
            .collect();
        let mut cumulative = self.panels.cumulative(&weights);
        let total = cumulative[cumulative.len() - 1];
        for entry in &mut cumulative {
            *entry = (*entry / total).clamp(0.0, 1.0);
        }
        (cumulative, total.ln() + greatest / self.beta)
    }

    /// `-int_u^1 g(F(v)) g(v) dv` at all points.
    fn variation_at(&self, distribution: &[f64]) -> Vec<f64> {
        let integrand: Vec<f64> = distribution
            .iter()
            .zip(&self.reference_weights)
            .map(|(&q, weight)| self.procedure.weight(q) * weight)
            .collect();
        let mut variation = self.panels.remaining(&integrand);
        for entry in &mut variation {
            *entry = -*entry;
        }
        variation
    }

    /// The fixed point by its quantiles, as values of `Phi`.
    fn of_quantiles(&self) -> Vec<f64> {
        let log_densities =
            of_quantiles::log_densities(&self.panels, &self.procedure, self.beta, &self.points);
        let top = log_densities[log_densities.len() - 1];
        log_densities
            .iter()
            .map(|log_density| self.beta * (log_density - top))
            .collect()
    }

    fn certified(self, solver: Anderson) -> FixedPoint {
        let num_iterations = solver.num_iterations();
        let values = solver.into_best();
        let image = self.apply(&values);
        let (_, log_total) = self.distribution(&values);
        let (_, log_total_of_image) = self.distribution(&image);
        // KL(f || f') = int f ((Phi - Phi') / beta - log Z + log Z').
        let terms: Vec<f64> = values
            .iter()
            .zip(&image)
            .map(|(value, image)| {
                let density = (value / self.beta - log_total).exp();
                // Where there is no density, the log-density may be beyond floats.
                if density == 0.0 {
                    return 0.0;
                }
                density * ((value - image) / self.beta - log_total + log_total_of_image)
            })
            .collect();
        let integrals = self.panels.cumulative(&terms);
        let changes = values
            .iter()
            .zip(&image)
            .map(|(value, image)| (value - image).abs() / value.abs().max(self.beta));
        let certificate = Certificate {
            num_iterations,
            residual_nats: changes.fold(0.0, f64::max),
            gap: self.beta * integrals[integrals.len() - 1].max(0.0),
            truncation_nats: unresolved(&values, self.beta),
        };
        FixedPoint {
            panels: self.panels,
            values,
            certificate,
        }
    }
}

#[cfg(test)]
mod tests;
