use proptest::prelude::*;
use trimtab_base::testing::TableLm;
use trimtab_base::{Seed, TokenId};

use super::*;

fn win(a: f64, b: f64) -> f64 {
    if a > b {
        1.0
    } else if a == b {
        0.5
    } else {
        0.0
    }
}

/// Kept rewards of every subset of `n` samples.
fn kept_of_subsets(rewards: &[f64], choice: ChoiceOfN) -> Vec<f64> {
    let n = choice.num_candidates();
    (0..1_u32 << rewards.len())
        .filter(|mask| mask.count_ones() == n)
        .map(|mask| {
            let subset = (0..rewards.len()).filter(|idx| mask & (1 << idx) != 0);
            kept(subset.map(|idx| rewards[idx]), choice)
        })
        .collect()
}

fn kept(rewards: impl Iterator<Item = f64>, choice: ChoiceOfN) -> f64 {
    match choice {
        ChoiceOfN::Best(_) => rewards.fold(f64::NEG_INFINITY, f64::max),
        ChoiceOfN::Worst(_) => rewards.fold(f64::INFINITY, f64::min),
    }
}

const POLICY: [f64; 6] = [3.0, 1.0, 1.0, 2.0, 3.0, 0.0];
const REFERENCE: [f64; 5] = [1.0, 0.0, 2.0, 1.0, 2.5];

#[test]
fn the_estimate_is_the_mean_over_all_subsets_of_both_sides() {
    for n in 1..=5 {
        for choice in [ChoiceOfN::Best(n), ChoiceOfN::Worst(n)] {
            let (ours, theirs) = (
                kept_of_subsets(&POLICY, choice),
                kept_of_subsets(&REFERENCE, choice),
            );
            let won: f64 = ours
                .iter()
                .flat_map(|&a| theirs.iter().map(move |&b| win(a, b)))
                .sum();
            let expect = won / (ours.len() * theirs.len()) as f64;
            let got = inference_win_rate(choice, &POLICY, &REFERENCE).unwrap();
            assert!((got - expect).abs() < 1e-14, "{choice}: {got}, expected {expect}");
        }
    }
}

/// On the enumerable model: the mean of the estimate over all ways to draw samples of both sides is the win rate by
/// enumeration of all ways to draw N of each.
#[test]
fn the_estimate_is_unbiased_by_enumeration() {
    let law = |salt: u64| -> Vec<(f64, f64)> {
        let model = TableLm {
            vocab: 2,
            max_len: 3,
            salt,
        };
        let reward = |tokens: &[TokenId]| (tokens.len() % 2) as f64;
        let law: Vec<(f64, f64)> = model
            .enumerate()
            .iter()
            .map(|(tokens, log_prob)| (reward(tokens), log_prob.exp()))
            .collect();
        assert_eq!(law.len(), 3);
        law
    };
    let (policy, reference) = (law(5), law(1));
    for choice in [
        ChoiceOfN::SAMPLE,
        ChoiceOfN::Best(2),
        ChoiceOfN::Worst(2),
        ChoiceOfN::Best(3),
    ] {
        let n = choice.num_candidates() as usize;
        let mean = |num_samples: usize, value: &dyn Fn(&[f64], &[f64]) -> f64| {
            let (ours, theirs) = (tuples(&policy, num_samples), tuples(&reference, num_samples));
            let mut mean = 0.0;
            for (rewards, prob) in &ours {
                for (other_rewards, other_prob) in &theirs {
                    mean += prob * other_prob * value(rewards, other_rewards);
                }
            }
            mean
        };
        let truth = mean(n, &|a, b| {
            win(kept(a.iter().copied(), choice), kept(b.iter().copied(), choice))
        });
        let estimate = mean(4, &|a, b| inference_win_rate(choice, a, b).unwrap());
        assert!((estimate - truth).abs() < 1e-12, "{choice}: {estimate}, {truth}");
    }
}

/// All tuples of draws: their rewards and probability.
fn tuples(law: &[(f64, f64)], len: usize) -> Vec<(Vec<f64>, f64)> {
    let mut tuples = vec![(Vec::new(), 1.0)];
    for _ in 0..len {
        tuples = tuples
            .iter()
            .flat_map(|(rewards, prob)| {
                law.iter().map(move |&(reward, of_draw)| {
                    let mut longer: Vec<f64> = rewards.clone();
                    longer.push(reward);
                    (longer, prob * of_draw)
                })
            })
            .collect();
    }
    tuples
}

#[test]
fn thirty_two_candidates_come_from_one_sample_set() {
    // Even rewards of the policy are one above the reference's: the best of N always wins once N is all of them.
    let reference: Vec<f64> = (0..32).map(f64::from).collect();
    let policy: Vec<f64> = reference.iter().map(|reward| reward + 0.5).collect();
    let mut before = 0.0;
    for n in 1..=32 {
        let best = inference_win_rate(ChoiceOfN::Best(n), &policy, &reference).unwrap();
        let worst = inference_win_rate(ChoiceOfN::Worst(n), &policy, &reference).unwrap();
        assert!(
            (best - worst).abs() < 1e-12,
            "both samples are symmetric: {best}, {worst}"
        );
        assert!(best > before);
        before = best;
    }
    assert_eq!(before, 1.0);
}

#[test]
fn more_candidates_than_samples_are_refused() {
    for (choice, len) in [(ChoiceOfN::Best(6), 5), (ChoiceOfN::Worst(0), 5)] {
        let error = inference_win_rate(choice, &POLICY[..len], &REFERENCE).unwrap_err();
        assert!(matches!(error, EvalError::TooFewSamples { .. }), "{error}");
    }
    let error = inference_win_rate(ChoiceOfN::Best(8), &POLICY, &REFERENCE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a choice among 8 responses needs 8 samples of policy and reference for each prompt, got 5"
    );
    assert!(inference_win_rate(ChoiceOfN::SAMPLE, &[f64::NAN], &[1.0]).is_err());
}

#[test]
fn intervals_are_over_prompts_and_differences_are_paired() {
    let bootstrap = Bootstrap::of_seed(Seed(3));
    let reference = RewardSample::try_new(&REFERENCE).unwrap();
    let prompts = |shift: f64| -> Vec<PromptRewards> {
        (0..12)
            .map(|idx| {
                let of_prompt = f64::from(idx % 5) * 0.4 - 1.0;
                let rewards: Vec<f64> = POLICY.iter().map(|reward| reward + of_prompt + shift).collect();
                PromptRewards {
                    policy: RewardSample::try_new(&rewards).unwrap(),
                    reference: reference.clone(),
                }
            })
            .collect()
    };
    let choice = ChoiceOfN::Best(4);
    let plain = inference_win_rate_over_prompts(choice, &prompts(0.0), &bootstrap).unwrap();
    let better = inference_win_rate_over_prompts(choice, &prompts(0.7), &bootstrap).unwrap();
    let ends = plain.interval.unwrap();
    assert!(ends.contains(plain.win_rate) && ends.lo < ends.hi);
    let (difference, paired) = paired_difference(&better, &plain, &bootstrap).unwrap();
    assert!((difference - (better.win_rate - plain.win_rate)).abs() < 1e-12);
    let (paired, unpaired) = (paired.unwrap(), ends.hi - ends.lo);
    assert!(
        paired.hi - paired.lo < unpaired,
        "pairing takes the prompts' spread away"
    );
    assert!(inference_win_rate_over_prompts(choice, &[], &bootstrap).is_err());
    let fewer = inference_win_rate_over_prompts(choice, &prompts(0.0)[1..], &bootstrap).unwrap();
    assert!(paired_difference(&better, &fewer, &bootstrap).is_err());
}

#[test]
fn choices_read_like_methods() {
    let check = |choice: ChoiceOfN, expect: &str| assert_eq!(choice.to_string(), expect);
    check(ChoiceOfN::Best(4), "bon:4");
    check(ChoiceOfN::Worst(4), "won:4");
    check(ChoiceOfN::SAMPLE, "sample");
}

proptest! {
    #[test]
    fn sides_and_signs_may_be_exchanged(
        ours in prop::collection::vec(-3_i32..3, 4..12),
        theirs in prop::collection::vec(-3_i32..3, 4..12),
        n in 1_u32..=4,
    ) {
        let numbers = |values: &[i32], sign: f64| values.iter().map(|&v| sign * f64::from(v)).collect::<Vec<f64>>();
        let (a, b) = (numbers(&ours, 1.0), numbers(&theirs, 1.0));
        let best = inference_win_rate(ChoiceOfN::Best(n), &a, &b).unwrap();
        let exchanged = inference_win_rate(ChoiceOfN::Best(n), &b, &a).unwrap();
        prop_assert!((best + exchanged - 1.0).abs() < 1e-12);
        let (a, b) = (numbers(&ours, -1.0), numbers(&theirs, -1.0));
        let worst = inference_win_rate(ChoiceOfN::Worst(n), &b, &a).unwrap();
        prop_assert!((best - worst).abs() < 1e-12);
        let itself = inference_win_rate(ChoiceOfN::Best(n), &a, &a).unwrap();
        prop_assert!((itself - 0.5).abs() < 1e-12);
    }
}
