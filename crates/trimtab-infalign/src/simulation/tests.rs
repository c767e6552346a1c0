use super::*;
use crate::{Procedure, inference_win_rate, policy_at_kl};

const SEED: Seed = Seed(11);

fn policy(transform: &str) -> Density {
    policy_at_kl(&transform.parse().unwrap(), 0.5).unwrap()
}

fn exact(policy: &Density, procedure: &str) -> f64 {
    let procedure: Procedure = procedure.parse().unwrap();
    inference_win_rate(policy, &procedure.prepare().unwrap()).win_rate
}

/// Best-of-N as a program.
struct Best(usize);

impl CandidateChoice for Best {
    fn num_candidates(&self) -> usize {
        self.0
    }

    fn choose(&self, calibrated_rewards: &[f64]) -> usize {
        let best = calibrated_rewards
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1));
        best.unwrap().0
    }
}

#[test]
fn programs_with_a_formula_agree_with_it_within_their_error() {
    let check = |transform: &str, procedure: &dyn SimulatedProcedure, formula: &str| {
        let policy = policy(transform);
        let got = simulated_win_rate(&policy, procedure, 4000, SEED);
        let expect = exact(&policy, formula);
        assert!(got.standard_error < 0.01, "{transform}, {formula}: {got:?}");
        // Within 3.3 standard errors: a fixed seed, missed by chance once in a thousand.
        assert!(
            (got.win_rate - expect).abs() < 3.3 * got.standard_error,
            "{transform}, {formula}: {got:?}, {expect}"
        );
    };
    check("exp:10", &Best(4), "bon:4");
    check("identity", &Best(1), "sample");
    let parsed = |text: &str| text.parse::<Simulated>().unwrap();
    check("exp:-10", &parsed("noisy:4,0"), "bon:4");
    // A value that is all noise is no choice at all, and so is one answer for all, or one draw.
    check("exp:10", &parsed("noisy:4,1000"), "sample");
    check("exp:10", &parsed("majority:5,1"), "sample");
    check("exp:10", &parsed("retry:0.9,1"), "sample");
    check("identity", &parsed("cd-block:1,3"), "sample");
}

#[test]
fn blocks_of_many_candidates_approach_the_top() {
    let reference = policy("identity");
    let outcomes = outcomes(
        Some(&reference),
        &"cd-block:64,3".parse::<Simulated>().unwrap(),
        200,
        SEED,
    );
    assert!(outcomes[100] > 1.0 - 1.5 / 64.0, "median {}", outcomes[100]);
}

#[test]
fn retries_favour_policies_that_reach_the_threshold() {
    let retry: Simulated = "retry:0.9,4".parse().unwrap();
    let (low, high) = (policy("exp:-10"), policy("exp:10"));
    let win_rate = |policy: &Density| simulated_win_rate(policy, &retry, 2000, SEED).win_rate;
    assert!(win_rate(&high) > win_rate(&low) + 0.05);
}

#[test]
fn weights_of_rank_based_programs_are_recovered() {
    let table = simulated_weights(&Best(3), 20, 40_000, SEED).unwrap();
    for part in 0..20 {
        let q = (f64::from(part) + 0.5) / 20.0;
        // Mean of 3 q^2 over the part; counts of a part err by about sqrt(20 g / 40000).
        let expect = 3.0 * (q * q + 1.0 / 4800.0);
        assert!(
            (table.at(q) - expect).abs() < 4.0 * (20.0 * expect / 40_000.0).sqrt() + 1e-3,
            "{q}"
        );
    }
    let procedure = Procedure::of_weights("simulated", table)
        .unwrap()
        .prepare()
        .unwrap();
    let policy = policy("exp:10");
    let got = inference_win_rate(&policy, &procedure).win_rate;
    assert!((got - exact(&policy, "bon:3")).abs() < 0.01);
    assert!(simulated_weights(&Best(3), 0, 10, SEED).is_err());
}

#[test]
fn answers_are_functions_of_the_seed() {
    let policy = policy("exp:10");
    let run = |seed| simulated_win_rate(&policy, &Best(2), 200, seed);
    assert_eq!(run(SEED), run(SEED));
    assert_ne!(run(SEED), run(Seed(12)));
}

#[test]
fn texts_are_read_and_written_back() {
    for text in ["majority:8,4", "retry:0.9,16", "cd-block:4,3", "noisy:4,0.5"] {
        assert_eq!(text.parse::<Simulated>().unwrap().to_string(), text);
    }
    let check = |text: &str, expect: &str| {
        let error = text.parse::<Simulated>().unwrap_err().to_string();
        assert!(error.contains(expect), "{text:?}: {error}");
    };
    check("majority:8", "expected one of majority:N,A");
    check("best:1,2", "expected one of");
    check("majority:0,2", "a whole number from 1 to 4096, got \"0\"");
    check("retry:1,2", "from 0 to below 1");
    check("cd-block:2,99", "from 1 to 20");
    check("noisy:2,-1", "from 0 to 1000");
}
