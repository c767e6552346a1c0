//! The policy of the idealised continuous model: a density over the reference's quantiles (InfAlign B5). Knows one
//! transform and one beta, no procedure.

use crate::error::InfalignError;
use crate::integral::{edges_with, integrate};
use crate::panels::Panels;
use crate::transform::PreparedTransform;

/// Mass, relative to the whole, that one panel may truncate.
const PANEL_TOLERANCE: f64 = 1e-15;
/// Panels before halving; more than one, so that no period of a function can hide from the points of all.
const NUM_FIRST_PANELS: u32 = 8;
const MAX_QUANTILE_STEPS: usize = 200;
/// Error of `F` at which a quantile is found.
const QUANTILE_TOLERANCE: f64 = 1e-14;

/// `f(u) = exp(Phi(u) / beta) / Z` on `[0, 1]` with its distribution function `F`: the law of the reference's quantile of
/// a response that the policy draws, where the reference's own is uniform.
#[derive(Debug, Clone)]
pub struct Density {
    prepared: PreparedTransform,
    beta: f64,
    panels: Panels,
    /// Integrals of `exp((Phi(u) - Phi(1)) / beta)` up to each point.
    cumulative: Vec<f64>,
}

impl Density {
    /// The policy that is optimal for the transform's KL-regularised objective.
    ///
    /// # Errors
    /// [`InfalignError::OutOfRange`] for a beta that is not positive and finite.
    pub fn try_new(prepared: PreparedTransform, beta: f64) -> Result<Self, InfalignError> {
        if !(beta.is_finite() && beta > 0.0) {
            return Err(InfalignError::OutOfRange {
                what: "beta",
                value: beta,
                expected: "a positive number",
            });
        }
        // Transforms do not fall, so the greatest weight is 1, at the right end, and nothing overflows.
        let weight = |u: f64| (prepared.below_top(u) / beta).exp();
        let first: Vec<f64> = (0..=NUM_FIRST_PANELS)
            .map(|idx| f64::from(idx) / f64::from(NUM_FIRST_PANELS))
            .collect();
        let edges = edges_with(&first, prepared.corners().iter().copied());
        let panels = Panels::resolving(&weight, &edges, PANEL_TOLERANCE * least_total(&weight));
        let weights: Vec<f64> = panels.points().into_iter().map(weight).collect();
        let cumulative = panels.cumulative(&weights);
        Ok(Self {
            prepared,
            beta,
            panels,
            cumulative,
        })
    }

    /// `log f(u)` in nats: how much likelier than under the reference a response of quantile `u` is.
    pub fn log_density(&self, u: f64) -> f64 {
        self.prepared.below_top(u) / self.beta - self.total().ln()
    }

    /// `f(u)`.
    pub fn density(&self, u: f64) -> f64 {
        self.log_density(u).exp()
    }

    /// `F(u)`, the policy's probability of a response of quantile up to `u`.
    pub fn cumulative(&self, u: f64) -> f64 {
        (self.panels.at(&self.cumulative, u.clamp(0.0, 1.0)) / self.total()).clamp(0.0, 1.0)
    }

    /// The `u` with `F(u) = q`.
    pub fn quantile(&self, q: f64) -> f64 {
        let target = q * self.total();
        let point = self.cumulative.partition_point(|&cumulative| cumulative < target);
        let (mut lo, mut hi) = self.panels.around(point);
        let below = |u: f64| self.panels.at(&self.cumulative, u) - target;
        let (mut at_lo, mut at_hi) = (below(lo), below(hi));
        let mut last_side = 0;
        // Regula falsi between neighbouring points, where an end that stays loses half its weight (Illinois).
        for _ in 0..MAX_QUANTILE_STEPS {
            if at_lo >= 0.0 || hi - lo <= f64::EPSILON * hi {
                return lo;
            }
            if at_hi <= 0.0 {
                return hi;
            }
            let share = at_lo / (at_lo - at_hi);
            let middle = lo + share.clamp(1e-3, 1.0 - 1e-3) * (hi - lo);
            let at_middle = below(middle);
            if at_middle.abs() <= QUANTILE_TOLERANCE * self.total() {
                return middle;
            }
            let side = if at_middle < 0.0 { -1 } else { 1 };
            if side < 0 {
                at_hi *= if last_side == side { 0.5 } else { 1.0 };
                (lo, at_lo) = (middle, at_middle);
            } else {
                at_lo *= if last_side == side { 0.5 } else { 1.0 };
                (hi, at_hi) = (middle, at_middle);
            }
            last_side = side;
        }
        f64::midpoint(lo, hi)
    }

    /// `KL(policy || reference) = int f log f` in nats (InfAlign B5), and the error that quadrature estimates.
    ///
    /// Integrated as `f log f - f + 1`, which is nowhere negative, so that small divergences keep their digits.
    pub fn kl_nats(&self) -> (f64, f64) {
        let integrand = |u: f64| {
            let log_density = self.log_density(u);
            let density = log_density.exp();
            if density == 0.0 {
                1.0
            } else {
                density * log_density - density + 1.0
            }
        };
        let integral = integrate(integrand, self.panels.edges());
        (integral.value.max(0.0), integral.error)
    }

    /// The beta of the policy.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// The transform of the policy.
    pub fn prepared(&self) -> &PreparedTransform {
        &self.prepared
    }

    /// Edges of panels on which density and distribution function are smooth.
    pub(crate) fn edges(&self) -> &[f64] {
        self.panels.edges()
    }

    /// `Z exp(-Phi(1) / beta)`.
    fn total(&self) -> f64 {
        self.cumulative[self.cumulative.len() - 1]
    }
}

/// A lower bound on the integral of a rising function, within a factor of about 4: the greatest rectangle below it.
fn least_total(weight: &impl Fn(f64) -> f64) -> f64 {
    (0..=60)
        .map(|power| {
            let width = 0.5_f64.powi(power);
            width * weight(1.0 - width)
        })
        .fold(f64::MIN_POSITIVE, f64::max)
}

#[cfg(test)]
mod tests;
