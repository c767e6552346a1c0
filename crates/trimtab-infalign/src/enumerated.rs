//! The same laws where responses can be enumerated: exact with ties, for small models and for tests of everything else.
//! Knows probabilities of reward classes, no response.
//!
//! A class is all responses of one reward; classes are in order of reward, smallest first. Procedures that choose by
//! reward break ties without a look at the response, so all their laws are laws of classes, and within a class policy
//! and reference are proportional.

use crate::error::InfalignError;
use crate::fixed_point::Anderson;
use crate::procedure::PreparedProcedure;

const MAX_ITERATIONS: usize = 2000;
/// A fixed point is found when one more application changes `R / beta` by no more than this.
const TOLERANCE_NATS: f64 = 1e-11;

/// Calibrated reward of each class: the reference's probability of less, and half of that of the same (InfAlign B4).
/// `[num_classes]`
pub fn calibrated_rewards(reference_probs: &[f64]) -> Vec<f64> {
    let mut below = 0.0;
    reference_probs
        .iter()
        .map(|prob| {
            below += prob;
            below - prob / 2.0
        })
        .collect()
}

/// `pi_ref exp(R / beta) / Z`: the optimum of `E[R] - beta KL(pi || pi_ref)` (InfAlign B2). `[num_classes]`
pub fn tilted(reference_probs: &[f64], rewards: &[f64], beta: f64) -> Vec<f64> {
    let greatest = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = reference_probs
        .iter()
        .zip(rewards)
        .map(|(prob, reward)| prob * ((reward - greatest) / beta).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// Probability of each class after the procedure: `G(P_c) - G(P_(c-1))`, `P` the cumulative probabilities.
/// `[num_classes]`
pub fn outcome_probs(probs: &[f64], procedure: &PreparedProcedure) -> Vec<f64> {
    let mut before = procedure.cumulative(0.0);
    cumulative(probs)
        .into_iter()
        .map(|up_to| {
            let after = procedure.cumulative(up_to);
            let prob = after - before;
            before = after;
            prob
        })
        .collect()
}

/// `W^T(policy > reference)`, ties half: the procedure applied to both sides (InfAlign B2).
pub fn enumerated_win_rate(
    policy_probs: &[f64],
    reference_probs: &[f64],
    procedure: &PreparedProcedure,
) -> f64 {
    let beaten = calibrated_rewards(&outcome_probs(reference_probs, procedure));
    let outcome = outcome_probs(policy_probs, procedure);
    outcome
        .iter()
        .zip(&beaten)
        .map(|(prob, beaten)| prob * beaten)
        .sum()
}

/// `R(c) = dW^T / dpi(c)`, the reward whose optimum is stationary (InfAlign B3), up to a constant:
/// `sum_(j >= c) g(P_j) (m_j - m_(j+1))` with `m` the classes' calibrated rewards among the reference's outcomes and
/// `m` beyond the last 0. Derived here by summation by parts. `[num_classes]`
pub fn first_variation(
    policy_probs: &[f64],
    reference_probs: &[f64],
    procedure: &PreparedProcedure,
) -> Vec<f64> {
    let beaten = calibrated_rewards(&outcome_probs(reference_probs, procedure));
    let up_to = cumulative(policy_probs);
    let mut variation = vec![0.0; beaten.len()];
    let (mut sum, mut above) = (0.0, 0.0);
    for class in (0..beaten.len()).rev() {
        sum += procedure.weight(up_to[class]) * (beaten[class] - above);
        above = beaten[class];
        variation[class] = sum;
    }
    variation
}

/// The policy with `pi = pi_ref exp(R / beta) / Z` where `R` is the first variation at that very policy: the coupled
/// equations of InfAlign B3, by iteration from the reference. `[num_classes]`
///
/// # Errors
/// [`InfalignError::NotConverged`], e.g. where beta is too small for the iteration.
pub fn coupled_fixed_point(
    reference_probs: &[f64],
    procedure: &PreparedProcedure,
    beta: f64,
) -> Result<Vec<f64>, InfalignError> {
    let mut solver = Anderson::new(first_variation(reference_probs, reference_probs, procedure));
    while solver.num_iterations() < MAX_ITERATIONS && !solver.is_done(TOLERANCE_NATS * beta) {
        let policy = tilted(reference_probs, solver.values(), beta);
        let image = first_variation(&policy, reference_probs, procedure);
        solver.take(&image);
    }
    let residual_nats = solver.least_residual() / beta;
    if residual_nats > TOLERANCE_NATS {
        return Err(InfalignError::NotConverged {
            procedure: "enumerated classes".to_owned(),
            beta,
            num_iterations: solver.num_iterations(),
            residual_nats,
        });
    }
    Ok(tilted(reference_probs, &solver.into_best(), beta))
}

/// Cumulative probabilities, the last of them 1. `[num_classes]`
fn cumulative(probs: &[f64]) -> Vec<f64> {
    let total: f64 = probs.iter().sum();
    let mut sum = 0.0;
    let mut cumulative: Vec<f64> = probs
        .iter()
        .map(|prob| {
            sum += prob;
            (sum / total).min(1.0)
        })
        .collect();
    if let Some(last) = cumulative.last_mut() {
        *last = 1.0;
    }
    cumulative
}

#[cfg(test)]
mod tests;
