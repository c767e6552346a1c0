//! How well values of prefixes predict the final reward, on plain slices. Knows no head.

use std::collections::BTreeMap;

use crate::events::Metrics;

/// Values of one response's prefixes, in the reward's unit.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredResponse {
    /// Prompt.
    pub key: u64,
    /// Final reward.
    pub reward: f64,
    /// `V([x, y^t])`, `t = 0..=T`. `[T + 1]`
    pub state_values: Vec<f64>,
    /// `Q(h_{t-1})[y_t]`, `t = 1..=T`; empty without action head. `[T]`
    pub action_values: Vec<f64>,
    /// `E_z Q(h_t)[z]`, `t = 0..T-1`; empty without action head. `[T]`
    pub expected_values: Vec<f64>,
}

/// Number of parts of a response whose errors are told apart.
const NUM_PARTS: usize = 5;

/// Numbers of held-out responses:
///
/// - `mse`: mean squared error of state values to the final reward over all prefixes, and `mse_q1` (first fifth of each
///   response) to `mse_q5` (last fifth);
/// - `explained_variance`: 1 - `mse` / variance of the reward over the same prefixes;
/// - `action_mse`: the same error of action values; `bellman_rmse`: root mean square of
///   `V([x, y^t]) - E_z Q(h_t)[z]`, which is 0 for a consistent pair of heads;
/// - `ranking_accuracy`: share of pairs of responses to one prompt that the values after `t` tokens order like the
///   rewards, over `t` = 1, 2, 4, ... that both reach; ties of values count half, equal rewards are left out. Absent
///   where no prompt has two responses.
pub fn prefix_metrics(responses: &[ScoredResponse]) -> Metrics {
    let mut metrics = Metrics::new();
    let mut put = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
    let mut parts = [Mean::default(); NUM_PARTS];
    let (mut all, mut action, mut bellman) = (Mean::default(), Mean::default(), Mean::default());
    let (mut rewards, mut squared_rewards) = (Mean::default(), Mean::default());
    for response in responses {
        let len = response.state_values.len();
        for (prefix_idx, value) in response.state_values.iter().enumerate() {
            let square = (value - response.reward).powi(2);
            all.add(square);
            parts[prefix_idx * NUM_PARTS / len].add(square);
            rewards.add(response.reward);
            squared_rewards.add(response.reward.powi(2));
        }
        for value in &response.action_values {
            action.add((value - response.reward).powi(2));
        }
        for (value, expected) in response.state_values.iter().zip(&response.expected_values) {
            bellman.add((value - expected).powi(2));
        }
    }
    put("mse", all.mean());
    for (part_idx, part) in parts.iter().enumerate().filter(|(_, part)| part.count > 0.0) {
        put(&format!("mse_q{}", part_idx + 1), part.mean());
    }
    let variance = squared_rewards.mean() - rewards.mean().powi(2);
    if variance > 0.0 {
        put("explained_variance", 1.0 - all.mean() / variance);
    }
    if action.count > 0.0 {
        put("action_mse", action.mean());
        put("bellman_rmse", bellman.mean().sqrt());
    }
    if let Some(accuracy) = ranking_accuracy(responses) {
        put("ranking_accuracy", accuracy);
    }
    metrics
}

fn ranking_accuracy(responses: &[ScoredResponse]) -> Option<f64> {
    let mut by_prompt: BTreeMap<u64, Vec<&ScoredResponse>> = BTreeMap::new();
    for response in responses {
        by_prompt.entry(response.key).or_default().push(response);
    }
    let mut right = Mean::default();
    for group in by_prompt.values() {
        for (idx, first) in group.iter().enumerate() {
            for second in &group[idx + 1..] {
                add_pair(first, second, &mut right);
            }
        }
    }
    (right.count > 0.0).then(|| right.mean())
}

fn add_pair(first: &ScoredResponse, second: &ScoredResponse, right: &mut Mean) {
    if first.reward == second.reward {
        return;
    }
    let shared = first.state_values.len().min(second.state_values.len());
    let times = std::iter::successors(Some(1), |t| Some(2 * t)).take_while(|&t| t < shared);
    for t in times {
        let by_value = first.state_values[t] - second.state_values[t];
        let by_reward = first.reward - second.reward;
        right.add(match by_value * by_reward {
            product if product > 0.0 => 1.0,
            product if product < 0.0 => 0.0,
            _ => 0.5,
        });
    }
}

/// Share of right answers with its 95% interval by Wilson's formula (Wilson 1927): `accuracy`, `accuracy_low`,
/// `accuracy_high`.
pub fn accuracy_metrics(num_right: f64, count: f64) -> Metrics {
    const Z: f64 = 1.959963984540054;
    let share = num_right / count;
    let denominator = 1.0 + Z * Z / count;
    let centre = (share + Z * Z / (2.0 * count)) / denominator;
    let half = Z / denominator * (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt();
    let numbers = [
        ("accuracy", share),
        ("accuracy_low", (centre - half).max(0.0)),
        ("accuracy_high", (centre + half).min(1.0)),
    ];
    numbers.map(|(name, value)| (name.to_owned(), value)).into()
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1.0;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(key: u64, reward: f64, state_values: &[f64]) -> ScoredResponse {
        ScoredResponse {
            key,
            reward,
            state_values: state_values.to_vec(),
            action_values: state_values[1..].to_vec(),
            expected_values: state_values[..state_values.len() - 1].to_vec(),
        }
    }

    #[test]
    fn perfect_values_have_no_error() {
        let metrics = prefix_metrics(&[response(1, 2.0, &[2.0; 5]), response(1, 3.0, &[3.0; 3])]);
        let expect = [
            ("mse", 0.0),
            ("mse_q5", 0.0),
            ("explained_variance", 1.0),
            ("action_mse", 0.0),
            ("bellman_rmse", 0.0),
            ("ranking_accuracy", 1.0),
        ];
        for (name, value) in expect {
            assert_eq!(metrics[name], value, "{name}");
        }
    }

    #[test]
    fn errors_are_told_apart_by_position() {
        let metrics = prefix_metrics(&[response(1, 0.0, &[5.0, 4.0, 3.0, 2.0, 1.0])]);
        let parts = [25.0, 16.0, 9.0, 4.0, 1.0];
        for (idx, expected) in parts.iter().enumerate() {
            assert_eq!(metrics[&format!("mse_q{}", idx + 1)], *expected);
        }
        assert_eq!(metrics["mse"], 11.0);
        assert!(!metrics.contains_key("explained_variance"));
    }

    #[test]
    fn ranking_compares_responses_to_one_prompt_only() {
        // t = 1 is ordered rightly, t = 2 is a tie; the other prompt's response is nobody's rival.
        let responses = [
            response(1, 1.0, &[0.0, 5.0, 2.0]),
            response(1, 0.0, &[0.0, 4.0, 2.0]),
            response(2, -9.0, &[0.0, 99.0, 99.0]),
        ];
        assert_eq!(prefix_metrics(&responses)["ranking_accuracy"], 0.75);
        assert!(!prefix_metrics(&responses[1..]).contains_key("ranking_accuracy"));
    }

    #[test]
    fn wilson_interval_is_the_published_one() {
        // 81 of 263, a textbook example: 0.2553 to 0.3662.
        let metrics = accuracy_metrics(81.0, 263.0);
        assert!((metrics["accuracy_low"] - 0.2553).abs() < 1e-4, "{metrics:?}");
        assert!((metrics["accuracy_high"] - 0.3662).abs() < 1e-4, "{metrics:?}");
    }
}
