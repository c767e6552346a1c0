//! The slow meaning of [`super::RowOp::SampleGuided`]: a draw from a policy tilted by action values. Knows one row.

use trimtab_base::TokenId;
use trimtab_base::prob::{categorical, kl_nats, log_softmax_in_place};

use super::{Guide, GuideFloor, GuidedToken, Row, unusable, without_rounding};
use crate::DecodeError;
use crate::need::SampledToken;

/// Halvings by which a floor's added weight is found: to within `max_added_weight / 2^40`, from above.
pub const FLOOR_HALVINGS: u32 = 40;

/// Draws from `p(z) e^{sum_i w_i V_i([x, y^t, z])}`, normalised (CD Eq. 6).
///
/// The tilt is added to the log-probabilities of the policy, so tokens that truncation cut stay impossible. The KL is
/// that of the tilted law against the reference, not against the policy that is tilted.
pub(super) fn sample(
    row: &Row<'_>,
    policy_log_probs: &[f64],
    reference_log_probs: &[f64],
    guide: &Guide,
    coin: f64,
) -> Result<GuidedToken, DecodeError> {
    let values = values_of_terms(row, guide)?;
    let mut weights: Vec<f64> = guide.terms.iter().map(|term| term.weight).collect();
    let mut log_probs = tilted(policy_log_probs, &values, &weights, guide)?;
    if let Some(floor) = guide.floor {
        let added = added_weight(floor, &log_probs, values[floor.term]);
        weights[floor.term] += added;
        log_probs = tilted(policy_log_probs, &values, &weights, guide)?;
    }
    let token_idx = categorical(&log_probs, coin).ok_or_else(|| unusable(row.logits))?;
    Ok(GuidedToken {
        sampled: SampledToken {
            token: TokenId(token_idx as u32),
            log_prob: log_probs[token_idx],
            reference_log_prob: reference_log_probs[token_idx],
            kl_nats: without_rounding(kl_nats(&log_probs, reference_log_probs)),
        },
        values: values.iter().map(|values| f64::from(values[token_idx])).collect(),
        weights,
    })
}

/// The values of each term. `[terms][vocab]`
fn values_of_terms<'a>(row: &Row<'a>, guide: &Guide) -> Result<Vec<&'a [f32]>, DecodeError> {
    let values_of = |scorer: usize| {
        let values = row.action_values.get(scorer).map(Vec::as_slice);
        // A scorer without an action head leaves its place empty.
        values
            .filter(|values| values.len() == row.logits.len())
            .ok_or(DecodeError::MissingValues {
                kind: "action",
                scorer,
                num_scorers: row.action_values.len(),
            })
    };
    guide.terms.iter().map(|term| values_of(term.scorer)).collect()
}

/// Log-probabilities of the tilted law. `[vocab]`
fn tilted(
    policy_log_probs: &[f64],
    values: &[&[f32]],
    weights: &[f64],
    guide: &Guide,
) -> Result<Vec<f64>, DecodeError> {
    let mut log_probs = policy_log_probs.to_vec();
    for ((term, values), &weight) in guide.terms.iter().zip(values).zip(weights) {
        // A weight of 0 takes a term out, whatever its values.
        if weight == 0.0 {
            continue;
        }
        for (log_prob, &value) in log_probs.iter_mut().zip(*values) {
            // What the policy cannot draw stays impossible, whatever its value.
            if *log_prob == f64::NEG_INFINITY {
                continue;
            }
            *log_prob += weight * f64::from(value);
            if log_prob.is_nan() || *log_prob == f64::INFINITY {
                return Err(too_steep(term.scorer, weight, value));
            }
        }
    }
    if log_probs.iter().all(|&log_prob| log_prob == f64::NEG_INFINITY) {
        return Err(steepest(policy_log_probs, values, weights, guide));
    }
    log_softmax_in_place(&mut log_probs);
    Ok(log_probs)
}

/// The error for a row where nothing is left: names the term that took most from the most probable token.
fn steepest(policy_log_probs: &[f64], values: &[&[f32]], weights: &[f64], guide: &Guide) -> DecodeError {
    let token_idx = (0..policy_log_probs.len())
        .max_by(|&a, &b| policy_log_probs[a].total_cmp(&policy_log_probs[b]))
        .unwrap_or(0);
    let tilt = |idx: usize| weights[idx] * f64::from(values[idx][token_idx]);
    let worst = (0..weights.len())
        .min_by(|&a, &b| tilt(a).total_cmp(&tilt(b)))
        .unwrap_or(0);
    too_steep(
        guide.terms[worst].scorer,
        weights[worst],
        values[worst][token_idx],
    )
}

fn too_steep(scorer: usize, weight: f64, value: f32) -> DecodeError {
    DecodeError::UnusableTilt {
        scorer,
        weight,
        value: f64::from(value),
    }
}

/// The least weight from 0 to `max_added_weight` by which the mean value under the law reaches the floor.
///
/// The mean rises with the weight (its derivative is the value's variance), so halving finds it. The answer holds the
/// floor unless even the greatest weight does not.
fn added_weight(floor: GuideFloor, log_probs: &[f64], values: &[f32]) -> f64 {
    let holds = |added: f64| mean_under(log_probs, values, added) >= floor.at_least;
    if holds(0.0) {
        return 0.0;
    }
    let (mut too_small, mut holding) = (0.0, floor.max_added_weight);
    if !holds(holding) {
        return holding;
    }
    for _ in 0..FLOOR_HALVINGS {
        let middle = f64::midpoint(too_small, holding);
        if holds(middle) {
            holding = middle;
        } else {
            too_small = middle;
        }
    }
    holding
}

/// Mean of the values under `p(z) e^{added V(z)}`.
fn mean_under(log_probs: &[f64], values: &[f32], added: f64) -> f64 {
    let possible = || {
        let pairs = log_probs.iter().zip(values);
        pairs
            .filter(|(log_prob, _)| **log_prob > f64::NEG_INFINITY)
            .map(|(log_prob, &value)| (log_prob + added * f64::from(value), f64::from(value)))
    };
    let max = possible()
        .map(|(logit, _)| logit)
        .fold(f64::NEG_INFINITY, f64::max);
    let (mut mass, mut sum) = (0.0, 0.0);
    for (logit, value) in possible() {
        let weight = (logit - max).exp();
        mass += weight;
        sum += weight * value;
    }
    sum / mass
}

#[cfg(test)]
mod tests;
