//! The law of the best (and the worst) of N responses, from more than N of them. Knows rewards, no tokens' meaning.
//!
//! Every subset of N of the K responses to a prompt counts alike, which no resampling improves on: weights are ratios of
//! binomials. Equal rewards share what their ranks have.

use std::collections::BTreeMap;

use super::data::{PolicyResponse, PreferenceTokens};

/// `P(response i is the best of n)` for `n` of these responses drawn without replacement; adds up to 1.
///
/// `C(rank_i - 1, n - 1) / C(K, n)` with ranks from the worst, `n` taken as at most `K`.
pub fn best_of_n_weights(rewards: &[f64], n: usize) -> Vec<f64> {
    let num = rewards.len();
    let n = n.clamp(1, num.max(1));
    let of_rank: Vec<f64> = (0..num)
        .map(|below| subsets_below(below, n - 1, num, n))
        .collect();
    shared_by_ties(rewards, &of_rank)
}

/// Pairs of the best and the worst of `n` responses to the same prompt, with the probability of being both as weight
/// (times the mean weight of the two): `C(rank_i - rank_j - 1, n - 2) / C(K, n)`.
///
/// Responses of equal reward make no pair. `n` is taken as at most the responses of the prompt. Pairs of weight 0 are
/// left out.
pub fn best_and_worst_pairs(responses: &[PolicyResponse], n: usize) -> Vec<PreferenceTokens> {
    let mut by_prompt: BTreeMap<u64, Vec<&PolicyResponse>> = BTreeMap::new();
    for response in responses {
        by_prompt.entry(response.key).or_default().push(response);
    }
    by_prompt
        .into_values()
        .flat_map(|mut group| {
            group.sort_by(|a, b| a.reward.total_cmp(&b.reward));
            pairs_of_prompt(&group, n)
        })
        .collect()
}

/// Of responses by rising reward.
fn pairs_of_prompt(group: &[&PolicyResponse], n: usize) -> Vec<PreferenceTokens> {
    let num = group.len();
    let n = n.min(num);
    let mut pairs = Vec::new();
    if n < 2 {
        return pairs;
    }
    for (high, best) in group.iter().enumerate() {
        for (low, worst) in group.iter().enumerate().take(high) {
            let probability = subsets_below(high - low - 1, n - 2, num, n);
            if probability == 0.0 || best.reward <= worst.reward {
                continue;
            }
            pairs.push(PreferenceTokens {
                key: best.key,
                prompt_token_ids: best.prompt_token_ids.clone(),
                chosen: best.token_ids.clone(),
                rejected: worst.token_ids.clone(),
                weight: probability * f64::midpoint(best.weight, worst.weight),
            });
        }
    }
    pairs
}

/// `C(below, chosen) / C(num, n)`, in logarithms: the binomials themselves overflow.
fn subsets_below(below: usize, chosen: usize, num: usize, n: usize) -> f64 {
    if below < chosen {
        return 0.0;
    }
    (log_binomial(below, chosen) - log_binomial(num, n)).exp()
}

fn log_binomial(num: usize, chosen: usize) -> f64 {
    (1..=chosen)
        .map(|i| ((num - chosen + i) as f64 / i as f64).ln())
        .sum()
}

/// `of_rank` by index, where equal rewards share.
fn shared_by_ties(rewards: &[f64], of_rank: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..rewards.len()).collect();
    order.sort_by(|&a, &b| rewards[a].total_cmp(&rewards[b]));
    let mut weights = vec![0.0; rewards.len()];
    let mut start = 0;
    for tied in order.chunk_by(|&a, &b| rewards[a].total_cmp(&rewards[b]).is_eq()) {
        let share = of_rank[start..start + tied.len()].iter().sum::<f64>() / tied.len() as f64;
        for &idx in tied {
            weights[idx] = share;
        }
        start += tied.len();
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By enumeration of all subsets: `[best][worst]`.
    fn enumerated(rewards: &[f64], n: usize) -> Vec<Vec<f64>> {
        let num = rewards.len();
        let mut joint = vec![vec![0.0; num]; num];
        let subsets: Vec<Vec<usize>> = (0_u32..1 << num)
            .filter(|bits| bits.count_ones() as usize == n)
            .map(|bits| (0..num).filter(|idx| bits >> idx & 1 == 1).collect())
            .collect();
        for subset in &subsets {
            let extreme = |sign: f64| {
                let best = subset
                    .iter()
                    .map(|&idx| sign * rewards[idx])
                    .fold(f64::NEG_INFINITY, f64::max);
                let tied: Vec<usize> = subset
                    .iter()
                    .copied()
                    .filter(|&idx| sign * rewards[idx] == best)
                    .collect();
                tied
            };
            let (best, worst) = (extreme(1.0), extreme(-1.0));
            for &b in &best {
                for &w in &worst {
                    joint[b][w] += 1.0 / (best.len() * worst.len() * subsets.len()) as f64;
                }
            }
        }
        joint
    }

    #[test]
    fn weights_are_those_of_all_subsets() {
        let rewards = [0.3, -1.0, 2.0, 0.3, 0.7];
        for n in 1..=5 {
            let weights = best_of_n_weights(&rewards, n);
            let joint = enumerated(&rewards, n);
            for (weight, row) in weights.iter().zip(&joint) {
                let expected: f64 = row.iter().sum();
                assert!(
                    (weight - expected).abs() < 1e-12,
                    "n = {n}: {weight}, expected {expected}"
                );
            }
        }
        assert_eq!(best_of_n_weights(&rewards, 99), best_of_n_weights(&rewards, 5));
        assert!(best_of_n_weights(&[], 4).is_empty());
    }

    #[test]
    fn pairs_are_those_of_all_subsets() {
        let rewards = [0.3, -1.0, 2.0, 0.5, 0.7];
        let responses: Vec<PolicyResponse> = (0..)
            .zip(rewards)
            .map(|(id, reward)| PolicyResponse {
                key: 7,
                prompt_token_ids: vec![0],
                token_ids: vec![id],
                reward,
                weight: 1.0,
                ..PolicyResponse::default()
            })
            .collect();
        for n in 2..=5 {
            let mut joint = enumerated(&rewards, n);
            for pair in best_and_worst_pairs(&responses, n) {
                let entry = &mut joint[pair.chosen[0] as usize][pair.rejected[0] as usize];
                assert!((pair.weight - *entry).abs() < 1e-12);
                *entry = 0.0;
            }
            let missing: f64 = joint.iter().flatten().sum();
            assert!(missing < 1e-12, "n = {n}: pairs of weight {missing} are missing");
        }
    }

    #[test]
    fn equal_rewards_make_no_pair_and_many_candidates_do_not_overflow() {
        let response = |reward| PolicyResponse {
            reward,
            weight: 1.0,
            ..PolicyResponse::default()
        };
        assert!(best_and_worst_pairs(&[response(1.0), response(1.0)], 2).is_empty());
        let rewards: Vec<f64> = (0..2000).map(f64::from).collect();
        let total: f64 = best_of_n_weights(&rewards, 1000).iter().sum();
        assert!((total - 1.0).abs() < 1e-9, "{total}");
    }
}
