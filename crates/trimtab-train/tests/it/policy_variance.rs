//! Noise of the policy gradient, by enumeration of every round that can be drawn: which parts make it, and which baselines
//! take it away.

use trimtab_train::policy::rl::Rl;
use trimtab_train::policy::source::units_by_prompt;
use trimtab_train::policy::{Advantage, Importance, PolicyResponse, ResponseTokens, TokenLoss as _};

use crate::policy_table::World;

/// Responses with their probability under the policy, and what is known of each token.
struct Law {
    world: World,
    logits: Vec<f64>,
    probs: Vec<f64>,
    /// Log-prob, reference's log-prob and exact KL. `[responses][T]`
    tokens: Vec<[Vec<f64>; 3]>,
}

/// Mean and total variance of an estimate of the gradient.
struct Moments {
    mean: Vec<f64>,
    variance: f64,
}

/// An estimator: one reward for each response of each prompt, by the response's place.
#[derive(Clone, Copy)]
struct Estimator<'a> {
    reward: &'a dyn Fn(u64, usize) -> f64,
    advantage: Advantage,
    loss: Rl,
}

fn rl(beta: f64, has_baseline: bool) -> Rl {
    Rl {
        beta,
        clip: None,
        importance: Importance::Off {},
        has_baseline,
    }
}

impl Law {
    fn new() -> Self {
        let world = World::new();
        let logits = world.moved_logits();
        let reference = world.reference_logits();
        let of = |response: &Vec<u32>| {
            let kl = |at: usize| {
                let row = world.row_of(&response[..at]);
                let own = world.log_probs_at(&logits, row);
                let other = world.log_probs_at(&reference, row);
                own.iter().zip(&other).map(|(p, q)| p.exp() * (p - q)).sum()
            };
            [
                world.token_log_probs(&logits, response),
                world.token_log_probs(&reference, response),
                (0..response.len()).map(kl).collect(),
            ]
        };
        Self {
            probs: world.law(&logits),
            tokens: world.responses.iter().map(of).collect(),
            logits,
            world,
        }
    }

    /// The gradient by the table that a round of two responses to each of some prompts gives.
    fn gradient(&self, round: &[usize], estimator: Estimator<'_>) -> Vec<f64> {
        let response = |(at, &place): (usize, &usize)| {
            let key = at as u64 / 2;
            PolicyResponse {
                reward: (estimator.reward)(key, place),
                ..World::response(&self.world.responses[place], key, 1.0)
            }
        };
        let responses: Vec<PolicyResponse> = round.iter().enumerate().map(response).collect();
        let mut gradient = vec![0.0; self.logits.len()];
        // Units keep the order of keys, and of responses within.
        let mut places = round.iter();
        for unit in units_by_prompt(responses, estimator.advantage) {
            let places: Vec<usize> = places.by_ref().take(unit.len()).copied().collect();
            let tokens: Vec<ResponseTokens<'_>> = unit
                .iter()
                .zip(&places)
                .map(|(item, &place)| {
                    let [log_probs, reference_log_probs, kl_nats] = &self.tokens[place];
                    ResponseTokens {
                        item,
                        log_probs,
                        reference_log_probs,
                        kl_nats,
                    }
                })
                .collect();
            let by = estimator.loss.derivatives(&tokens);
            let mut number = 0;
            for &place in &places {
                let response = &self.world.responses[place];
                for at in 0..response.len() {
                    let by_kl = by.kl.get(number).copied().unwrap_or_default();
                    self.add(&response[..=at], (by.log_prob[number], by_kl), &mut gradient);
                    number += 1;
                }
            }
        }
        gradient.iter().map(|entry| entry / round.len() as f64).collect()
    }

    /// `d log p_y / d z_v = 1[v = y] - p_v` and `d KL / d z_v = p_v (ln p_v - ln q_v - KL)` of one token.
    fn add(&self, until: &[u32], (by_log_prob, by_kl): (f64, f64), gradient: &mut [f64]) {
        let (token, prefix) = until.split_last().unwrap();
        let row = self.world.row_of(prefix);
        let own = self.world.log_probs_at(&self.logits, row);
        let other = self.world.log_probs_at(&self.world.reference_logits(), row);
        let kl: f64 = own.iter().zip(&other).map(|(p, q)| p.exp() * (p - q)).sum();
        for (v, (p, q)) in own.iter().zip(&other).enumerate() {
            let drawn = f64::from(v == *token as usize);
            gradient[row * own.len() + v] += by_log_prob * (drawn - p.exp()) + by_kl * p.exp() * (p - q - kl);
        }
    }

    /// Over every round of two responses to each of `num_prompts` prompts.
    fn moments(&self, num_prompts: usize, estimator: Estimator<'_>) -> Moments {
        let num = self.probs.len();
        let mut mean = vec![0.0; self.logits.len()];
        let mut square = 0.0;
        for code in 0..num.pow(2 * num_prompts as u32) {
            let mut rest = code;
            let round: Vec<usize> = (0..2 * num_prompts)
                .map(|_| {
                    let place = rest % num;
                    rest /= num;
                    place
                })
                .collect();
            let prob: f64 = round.iter().map(|&place| self.probs[place]).product();
            let gradient = self.gradient(&round, estimator);
            square += prob * gradient.iter().map(|entry| entry * entry).sum::<f64>();
            for (sum, entry) in mean.iter_mut().zip(gradient) {
                *sum += prob * entry;
            }
        }
        let variance = square - mean.iter().map(|entry| entry * entry).sum::<f64>();
        Moments { mean, variance }
    }

    /// Quantile of a response's reward under the reference, ties half.
    fn calibrated(&self) -> Vec<f64> {
        let reference = self.world.law(&self.world.reference_logits());
        let rewards: Vec<f64> = self.world.responses.iter().map(|y| World::reward(y)).collect();
        let of = |own: &f64| {
            let win =
                |(other, prob): (&f64, &f64)| prob * (f64::from(own > other) + f64::from(own >= other)) / 2.0;
            rewards.iter().zip(&reference).map(win).sum()
        };
        rewards.iter().map(of).collect()
    }
}

fn assert_same_mean(a: &Moments, b: &Moments) {
    let largest = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).abs());
    let largest = largest.fold(0.0, f64::max);
    assert!(largest < 1e-10, "means differ by {largest}");
}

#[test]
fn the_exact_kl_and_its_baseline_are_less_noise_than_a_sampled_penalty() {
    let law = Law::new();
    let zero = |_: u64, _: usize| 0.0;
    let of = |loss: Rl, reward: &dyn Fn(u64, usize) -> f64| {
        let advantage = Advantage::LeaveOneOut;
        law.moments(
            1,
            Estimator {
                reward,
                advantage,
                loss,
            },
        )
    };
    let exact = of(rl(1.0, true), &zero);
    let without_baseline = of(rl(1.0, false), &zero);
    // The usual form: the log-ratio of the response as a cost, which needs no KL of distributions.
    let log_ratio = |_: u64, place: usize| {
        let [own, other, _] = &law.tokens[place];
        other.iter().sum::<f64>() - own.iter().sum::<f64>()
    };
    let sampled = of(rl(0.0, true), &log_ratio);
    assert_same_mean(&exact, &without_baseline);
    assert_same_mean(&exact, &sampled);
    let (exact, without, sampled) = (exact.variance, without_baseline.variance, sampled.variance);
    assert!(
        exact < without && without < sampled / 2.0,
        "{exact} exact, {without} without baseline, {sampled} sampled"
    );
}

#[test]
fn at_the_coefficients_of_practice_nearly_all_noise_is_the_rewards() {
    let law = Law::new();
    let calibrated = law.calibrated();
    let reward = |_: u64, place: usize| calibrated[place];
    let of = |beta: f64| {
        let advantage = Advantage::LeaveOneOut;
        let loss = rl(beta, true);
        let reward = &reward;
        law.moments(
            1,
            Estimator {
                reward,
                advantage,
                loss,
            },
        )
        .variance
    };
    let (without, with) = (of(0.0), of(0.02));
    let share = (with - without).abs() / without;
    assert!(share < 0.01, "the KL at 0.02 changes the variance by {share}");
}

#[test]
fn a_baseline_over_the_round_is_less_noise_for_calibrated_rewards_and_more_for_raw_ones() {
    let law = Law::new();
    let calibrated = law.calibrated();
    // Two prompts of one law, whose raw rewards differ by a constant: calibration takes it away.
    let raw = |key: u64, place: usize| World::reward(&law.world.responses[place]) + 2.0 * key as f64;
    let quantile = |_: u64, place: usize| calibrated[place];
    let of = |reward: &dyn Fn(u64, usize) -> f64, advantage: Advantage| {
        let loss = rl(0.0, true);
        law.moments(
            2,
            Estimator {
                reward,
                advantage,
                loss,
            },
        )
    };
    for (reward, is_calibrated) in [(&raw as &dyn Fn(u64, usize) -> f64, false), (&quantile, true)] {
        let by_prompt = of(reward, Advantage::LeaveOneOut);
        let by_round = of(reward, Advantage::Round);
        assert_same_mean(&by_prompt, &by_round);
        assert_same_mean(&by_prompt, &of(reward, Advantage::None));
        let ratio = by_round.variance / by_prompt.variance;
        // Without correlation of score and reward: (1 + 1/3) / (1 + 1/1) of two responses to each of two prompts.
        assert!(
            if is_calibrated { ratio < 0.75 } else { ratio > 1.2 },
            "calibrated: {is_calibrated}, variance {ratio} of that by prompt"
        );
    }
}
