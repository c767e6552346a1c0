//! What best- and worst-of-N make of one set of samples: weights, and numbers under them. Knows rewards alone.
//!
//! A sample's weight is the share of the subsets of N in which it is chosen, ties shared; the weighted mean of anything is
//! its unbiased estimate under the procedure, of all subsets at once (a U-statistic).

use trimtab_train::policy::best_of_n_weights;

use super::procedure::EvalProcedure;

/// Probability that each sample is chosen from N of these; adds up to 1. `[samples]`
pub(super) fn weights(procedure: &EvalProcedure, rewards: &[f64]) -> Vec<f64> {
    match procedure {
        EvalProcedure::Best(n) => best_of_n_weights(rewards, *n),
        EvalProcedure::Worst(n) => {
            let negated: Vec<f64> = rewards.iter().map(|reward| -reward).collect();
            best_of_n_weights(&negated, *n)
        }
        // Each sample is an answer already.
        EvalProcedure::Blocks(_) => vec![1.0 / rewards.len().max(1) as f64; rewards.len()],
    }
}

/// Samples of one side: what a judge says of each, and the weight that the procedure gives it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighted<'a> {
    pub(super) rewards: &'a [f64],
    pub(super) weights: &'a [f64],
}

impl Weighted<'_> {
    /// Mean reward under the procedure.
    pub(super) fn mean(&self) -> f64 {
        self.rewards
            .iter()
            .zip(self.weights)
            .map(|(reward, weight)| reward * weight)
            .sum()
    }

    /// Probability that this side's answer beats the other's, ties half.
    ///
    /// Exactly 0, 1/2 or 1 where every pair is lost, tied or won: rounding would pass for spread among prompts.
    pub(super) fn win_rate(&self, other: &Self) -> f64 {
        let (mut balance, mut total) = (0.0, 0.0);
        for (mine, my_weight) in self.rewards.iter().zip(self.weights) {
            for (theirs, their_weight) in other.rewards.iter().zip(other.weights) {
                let weight = my_weight * their_weight;
                total += weight;
                balance += match mine.total_cmp(theirs) {
                    _ if mine == theirs => 0.0,
                    std::cmp::Ordering::Greater => weight,
                    _ => -weight,
                };
            }
        }
        if total > 0.0 {
            0.5 + 0.5 * balance / total
        } else {
            0.5
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn win_rate(procedure: &str, policy: &[f64], reference: &[f64]) -> f64 {
        let procedure: EvalProcedure = procedure.parse().unwrap();
        let [of_policy, of_reference] = [policy, reference].map(|rewards| weights(&procedure, rewards));
        let side = |rewards, weights| Weighted { rewards, weights };
        side(policy, &of_policy).win_rate(&side(reference, &of_reference))
    }

    /// By going through all subsets of both sides.
    fn enumerated(n: usize, is_best: bool, policy: &[f64], reference: &[f64]) -> f64 {
        let chosen = |rewards: &[f64]| -> Vec<f64> {
            (0_u32..1 << rewards.len())
                .filter(|bits| bits.count_ones() as usize == n)
                .map(|bits| {
                    let members = (0..rewards.len()).filter(|idx| bits >> idx & 1 == 1);
                    let members = members.map(|idx| rewards[idx]);
                    if is_best {
                        members.fold(f64::NEG_INFINITY, f64::max)
                    } else {
                        members.fold(f64::INFINITY, f64::min)
                    }
                })
                .collect()
        };
        let (policy, reference) = (chosen(policy), chosen(reference));
        let wins = policy.iter().flat_map(|mine| {
            reference.iter().map(move |theirs| {
                f64::from(u8::from(mine > theirs)) + 0.5 * f64::from(u8::from(mine == theirs))
            })
        });
        wins.sum::<f64>() / (policy.len() * reference.len()) as f64
    }

    #[test]
    fn weights_count_every_subset() {
        let policy = [3.0, 1.0, 1.0, 4.0, 5.0, 0.0];
        let reference = [2.0, 1.0, 3.0, 3.0, 0.5];
        for n in 1..=5 {
            for (name, is_best) in [("bon", true), ("won", false)] {
                let got = win_rate(&format!("{name}:{n}"), &policy, &reference);
                let expect = enumerated(n, is_best, &policy, &reference);
                assert!((got - expect).abs() < 1e-12, "{name}:{n}: {got} {expect}");
                // The evaluation crate's estimator, by classes of equal rewards.
                let choice = format!("{name}:{n}")
                    .parse::<EvalProcedure>()
                    .unwrap()
                    .choice()
                    .unwrap();
                let classes = trimtab_eval::inference_win_rate(choice, &policy, &reference).unwrap();
                assert!((got - classes).abs() < 1e-12, "{name}:{n}: {got} {classes}");
            }
        }
    }

    #[test]
    fn equal_sides_win_half() {
        let rewards = [3.0, 1.0, 1.0, 4.0];
        for procedure in ["sample", "bon:2", "won:3", "bon:4"] {
            let got = win_rate(procedure, &rewards, &rewards);
            assert!((got - 0.5).abs() < 1e-12, "{procedure}: {got}");
        }
    }

    #[test]
    fn what_is_certain_is_not_rounded() {
        let weights = weights(&"bon:3".parse().unwrap(), &[0.1, 0.7, 0.3, 0.9, 0.2, 0.4, 0.5]);
        let constant = |value: f64| [value; 7];
        let win_rate = |policy: f64, reference: f64| {
            let (policy, reference) = (constant(policy), constant(reference));
            let side = |rewards| Weighted {
                rewards,
                weights: &weights,
            };
            side(&policy).win_rate(&side(&reference))
        };
        assert_eq!(
            (win_rate(2.0, 2.0), win_rate(2.0, 1.0), win_rate(1.0, 2.0)),
            (0.5, 1.0, 0.0)
        );
    }

    #[test]
    fn a_second_judge_sees_what_the_reward_chose() {
        // The reward chooses the last of the policy's and the first of the reference's samples.
        let of = |rewards: &[f64]| weights(&"bon:3".parse().unwrap(), rewards);
        let (policy, reference) = (of(&[0.0, 1.0, 2.0]), of(&[9.0, 1.0, 2.0]));
        let policy = Weighted {
            rewards: &[7.0, 7.0, -1.0],
            weights: &policy,
        };
        let reference = Weighted {
            rewards: &[0.0, -5.0, -5.0],
            weights: &reference,
        };
        assert_eq!(policy.mean(), -1.0);
        assert_eq!(policy.win_rate(&reference), 0.0);
    }
}
