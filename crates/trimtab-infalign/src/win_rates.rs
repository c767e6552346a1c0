//! Win rates and divergences of the idealised continuous model (InfAlign B5), and the beta that gives a divergence.
//! Knows transforms and procedures; searches nothing.

use serde::Serialize;

use crate::density::Density;
use crate::error::InfalignError;
use crate::fixed_point::Certificate;
use crate::integral::{edges_with, integrate};
use crate::procedure::{PreparedProcedure, Procedure};
use crate::transform::{PreparedTransform, Transform};

/// Divergences that can be asked for, in nats: beyond, a policy lives on fewer quantiles than floats tell apart.
pub const KL_RANGE_NATS: (f64, f64) = (1e-9, 16.0);
/// Betas that are tried.
const BETA_RANGE: (f64, f64) = (1e-290, 1e12);
/// Relative error of the KL that a solved beta has.
const KL_TOLERANCE: f64 = 1e-10;
/// The same where a fixed point's own error lets it come no nearer.
const ENOUGH: f64 = 1e-7;
/// A KL this near, relatively, was reached but for the errors of what was solved.
const NEXT_TO: f64 = 1e-2;
const MAX_STEPS: usize = 200;
/// Least step of `log beta` towards a fixed point that may be beyond reach.
const MIN_STRIDE: f64 = 0.05;

/// A win rate, with the error that quadrature estimates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WinRate {
    /// In `[0, 1]`.
    pub win_rate: f64,
    /// Estimated absolute error.
    pub error: f64,
}

/// What a policy is worth under a procedure: a line of `trimtab analyze infalign`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// The procedure, as users write it.
    pub procedure: String,
    /// The transform that the policy was trained on.
    pub transform: Transform,
    /// `KL(policy || reference)`, before the procedure.
    pub kl_nats: f64,
    /// KL weight, in units of the transform.
    pub beta: f64,
    /// Inference-time win rate: the procedure applied to policy and reference.
    pub win_rate: f64,
    /// Win rate of one draw against one draw.
    pub standard_win_rate: f64,
    /// Of a transform that is a fixed point: how well it satisfies its equation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// `W^T(policy > reference)`: how often the procedure on the policy beats the procedure on the reference (InfAlign B2).
///
/// `1 - int_0^1 G(F(u)) g(u) du` with the procedure's `g` and `G`. For best-of-N it is `1 - N int F^N u^(N-1)`, for
/// worst-of-N `N int (1-F)^N (1-u)^(N-1)`, for one draw `1 - int F` (B5). Derived here for any `g`.
pub fn inference_win_rate(policy: &Density, procedure: &PreparedProcedure) -> WinRate {
    let corners = procedure.corners();
    let of_policy = corners
        .iter()
        .filter(|&&corner| 0.0 < corner && corner < 1.0)
        .map(|&corner| policy.quantile(corner));
    let edges = edges_with(policy.edges(), corners.iter().copied().chain(of_policy));
    let lost = integrate(
        |u| procedure.cumulative(policy.cumulative(u)) * procedure.weight(u),
        &edges,
    );
    WinRate {
        win_rate: (1.0 - lost.value).clamp(0.0, 1.0),
        error: lost.error,
    }
}

/// Everything about one policy under one procedure.
///
/// # Errors
/// [`InfalignError::TableNotRead`] of the procedure.
pub fn analyze(policy: &Density, procedure: &Procedure) -> Result<Analysis, InfalignError> {
    let win_rate = inference_win_rate(policy, &procedure.prepare()?).win_rate;
    Ok(Analysis::with_win_rate(procedure.to_string(), policy, win_rate))
}

impl Analysis {
    /// Of a win rate that somebody else knows, e.g. by simulation.
    pub fn with_win_rate(procedure: String, policy: &Density, win_rate: f64) -> Self {
        let one_draw = Procedure::Sample.prepare().expect("it has no table");
        Self {
            procedure,
            transform: policy.prepared().transform().clone(),
            kl_nats: policy.kl_nats().0,
            beta: policy.beta(),
            win_rate,
            standard_win_rate: inference_win_rate(policy, &one_draw).win_rate,
            certificate: policy.prepared().certificate().copied(),
        }
    }
}

/// The policy at a beta.
///
/// # Errors
/// As [`Transform::prepare`].
pub fn policy_at_beta(transform: &Transform, beta: f64) -> Result<Density, InfalignError> {
    Density::try_new(transform.prepare(beta)?, beta)
}

/// The policy at a KL: solves for beta, in which the KL falls.
///
/// # Errors
/// [`InfalignError::OutOfRange`] for a KL outside [`KL_RANGE_NATS`], [`InfalignError::KlUnreachable`] where no beta has it
/// (a table that is flat at its top cannot move further than onto the flat part), and those of [`Transform::prepare`].
pub fn policy_at_kl(transform: &Transform, kl_nats: f64) -> Result<Density, InfalignError> {
    policy_at_kl_from(transform, kl_nats, None)
}

/// [`policy_at_kl`], starting from the policy at a neighbouring KL.
///
/// # Errors
/// As [`policy_at_kl`].
pub fn policy_at_kl_from(
    transform: &Transform,
    kl_nats: f64,
    neighbour: Option<&Density>,
) -> Result<Density, InfalignError> {
    if !(KL_RANGE_NATS.0..=KL_RANGE_NATS.1).contains(&kl_nats) {
        return Err(InfalignError::OutOfRange {
            what: "KL in nats",
            value: kl_nats,
            expected: "a number from 1e-9 to 16",
        });
    }
    let mut search = BetaSearch {
        transform,
        kl_nats,
        solved: neighbour.map(|policy| policy.prepared().clone()),
        nearest: None,
    };
    let (lo, hi) = search.bracket(neighbour.map_or(1.0, Density::beta))?;
    search.solve(lo, hi)
}

/// A beta that was tried: its logarithm, and that of its KL over the one asked for.
#[derive(Debug, Clone, Copy)]
struct Tried {
    log_beta: f64,
    log_ratio: f64,
}

/// The search for the beta of a KL.
struct BetaSearch<'a> {
    transform: &'a Transform,
    kl_nats: f64,
    /// The last transform that was solved, from which the next starts.
    solved: Option<PreparedTransform>,
    /// Nearest KL so far, with its policy.
    nearest: Option<(f64, Density)>,
}

impl BetaSearch<'_> {
    fn try_beta(&mut self, log_beta: f64) -> Result<Tried, InfalignError> {
        let beta = log_beta.exp();
        let prepared = self.transform.prepare_from(beta, self.solved.as_ref())?;
        let policy = Density::try_new(prepared.clone(), beta)?;
        let (kl_nats, _) = policy.kl_nats();
        self.solved = Some(prepared);
        // A KL that rounds to nothing is as far below the target as any.
        let log_ratio = (kl_nats.max(f64::MIN_POSITIVE) / self.kl_nats).ln();
        let is_nearer = |(nearest, _): &(f64, Density)| {
            log_ratio.abs() < (nearest.max(f64::MIN_POSITIVE) / self.kl_nats).ln().abs()
        };
        if self.nearest.as_ref().is_none_or(is_nearer) {
            self.nearest = Some((kl_nats, policy));
        }
        Ok(Tried { log_beta, log_ratio })
    }

    /// Two betas with the KL between theirs, the smaller beta (the greater KL) first.
    fn bracket(&mut self, first_beta: f64) -> Result<(Tried, Tried), InfalignError> {
        let first = self.try_beta(first_beta.ln())?;
        let step = if first.log_ratio > 0.0 { 1.0 } else { -1.0 };
        let (mut previous, mut stride) = (first, 0.5);
        for _ in 0..MAX_STEPS {
            let log_beta = previous.log_beta + step * stride;
            if !(BETA_RANGE.0.ln()..=BETA_RANGE.1.ln()).contains(&log_beta) {
                break;
            }
            let tried = match self.try_beta(log_beta) {
                Ok(tried) => tried,
                // A fixed point beyond reach: the KL may still lie before it.
                Err(InfalignError::NotConverged { .. }) if stride > MIN_STRIDE => {
                    stride /= 4.0;
                    continue;
                }
                Err(InfalignError::NotConverged { .. }) => break,
                Err(error) => return Err(error),
            };
            if (tried.log_ratio > 0.0) != (first.log_ratio > 0.0) {
                let (lo, hi) = if step > 0.0 {
                    (previous, tried)
                } else {
                    (tried, previous)
                };
                return Ok((lo, hi));
            }
            previous = tried;
            stride *= 1.5;
        }
        Err(self.unreachable())
    }

    /// Regula falsi in logarithms, where an end that stays loses half its weight (Illinois).
    fn solve(mut self, mut lo: Tried, mut hi: Tried) -> Result<Density, InfalignError> {
        let mut last_side = 0;
        for _ in 0..MAX_STEPS {
            if let Some(policy) = self.within(KL_TOLERANCE.max(1e-14 / self.kl_nats)) {
                return Ok(policy);
            }
            if hi.log_beta - lo.log_beta <= 1e-14 * lo.log_beta.abs().max(1.0) {
                break;
            }
            let share = lo.log_ratio / (lo.log_ratio - hi.log_ratio);
            let log_beta = lo.log_beta + share.clamp(0.01, 0.99) * (hi.log_beta - lo.log_beta);
            let tried = self.try_beta(log_beta)?;
            let side = if tried.log_ratio > 0.0 { 1 } else { -1 };
            if side > 0 {
                hi.log_ratio *= if last_side == side { 0.5 } else { 1.0 };
                lo = tried;
            } else {
                lo.log_ratio *= if last_side == side { 0.5 } else { 1.0 };
                hi = tried;
            }
            last_side = side;
        }
        self.within(ENOUGH).ok_or_else(|| self.unreachable())
    }

    /// The nearest policy, if its KL is this near, relatively.
    fn within(&mut self, tolerance: f64) -> Option<Density> {
        let target = self.kl_nats;
        let nearest = self
            .nearest
            .take_if(|(kl_nats, _)| (*kl_nats / target - 1.0).abs() <= tolerance);
        nearest.map(|(_, policy)| policy)
    }

    fn unreachable(&self) -> InfalignError {
        let (nearest_kl_nats, nearest_beta) = self
            .nearest
            .as_ref()
            .map_or((f64::NAN, f64::NAN), |(kl, policy)| (*kl, policy.beta()));
        InfalignError::KlUnreachable {
            transform: self.transform.to_string(),
            kl_nats: self.kl_nats,
            nearest_kl_nats,
            nearest_beta,
            remedy: if self.transform.depends_on_beta() {
                // Their KL is any number: what ends is the precision, and it does at small betas.
                let is_next_to = (nearest_kl_nats / self.kl_nats - 1.0).abs() <= NEXT_TO;
                if is_next_to {
                    "rounding hides which beta has it exactly; ask for a smaller KL"
                } else {
                    "its fixed point cannot be solved at the smaller betas that a greater KL needs; ask for a smaller KL"
                }
            } else if nearest_kl_nats < self.kl_nats {
                "ask for a smaller KL"
            } else {
                "ask for a greater KL"
            },
        }
    }
}

#[cfg(test)]
mod tests;
