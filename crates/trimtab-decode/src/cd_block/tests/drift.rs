//! Bounds and estimates of the drift, against the exact divergence of enumerated laws.

use super::super::drift::choice_estimate_nats;
use super::*;
use crate::laws::inputs;

fn best_of_k_bound(num_candidates: f64) -> f64 {
    num_candidates.ln() - (num_candidates - 1.0) / num_candidates
}

/// `KL(law || reference)` of whole responses.
fn divergence(law: &[f64]) -> f64 {
    let sequences = TableLm::tiny().enumerate();
    let share = |(prob, (_, log_prob)): (&f64, &(Tokens, f64))| {
        if *prob > 0.0 {
            prob * (prob.ln() - log_prob)
        } else {
            0.0
        }
    };
    law.iter().zip(&sequences).map(share).sum()
}

struct Drifts {
    mean_bound: f64,
    mean_estimate: f64,
    standard_error: f64,
}

fn drifts(spec: &str, num_runs: u64) -> Drifts {
    let model = TableLm::tiny();
    let mut scorers = ExactScorers::new(&model);
    let (mut bounds, mut estimates) = (Vec::new(), Vec::new());
    for prompt in 0..num_runs {
        let outcome = run_steered(&model, spec, inputs(prompt), &mut scorers).expect("it runs");
        let block_kl = outcome.block_kl.expect("blocks were chosen");
        bounds.push(block_kl.bound_nats);
        estimates.push(block_kl.estimate_nats.unwrap_or(0.0));
        assert!((0.0..=block_kl.bound_nats + 1e-12).contains(&estimates[estimates.len() - 1]));
    }
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / num_runs as f64;
    let mean_estimate = mean(&estimates);
    let squares: Vec<f64> = estimates
        .iter()
        .map(|estimate| (estimate - mean_estimate).powi(2))
        .collect();
    Drifts {
        mean_bound: mean(&bounds),
        mean_estimate,
        standard_error: (mean(&squares) / num_runs as f64).sqrt(),
    }
}

#[test]
fn the_estimate_goes_to_the_exact_divergence_and_the_bound_holds() {
    for (num_candidates, block_len) in [(2, 1), (4, 1), (4, 2), (3, 4)] {
        let exact = divergence(&closed_form(num_candidates, block_len));
        let spec = |audit: usize| format!("cd-block:k={num_candidates},m={block_len},audit={audit}");
        let many = drifts(&spec(100), 600);
        // Four standard errors, and a bias of the order of 1 / audit.
        let difference = (many.mean_estimate - exact).abs();
        assert!(
            difference < 4.0 * many.standard_error + 0.01,
            "{}: {} against {exact}",
            spec(100),
            many.mean_estimate
        );
        assert!(
            many.mean_bound > exact + 0.05,
            "blocks of this model tie: {} {exact}",
            many.mean_bound
        );
        // With as many blocks as candidates it is not far.
        let few = drifts(&spec(num_candidates), 1_500);
        let difference = (few.mean_estimate - exact).abs();
        assert!(
            difference < 0.12,
            "{}: {} against {exact}",
            spec(num_candidates),
            few.mean_estimate
        );
    }
}

#[test]
fn bounds_hold_for_every_rule() {
    for (spec, law) in [
        (
            "cd-block:k=2,m=1,beams=2",
            BlockLaw {
                beams: 2,
                ..BlockLaw::new(2, 1)
            },
        ),
        (
            "cd-block:k=1,m=1,beams=3",
            BlockLaw {
                beams: 3,
                ..BlockLaw::new(1, 1)
            },
        ),
        (
            "cd-block:k=3,m=1,choose=proportional,temp=0.1",
            BlockLaw {
                temperature: Some(0.1),
                ..BlockLaw::new(3, 1)
            },
        ),
        (
            "cd-block:k=2,m=1,beams=2,choose=proportional,temp=0.1",
            BlockLaw {
                temperature: Some(0.1),
                beams: 2,
                ..BlockLaw::new(2, 1)
            },
        ),
        (
            "cd-block:k=3,m=1,target=1.2",
            BlockLaw {
                target: 1.2,
                ..BlockLaw::new(3, 1)
            },
        ),
    ] {
        let (exact, bound) = (divergence(&law.answers()), drifts(spec, 2_000).mean_bound);
        assert!(
            exact > 0.05 && bound >= exact,
            "{spec}: bound {bound}, exact {exact}"
        );
    }
}

#[test]
fn bounds_are_those_of_the_choices_that_made_the_answer() {
    let check = |spec: &str, expect: &dyn Fn(f64) -> f64| {
        for prompt in 0..50 {
            let block_kl = crate::laws::run(spec, prompt)
                .block_kl
                .expect("blocks were chosen");
            let expected = expect(block_kl.num_choices as f64);
            assert!(block_kl.num_choices > 0);
            assert!(
                (block_kl.bound_nats - expected).abs() < 1e-12,
                "{spec}: {block_kl:?}"
            );
        }
    };
    check("cd-block:k=6,m=1", &|choices| choices * best_of_k_bound(6.0));
    check("cd-block:k=6,m=whole", &|_| best_of_k_bound(6.0));
    check("cd-block:k=3,m=2,beams=2", &|choices| {
        2.0_f64.ln() + choices * 3.0_f64.ln()
    });
    check("cd-block:k=3,m=2,choose=proportional", &|choices| {
        choices * 3.0_f64.ln()
    });
    check("cd-block:k=3,m=2,beams=2,choose=proportional", &|choices| {
        choices * 6.0_f64.ln()
    });
}

#[test]
fn the_estimate_of_one_choice_lies_between_all_equal_and_all_different() {
    let check = |num_candidates: usize, kept: f64, others: &[f64], expect: f64| {
        let estimate = choice_estimate_nats(num_candidates, kept, others);
        assert!(
            (estimate - expect).abs() < 1e-9,
            "{kept} among {others:?}: {estimate}"
        );
    };
    let bound = best_of_k_bound(4.0);
    check(4, 1.0, &[1.0; 5], 0.0);
    check(4, 1.0, &[1.0, 2.0, 3.0], 0.0);
    check(4, 1.0, &[0.0, 0.5, 2.0], bound);
    check(4, 1.0, &[2.0, 3.0], bound);
    check(1, 1.0, &[0.0, 1.0], 0.0);
    // One below for one that ties: rho is 1/2.
    let half: f64 = 0.5;
    let power = half.powi(4);
    let expected = power * 3.0 * half.ln() / (1.0 - power) + ((1.0 - power) / half).ln();
    check(4, 1.0, &[0.0, 1.0, 7.0], expected);
    assert!(expected > 0.0 && expected < bound);
    // Many candidates underflow nothing.
    check(100_000, 1.0, &[0.0, 1.0], 2.0_f64.ln());
}

#[test]
fn the_estimate_has_the_mean_of_the_paper_s_logarithm() {
    // Values 0, 1, 2 with probabilities .5, .3, .2: with the law of values itself in place of other blocks' values.
    let probs = [0.5, 0.3, 0.2];
    let mut values: Vec<f64> = Vec::new();
    for (value, prob) in probs.iter().enumerate() {
        values.extend(std::iter::repeat_n(
            value as f64,
            (prob * 10.0_f64).round() as usize,
        ));
    }
    for num_candidates in [2, 5, 9] {
        let (mut below, mut exact, mut estimate) = (0.0_f64, 0.0, 0.0);
        for (value, prob) in probs.iter().enumerate() {
            let at_most: f64 = below + prob;
            let kept = at_most.powi(num_candidates) - below.powi(num_candidates);
            exact += kept * (kept / prob).ln();
            estimate += kept * choice_estimate_nats(num_candidates as usize, value as f64, &values);
            below = at_most;
        }
        assert!(
            (exact - estimate).abs() < 1e-9,
            "{num_candidates}: {exact} {estimate}"
        );
    }
}
