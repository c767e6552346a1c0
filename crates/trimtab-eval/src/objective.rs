//! What tokenwise control maximises at one prefix: advantage bought with divergence (CD section 2). Knows two
//! distributions over next tokens and the tokens' values; no model, no scorer and no sequence.

use trimtab_base::prob::kl_nats;

/// Advantage of a policy over the reference at one prefix: the mean value of the next token under the policy, less that
/// under the reference. In the value's unit. `A([x, y^t]; pi)` of CD section 2; 0 for the reference itself.
///
/// # Shapes
/// All `[vocab]`; log-probabilities in nats, negative infinity for what cannot be drawn.
pub fn advantage(policy_log_probs: &[f64], reference_log_probs: &[f64], values: &[f64]) -> f64 {
    mean_value(policy_log_probs, values) - mean_value(reference_log_probs, values)
}

/// `J_lambda = lambda A - D` in nats (CD Eq. 2), `D` being the divergence of the policy from the reference.
///
/// Its maximum over policies is `log Z - lambda E_reference[V]`, `Z` the normaliser of `p e^{lambda V}`, and is reached
/// there alone (CD Theorem 2.1): by what [`trimtab_decode::RowOp::SampleGuided`] draws from.
///
/// # Shapes
/// All `[vocab]`.
pub fn tokenwise_objective_nats(
    lambda: f64,
    policy_log_probs: &[f64],
    reference_log_probs: &[f64],
    values: &[f64],
) -> f64 {
    lambda * advantage(policy_log_probs, reference_log_probs, values)
        - kl_nats(policy_log_probs, reference_log_probs)
}

fn mean_value(log_probs: &[f64], values: &[f64]) -> f64 {
    let possible = log_probs
        .iter()
        .zip(values)
        .filter(|(p, _)| **p > f64::NEG_INFINITY);
    possible.map(|(log_prob, value)| log_prob.exp() * value).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trimtab_base::TokenId;
    use trimtab_base::prob::log_softmax;
    use trimtab_base::testing::TableLm;

    use super::*;

    /// Reference and exact values after `prefix`, the reward being the number of tokens 1.
    fn at(prefix: &[TokenId]) -> (Vec<f64>, Vec<f64>) {
        let model = TableLm::tiny();
        let reward = |tokens: &[TokenId]| tokens.iter().filter(|&&token| token == TokenId(1)).count() as f64;
        (model.log_probs(prefix), model.action_values(prefix, &reward))
    }

    /// The law of Eq. 3 and the logarithm of its normaliser.
    fn tilted(lambda: f64, reference: &[f64], values: &[f64]) -> (Vec<f64>, f64) {
        let sums: Vec<f64> = reference
            .iter()
            .zip(values)
            .map(|(p, v)| p + lambda * v)
            .collect();
        let log_norm = sums.iter().map(|sum| sum.exp()).sum::<f64>().ln();
        (sums.iter().map(|sum| sum - log_norm).collect(), log_norm)
    }

    #[test]
    fn the_reference_has_neither_advantage_nor_divergence() {
        let (reference, values) = at(&[TokenId(2)]);
        assert_eq!(advantage(&reference, &reference, &values), 0.0);
        assert!(tokenwise_objective_nats(3.0, &reference, &reference, &values).abs() < 1e-12);
    }

    #[test]
    fn the_maximum_is_the_normaliser_of_the_tilted_law() {
        for lambda in [0.5, 2.0, 8.0] {
            let (reference, values) = at(&[]);
            let (policy, log_norm) = tilted(lambda, &reference, &values);
            let objective = tokenwise_objective_nats(lambda, &policy, &reference, &values);
            let expected = log_norm - lambda * mean_value(&reference, &values);
            assert!(
                (objective - expected).abs() < 1e-12,
                "{lambda}: {objective} {expected}"
            );
        }
    }

    proptest! {
        /// Theorem 2.1: every other policy falls short by exactly its divergence from the tilted law.
        #[test]
        fn other_policies_fall_short_by_their_divergence_from_the_tilted_law(
            logits in proptest::collection::vec(-4.0_f32..4.0, 3), lambda in 0.0_f64..10.0
        ) {
            let (reference, values) = at(&[TokenId(1)]);
            let (best, _) = tilted(lambda, &reference, &values);
            let policy = log_softmax(&logits);
            let short = tokenwise_objective_nats(lambda, &best, &reference, &values)
                - tokenwise_objective_nats(lambda, &policy, &reference, &values);
            prop_assert!((short - kl_nats(&policy, &best)).abs() < 1e-9);
        }
    }
}
