//! How often one policy's response has the greater reward, ties half. Knows rewards of one prompt at a time.
//!
//! All win rates here are expectations of `w(y, z) = 1[r(y) > r(z)] + 1/2 1[r(y) = r(z)]`, so that a policy against
//! itself has exactly 1/2, and the win rate of one side is one minus that of the other.

use crate::reward_sample::{RewardSample, prob_all_marked};

/// Mean of `w(y, z)` over all pairs of an answer and a reference response to the same prompt, in `[0, 1]`.
///
/// Implements the win rate of CD sec. 4.4 (arXiv 2310.17022v3) with the reward as judge. All pairs, since each pair is
/// unbiased and their mean has the least spread the samples allow. Differs: ties count half, where CD's indicator
/// counts them as lost.
pub fn win_rate(answers: &RewardSample, references: &RewardSample) -> f64 {
    let won: f64 = answers
        .classes()
        .iter()
        .map(|class| class.count as f64 * references.share_beaten_by(class.reward))
        .sum();
    won / answers.len() as f64
}

/// Win rate of best-of-N against one reference response where nothing ties: `N / (N + 1)`. Derived here.
pub fn best_of_n_win_rate_without_ties(num_candidates: u32) -> f64 {
    f64::from(num_candidates) / (f64::from(num_candidates) + 1.0)
}

/// Win rate of best-of-N against one reference response where the reference's class probabilities are known:
/// `sum_c (F_c^N - F_(c-1)^N) (F_(c-1) + F_c) / 2`. Derived here.
///
/// `class_probs` are in order of reward, smallest first, and sum to 1.
pub fn best_of_n_win_rate(class_probs: &[f64], num_candidates: u32) -> f64 {
    let total: f64 = class_probs.iter().sum();
    let n = f64::from(num_candidates);
    let mut cumulative = 0.0_f64;
    let mut won = 0.0;
    for prob in class_probs {
        let below = cumulative;
        cumulative = (cumulative + prob / total).min(1.0);
        won += (cumulative.powf(n) - below.powf(n)) * f64::midpoint(below, cumulative);
    }
    won
}

/// Unbiased estimate of the win rate of best-of-N against one independent reference response, from `M > N` reference
/// responses alone; `None` for fewer.
///
/// The mean over all ways to take one response as the opponent and N others as candidates: an opponent whose class
/// has `b` below it and `c` in it loses to the best of N others with probability `1 - C(b+c-1, N) / C(M-1, N)` and
/// ties with probability `(C(b+c-1, N) - C(b, N)) / C(M-1, N)`. Derived here; `N / (N+1)` if nothing ties.
pub fn best_of_n_win_rate_estimate(pool: &RewardSample, num_candidates: u32) -> Option<f64> {
    let (num_others, n) = (pool.len() - 1, u64::from(num_candidates));
    if n > num_others {
        return None;
    }
    let won = pool.classes().iter().map(|class| {
        let none_better = prob_all_marked(class.num_up_to() - 1, num_others, n);
        let all_worse = prob_all_marked(class.num_below, num_others, n);
        class.count as f64 * (1.0 - f64::midpoint(none_better, all_worse))
    });
    Some(won.sum::<f64>() / pool.len() as f64)
}

/// Unbiased estimate of the win rate of best-of-N against held-out reference responses, from `M >= N` candidates;
/// `None` for fewer.
///
/// The mean over all subsets of N candidates and all held-out responses. With `M = N` it is the chosen answer's share
/// of held-out responses beaten. Derived here.
pub fn best_of_n_win_rate_against(
    candidates: &RewardSample,
    held_out: &RewardSample,
    num_candidates: u32,
) -> Option<f64> {
    let n = u64::from(num_candidates);
    if n > candidates.len() {
        return None;
    }
    let won = candidates.classes().iter().map(|class| {
        let prob_best = prob_all_marked(class.num_up_to(), candidates.len(), n)
            - prob_all_marked(class.num_below, candidates.len(), n);
        prob_best * held_out.share_beaten_by(class.reward)
    });
    Some(won.sum())
}

#[cfg(test)]
mod tests;
