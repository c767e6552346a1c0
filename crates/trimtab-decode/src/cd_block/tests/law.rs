//! The laws of answers, by closed forms and by enumeration of all blocks. Sequences of the model have 4 tokens at most.

use super::*;
use crate::laws::count_a;

const NUM_RUNS: u64 = 12_000;

/// Enough to tell wrong laws apart.
const FEW_RUNS: u64 = 4_000;

fn sum_of_differences(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum()
}

#[test]
fn the_enumeration_agrees_with_the_closed_form() {
    for (num_candidates, block_len) in [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (2, 3), (2, 4)] {
        let (closed, enumerated) = (
            closed_form(num_candidates, block_len),
            BlockLaw::new(num_candidates, block_len).answers(),
        );
        let difference = sum_of_differences(&closed, &enumerated);
        assert!(
            difference < 1e-9,
            "K {num_candidates}, M {block_len}: {difference}"
        );
    }
}

#[test]
fn blockwise_control_follows_the_closed_form_of_equation_7() {
    for (spec, num_candidates, block_len) in [
        ("cd-block:k=2,m=1", 2, 1),
        ("cd-block:k=5,m=1", 5, 1),
        ("cd-block:k=3,m=2", 3, 2),
        ("cd-block:k=4,m=3", 4, 3),
        ("cd-block:k=3,m=whole", 3, 4),
    ] {
        assert_follows(
            &counts(spec, &[1.0], NUM_RUNS),
            &closed_form(num_candidates, block_len),
        );
    }
}

#[test]
fn two_scorers_follow_the_law_of_their_weighted_sum() {
    let weights = vec![1.0, -0.6];
    let law = BlockLaw {
        weights: weights.clone(),
        ..BlockLaw::new(3, 1)
    };
    let drawn = counts("cd-block:k=3,m=1", &weights, NUM_RUNS);
    assert_follows(&drawn, &law.answers());
    assert!(p_value(&drawn, &closed_form(3, 1)) < 1e-9);
}

#[test]
fn beams_follow_the_enumerated_law() {
    for (spec, num_candidates, block_len, beams) in [
        ("cd-block:k=2,m=1,beams=2", 2, 1, 2),
        ("cd-block:k=1,m=2,beams=3", 1, 2, 3),
        ("cd-block:k=1,m=1,beams=4", 1, 1, 4),
    ] {
        let law = BlockLaw {
            beams,
            ..BlockLaw::new(num_candidates, block_len)
        };
        assert_follows(&counts(spec, &[1.0], NUM_RUNS), &law.answers());
    }
}

#[test]
fn choices_in_proportion_follow_the_enumerated_law() {
    for (spec, num_candidates, block_len, beams, temperature) in [
        ("cd-block:k=2,m=1,choose=proportional,temp=0.5", 2, 1, 1, 0.5),
        ("cd-block:k=3,m=1,choose=proportional,temp=0.2", 3, 1, 1, 0.2),
        ("cd-block:k=2,m=2,choose=proportional", 2, 2, 1, 1.0),
        (
            "cd-block:k=1,m=1,beams=3,choose=proportional,temp=0.4",
            1,
            1,
            3,
            0.4,
        ),
        (
            "cd-block:k=2,m=1,beams=2,choose=proportional,temp=0.4",
            2,
            1,
            2,
            0.4,
        ),
    ] {
        let law = BlockLaw {
            beams,
            temperature: Some(temperature),
            ..BlockLaw::new(num_candidates, block_len)
        };
        assert_follows(&counts(spec, &[1.0], NUM_RUNS), &law.answers());
    }
}

#[test]
fn many_particles_approach_the_tilted_law() {
    // `pi(y) e^{r(y) / temperature}`: what the incremental weights of a particle filter are made for.
    let model = TableLm::tiny();
    let mut log_probs: Vec<f64> = model
        .enumerate()
        .iter()
        .map(|(tokens, log_prob)| log_prob + count_a(tokens) / 0.7)
        .collect();
    log_softmax_in_place(&mut log_probs);
    let tilted: Vec<f64> = log_probs.iter().map(|log_prob| log_prob.exp()).collect();
    let distance = |beams: usize| {
        let spec = format!("cd-block:k=1,m=1,beams={beams},choose=proportional,temp=0.7");
        let counts = counts(&spec, &[1.0], 3_000);
        let shares: Vec<f64> = counts.iter().map(|&count| count as f64 / 3_000.0).collect();
        sum_of_differences(&shares, &tilted)
    };
    let (few, many) = (distance(2), distance(48));
    // The sampling error alone is about 0.05.
    assert!(few > 0.2 && many < 0.1, "{few}, {many}");
}

#[test]
fn a_target_ends_the_choosing() {
    for (spec, target, beams) in [
        ("cd-block:k=3,m=1,target=1.2", 1.2, 1),
        ("cd-block:k=3,m=1,target=0.9", 0.9, 1),
        ("cd-block:k=2,m=1,beams=2,target=1.5", 1.5, 2),
    ] {
        let law = BlockLaw {
            beams,
            target,
            ..BlockLaw::new(if beams == 1 { 3 } else { 2 }, 1)
        };
        let drawn = counts(spec, &[1.0], NUM_RUNS);
        assert_follows(&drawn, &law.answers());
        let without = BlockLaw {
            target: f64::INFINITY,
            ..law
        };
        assert!(
            p_value(&drawn, &without.answers()) < 1e-9,
            "{spec}: the target changes nothing"
        );
    }
}

/// Values of scorer 0 in place of those that a test is about.
struct Wrong<F>(F);

impl<F: FnMut(&[TokenId]) -> f64> Scorers for Wrong<F> {
    fn state_values(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        vec![(self.0)(tokens) as f32]
    }

    fn action_values(&mut self, _tokens: &[TokenId]) -> Vec<Vec<f32>> {
        Vec::new()
    }

    fn asked_values(&mut self, _prefix: &crate::Prefix) -> Vec<f64> {
        Vec::new()
    }
}

#[test]
fn the_law_tells_wrong_implementations_apart() {
    let law = closed_form(4, 1);
    for wrong in [
        "cd-block:k=3,m=1",
        "cd-block:k=4,m=2",
        "cd-block:k=4,m=whole",
        "cd-block:k=2,m=1,beams=2",
        "cd-block:k=4,m=1,choose=proportional,temp=0.3",
        "cd-block:k=4,m=1,t=0.8",
        "cd-token:4",
        "bon:4",
        "sample",
    ] {
        let p_value = p_value(&counts(wrong, &[1.0], FEW_RUNS), &law);
        assert!(p_value < 1e-9, "{wrong} passes as cd-block:k=4,m=1");
    }
    let model = TableLm::tiny();
    let sequences = model.enumerate();
    let p_value_with = |scorers: &mut dyn Scorers| {
        let mut counts = vec![0; sequences.len()];
        for prompt in 0..FEW_RUNS {
            let outcome = run_steered(&model, "cd-block:k=4,m=1", inputs_of(prompt, &[1.0]), scorers);
            let answer = outcome.expect("it runs").candidates.remove(0).token_ids;
            counts[sequences
                .iter()
                .position(|(tokens, _)| *tokens == answer)
                .expect("known")] += 1;
        }
        p_value(&counts, &law)
    };
    let value = |tokens: &[TokenId]| model.state_value(tokens, &count_a);
    // The reward so far in place of the value of what will come.
    assert!(p_value_with(&mut Wrong(count_a)) < 1e-9);
    // The value of the parent, by which all tie.
    assert!(
        p_value_with(&mut Wrong(|tokens: &[TokenId]| value(
            &tokens[..tokens.len() - 1]
        ))) < 1e-9
    );
    assert!(p_value_with(&mut Wrong(|tokens: &[TokenId]| -value(tokens))) < 1e-9);
    // And the right one passes.
    assert!(p_value_with(&mut Wrong(value)) > crate::laws::ALPHA);
}

#[test]
fn ties_do_not_prefer_a_block() {
    // All values equal: the first of equals is a draw of the model itself.
    let model = TableLm::tiny();
    let sequences = model.enumerate();
    let reference: Vec<f64> = sequences.iter().map(|(_, log_prob)| log_prob.exp()).collect();
    let mut counts = vec![0; sequences.len()];
    for prompt in 0..NUM_RUNS {
        let outcome = run_steered(
            &model,
            "cd-block:k=3,m=1",
            inputs_of(prompt, &[1.0]),
            &mut Wrong(|_: &[TokenId]| 0.5),
        );
        let answer = outcome.expect("it runs").candidates.remove(0).token_ids;
        counts[sequences
            .iter()
            .position(|(tokens, _)| *tokens == answer)
            .expect("known")] += 1;
    }
    assert_follows(&counts, &reference);
}
