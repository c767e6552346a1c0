use trimtab_base::prob::{kl_nats, log_softmax_in_place};
use trimtab_base::testing::TableLm;

use super::*;
use crate::laws::{
    ExactScorers, answer_counts, answer_counts_with, assert_follows, count_a, inputs, inputs_of, p_value,
    run, run_steered, run_with, steering,
};
use crate::need::{Candidate, Prefix};
use crate::spec::DecodeSpec;
use crate::steering::Floor;
use crate::testing::{Scorers, drive_steered};

/// Log-probabilities of the next token under CD Eq. 3 with exact values: `p(z) e^{sum_i w_i V*_i([x, y^t, z])}`.
fn tilted_log_probs(model: &TableLm, prefix: &[TokenId], weights: &[f64]) -> Vec<f64> {
    let values = ExactScorers::new(model).action_values(prefix);
    let mut log_probs = model.log_probs(prefix);
    for (idx, log_prob) in log_probs.iter_mut().enumerate() {
        for (weight, values) in weights.iter().zip(&values) {
            *log_prob += weight * f64::from(values[idx]);
        }
    }
    log_softmax_in_place(&mut log_probs);
    log_probs
}

/// Probability of each sequence when every step follows Eq. 3.
fn tokenwise_law(weights: &[f64]) -> Vec<f64> {
    let model = TableLm::tiny();
    let prob_of = |tokens: &[TokenId]| -> f64 {
        let step = |idx: usize| tilted_log_probs(&model, &tokens[..idx], weights)[tokens[idx].index()];
        (0..tokens.len()).map(step).sum::<f64>().exp()
    };
    model
        .enumerate()
        .iter()
        .map(|(tokens, _)| prob_of(tokens))
        .collect()
}

#[test]
fn tokenwise_control_follows_equation_3() {
    for weight in [0.0, 0.7, 3.0, -1.5] {
        let counts = answer_counts(&format!("cd-token:{weight}"), 12_000);
        assert_follows(&counts, &tokenwise_law(&[weight]));
    }
}

#[test]
fn two_scorers_of_mixed_sign_follow_the_law_of_their_weighted_sum() {
    for weights in [[1.5, -0.8], [-0.5, 1.2]] {
        let counts = answer_counts_with("cd-token:2", 12_000, &|prompt| inputs_of(prompt, &weights));
        assert_follows(&counts, &tokenwise_law(&weights.map(|weight| 2.0 * weight)));
    }
}

/// Scorers that take the reward so far for the value.
struct Shortsighted;

impl Scorers for Shortsighted {
    fn state_values(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        vec![count_a(tokens) as f32]
    }

    fn action_values(&mut self, tokens: &[TokenId]) -> Vec<Vec<f32>> {
        let so_far = count_a(tokens) as f32;
        vec![vec![so_far, so_far + 1.0, so_far]]
    }

    fn asked_values(&mut self, _prefix: &Prefix) -> Vec<f64> {
        Vec::new()
    }
}

#[test]
fn the_law_tells_wrong_implementations_apart() {
    let law = tokenwise_law(&[3.0]);
    for wrong in [
        "cd-token:2.5",
        "cd-token:-3",
        "cd-token:weight=3,t=0.8",
        "sample",
        "bon:4",
    ] {
        let p_value = p_value(&answer_counts(wrong, 12_000), &law);
        assert!(p_value < 1e-9, "{wrong} passes as cd-token:3");
    }
    // The reward so far in place of the value of what will come.
    let model = TableLm::tiny();
    let sequences = model.enumerate();
    let mut counts = vec![0; sequences.len()];
    for prompt in 0..12_000 {
        let mut outcome =
            run_steered(&model, "cd-token:3", inputs(prompt), &mut Shortsighted).expect("it runs");
        let answer = outcome.candidates.remove(0).token_ids;
        counts[sequences
            .iter()
            .position(|(tokens, _)| *tokens == answer)
            .expect("known")] += 1;
    }
    assert!(p_value(&counts, &law) < 1e-9);
}

#[test]
fn the_kl_is_the_exact_sum_over_steps_and_its_mean_that_of_the_whole_law() {
    let model = TableLm::tiny();
    let step_kl = |prefix: &[TokenId]| {
        kl_nats(
            &tilted_log_probs(&model, prefix, &[3.0]),
            &model.log_probs(prefix),
        )
    };
    let along = |tokens: &[TokenId]| (0..tokens.len()).map(|idx| step_kl(&tokens[..idx])).sum::<f64>();
    for prompt in 0..200 {
        let candidate = run("cd-token:3", prompt).candidates.remove(0);
        // Logits are rounded to f32.
        assert!(
            (candidate.kl_nats - along(&candidate.token_ids)).abs() < 1e-6,
            "{candidate:?}"
        );
    }
    let (mut of_steps, mut of_law) = (0.0, 0.0);
    for ((tokens, reference_log_prob), prob) in model.enumerate().iter().zip(tokenwise_law(&[3.0])) {
        of_steps += prob * along(tokens);
        of_law += prob * (prob.ln() - reference_log_prob);
    }
    assert!((of_steps - of_law).abs() < 1e-12);
    assert!(of_law > 0.1, "the law is not the reference's: {of_law}");
}

#[test]
fn log_probs_are_those_of_the_tilted_and_of_the_reference_law() {
    let model = TableLm::tiny();
    let law = tokenwise_law(&[2.0]);
    for prompt in 0..100 {
        let candidate = run("cd-token:2", prompt).candidates.remove(0);
        let sequences = model.enumerate();
        let idx = sequences
            .iter()
            .position(|(tokens, _)| *tokens == candidate.token_ids)
            .expect("known");
        assert!((candidate.log_prob - law[idx].ln()).abs() < 1e-6);
        assert!((candidate.reference_log_prob - sequences[idx].1).abs() < 1e-6);
    }
}

#[test]
fn a_weight_of_zero_is_plain_sampling_token_for_token() {
    for prompt in 0..300 {
        let plain = run("sample:t=0.8,top_k=2", prompt).candidates.remove(0);
        let steered = run("cd-token:weight=0,t=0.8,top_k=2", prompt)
            .candidates
            .remove(0);
        assert_eq!(plain.token_ids, steered.token_ids);
        assert!((plain.kl_nats - steered.kl_nats).abs() < 1e-12);
    }
}

fn traced(prompt: u64, weights: &[f64], floor: Option<Floor>) -> DecoderInputs {
    let steering = Steering {
        floor,
        ..steering(weights, |scorer| ValueSource::Row { scorer })
    };
    DecoderInputs {
        steering: Arc::new(steering),
        trace: true,
        ..inputs(prompt)
    }
}

#[test]
fn the_trace_tells_every_token_with_its_values_and_weights() {
    let model = TableLm::tiny();
    for prompt in 0..50 {
        let outcome = run_with(&model, "cd-token:2", traced(prompt, &[1.5, -0.8], None)).expect("it runs");
        let candidate = &outcome.candidates[0];
        assert_eq!(outcome.trace.len(), candidate.token_ids.len());
        assert_eq!(
            (outcome.tokens_to_first_commit, outcome.block_kl),
            (Some(1), None)
        );
        assert_eq!(outcome.tokens_generated, candidate.token_ids.len() as u64);
        let exact = ExactScorers::new(&model).state_values(&candidate.token_ids);
        assert_eq!(
            outcome.values,
            exact.into_iter().map(f64::from).collect::<Vec<f64>>()
        );
        let (mut log_prob_sum, mut kl_sum) = (0.0, 0.0);
        for (idx, step) in outcome.trace.iter().enumerate() {
            let TraceStep::Token {
                token,
                log_prob,
                values,
                weights,
                kl_nats,
                ..
            } = step
            else {
                panic!("tokenwise control chooses no blocks");
            };
            assert_eq!(
                (*token, weights.as_slice()),
                (candidate.token_ids[idx], &[3.0, -1.6][..])
            );
            let exact = ExactScorers::new(&model).state_values(&candidate.token_ids[..=idx]);
            assert_eq!(*values, exact.into_iter().map(f64::from).collect::<Vec<f64>>());
            log_prob_sum += log_prob;
            kl_sum += kl_nats;
        }
        assert!((log_prob_sum - candidate.log_prob).abs() < 1e-12);
        assert!((kl_sum - candidate.kl_nats).abs() < 1e-12);
        let untraced = run_with(&model, "cd-token:2", inputs_of(prompt, &[1.5, -0.8])).expect("it runs");
        assert_eq!(
            (untraced.candidates, untraced.trace),
            (outcome.candidates, Vec::new())
        );
    }
}

#[test]
fn a_floor_holds_the_mean_value_of_every_step_with_the_least_weight() {
    let model = TableLm::tiny();
    let floor = Floor {
        term: 0,
        at_least: 1.2,
    };
    let (mut num_moved, mut num_free) = (0, 0);
    for prompt in 0..200 {
        // The length is sought, which costs `a`s.
        let outcome =
            run_with(&model, "cd-token:1", traced(prompt, &[0.0, 1.0], Some(floor))).expect("it runs");
        let tokens = &outcome.candidates[0].token_ids;
        for (idx, step) in outcome.trace.iter().enumerate() {
            let TraceStep::Token { weights, .. } = step else {
                panic!("tokens only")
            };
            let values = model.action_values(&tokens[..idx], &count_a);
            let law = tilted_log_probs(&model, &tokens[..idx], weights);
            let possible = || {
                law.iter()
                    .zip(&values)
                    .filter(|(log_prob, _)| log_prob.is_finite())
            };
            let mean: f64 = possible().map(|(log_prob, value)| log_prob.exp() * value).sum();
            let greatest = possible()
                .map(|(_, &value)| value)
                .fold(f64::NEG_INFINITY, f64::max);
            if weights[0] == 0.0 {
                assert!(mean >= 1.2);
                num_free += 1;
            } else if weights[0] < CdTokenConfig::MAX_FLOOR_WEIGHT {
                assert!((mean - 1.2).abs() < 1e-5, "{mean}");
                num_moved += 1;
            } else {
                assert!(greatest <= 1.2 + 1e-6, "{greatest} would have been enough");
            }
        }
    }
    assert!(num_moved > 20 && num_free > 20, "{num_moved} {num_free}");
}

#[test]
fn what_cannot_steer_tokens_is_refused_with_the_remedy() {
    let check = |weight: f64, steering: Steering, expect: &str| {
        let config = CdTokenConfig {
            weight,
            sampling: Sampling::REFERENCE,
        };
        let inputs = DecoderInputs {
            steering: Arc::new(steering),
            ..inputs(0)
        };
        let error = CdToken::try_new(config, Scoring::WhenChoosing, inputs).map(|_| ());
        let error = error.expect_err("must be refused").to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
    };
    let row = |scorer| ValueSource::Row { scorer };
    check(1.0, steering(&[], row), "name one, e.g. --scorer DIR");
    check(
        1.0,
        steering(&[1.0], |_| ValueSource::Asked),
        "steer with cd-block",
    );
    check(
        1.0,
        steering(&[1.0, f64::NAN], row),
        "weight of scorer scorer 1: expected a finite number, got NaN",
    );
    check(
        1e200,
        steering(&[1e200], row),
        "expected a finite number, got inf",
    );
    check(f64::INFINITY, steering(&[1.0], row), "cd-token weight");
    let with_floor = |term, at_least| Steering {
        floor: Some(Floor { term, at_least }),
        ..steering(&[1.0], row)
    };
    check(
        1.0,
        with_floor(1, 0.0),
        "floor term: expected the place of one of 1 scorers, from 0, got 1",
    );
    check(1.0, with_floor(0, f64::NAN), "floor: expected a finite number");
}

#[test]
fn a_scorer_that_is_not_there_ends_the_run() {
    let inputs = DecoderInputs {
        steering: Arc::new(steering(&[1.0], |_| ValueSource::Row { scorer: 2 })),
        ..inputs(0)
    };
    let error = run_with(&TableLm::tiny(), "cd-token:1", inputs).expect_err("there are two scorers");
    let expected = DecodeError::MissingValues {
        kind: "action",
        scorer: 2,
        num_scorers: 2,
    };
    assert_eq!(error, expected);
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let spec: DecodeSpec = "cd-token:1".parse().expect("valid");
    let mut decoder = spec.build(inputs(0)).expect("valid");
    let mut check = |answer: Answer, expect: &str| {
        let error = decoder.feed(answer).expect_err("must be refused").to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
        assert!(decoder.committed().is_empty() && decoder.take_actions().is_empty());
    };
    check(Answer::Rows(Vec::new()), "expected 1 rows, got 0");
    check(
        Answer::Rows(vec![RowAnswer::Top(Vec::new())]),
        "expected an answer with a guided token, got one with top log-probabilities",
    );
    check(Answer::Rewards(vec![1.0]), "expected an answer with rows");
    check(Answer::Values(vec![vec![1.0]]), "expected an answer with rows");
}

#[test]
fn the_reward_is_asked_for_where_every_candidate_is_scored() {
    let model = TableLm::tiny();
    let spec: DecodeSpec = "cd-token:1".parse().expect("valid");
    let mut decoder = spec.build_scored(inputs(3)).expect("valid");
    let outcome = drive_steered(
        decoder.as_mut(),
        &mut |prefix| model.logits(prefix),
        &mut |candidate: &Candidate| count_a(&candidate.token_ids),
        &mut ExactScorers::new(&model),
    )
    .expect("it runs");
    let candidate = &outcome.candidates[0];
    assert_eq!(candidate.reward, Some(count_a(&candidate.token_ids)));
    assert_eq!(run("cd-token:1", 3).candidates[0].reward, None);
}
