use trimtab_base::TokenId;
use trimtab_base::testing::TableLm;

use super::*;
use crate::answer::AnswerExtractor;
use crate::laws::{answer_counts, assert_follows, count_a, inputs, p_value, run};
use crate::need::{Candidate, FinishReason};
use crate::spec::DecodeSpec;
use crate::testing::drive;

/// `P(answer = y)` of best-of-N where rewards tie and ties go to the first candidate.
///
/// The class of the best reward is `c` with probability `F(c)^N - F(c-)^N`; the first candidate of that class is a
/// draw from the reference given the class.
fn best_of_n_law(num_candidates: i32, reward: impl Fn(&[TokenId]) -> f64) -> Vec<f64> {
    let sequences = TableLm::tiny().enumerate();
    let mass_where = |keep: &dyn Fn(f64) -> bool| -> f64 {
        sequences
            .iter()
            .filter(|(y, _)| keep(reward(y)))
            .map(|(_, log_prob)| log_prob.exp())
            .sum()
    };
    let law = sequences.iter().map(|(tokens, log_prob)| {
        let class = reward(tokens);
        let at_most = mass_where(&|other| other <= class).powi(num_candidates);
        let below = mass_where(&|other| other < class).powi(num_candidates);
        (at_most - below) * log_prob.exp() / mass_where(&|other| other == class)
    });
    law.collect()
}

#[test]
fn best_of_n_follows_the_closed_form_with_ties() {
    for num_candidates in [1, 2, 5] {
        let counts = answer_counts(&format!("bon:{num_candidates}"), 12_000);
        assert_follows(&counts, &best_of_n_law(num_candidates, count_a));
    }
}

#[test]
fn worst_of_n_follows_the_closed_form_with_ties() {
    for num_candidates in [2, 4] {
        let counts = answer_counts(&format!("won:{num_candidates}"), 12_000);
        assert_follows(&counts, &best_of_n_law(num_candidates, |tokens| -count_a(tokens)));
    }
}

#[test]
fn the_laws_tell_wrong_selections_apart() {
    let law = best_of_n_law(4, count_a);
    for wrong in ["won:4", "bon:3", "sample", "bon:n=4,t=0.8"] {
        assert!(
            p_value(&answer_counts(wrong, 12_000), &law) < 1e-9,
            "{wrong} passes as bon:4"
        );
    }
}

/// `P(answer = y)` of a vote of three where a response votes with its first letter, by enumeration of all triples.
fn majority_law() -> Vec<f64> {
    let sequences = TableLm::tiny().enumerate();
    let vote = |idx: usize| {
        sequences[idx]
            .0
            .first()
            .filter(|&&token| token != TableLm::EOS)
            .copied()
    };
    let mut law = vec![0.0; sequences.len()];
    let indices = || 0..sequences.len();
    for triple in indices().flat_map(|i| indices().flat_map(move |j| indices().map(move |k| [i, j, k]))) {
        let prob: f64 = triple.iter().map(|&idx| sequences[idx].1.exp()).product();
        let votes = triple.map(vote);
        let voters_for = |letter| votes.iter().filter(|vote| **vote == Some(letter)).count();
        let (num_a, num_b) = (voters_for(TokenId(1)), voters_for(TokenId(2)));
        let is_winner = |vote: &Option<TokenId>| match vote {
            Some(TokenId(1)) => num_a >= num_b,
            Some(_) => num_b >= num_a,
            None => num_a + num_b == 0,
        };
        let winner = votes.iter().position(is_winner).expect("somebody wins");
        law[triple[winner]] += prob;
    }
    law
}

#[test]
fn majority_follows_the_enumerated_law() {
    let counts = answer_counts("majority:n=3,pattern=^[ab]", 12_000);
    assert_follows(&counts, &majority_law());
    assert!(
        p_value(
            &answer_counts("majority:n=3,answer=text", 12_000),
            &majority_law()
        ) < 1e-9
    );
}

/// Law of sequences when each step's reference probabilities are transformed by `policy`.
fn sequence_law(policy: impl Fn(Vec<f64>) -> Vec<f64>) -> Vec<f64> {
    let model = TableLm::tiny();
    let prob_of = |tokens: &[TokenId]| -> f64 {
        let step = |idx: usize| {
            let weights = policy(
                model
                    .log_probs(&tokens[..idx])
                    .iter()
                    .map(|log_prob| log_prob.exp())
                    .collect(),
            );
            weights[tokens[idx].index()] / weights.iter().sum::<f64>()
        };
        (0..tokens.len()).map(step).product()
    };
    model
        .enumerate()
        .iter()
        .map(|(tokens, _)| prob_of(tokens))
        .collect()
}

#[test]
fn sampling_follows_its_policy() {
    let temper =
        |probs: Vec<f64>, exponent: f64| -> Vec<f64> { probs.iter().map(|p| p.powf(exponent)).collect() };
    let without_least = |mut probs: Vec<f64>| {
        let least = probs.iter().copied().fold(f64::INFINITY, f64::min);
        probs.iter_mut().filter(|p| **p == least).for_each(|p| *p = 0.0);
        probs
    };
    let with_best = |mut probs: Vec<f64>| {
        let best = probs.iter().copied().fold(0.0, f64::max);
        probs
            .iter_mut()
            .filter(|p| **p < 0.6 * best)
            .for_each(|p| *p = 0.0);
        probs
    };
    assert_follows(&answer_counts("sample", 12_000), &sequence_law(|probs| probs));
    assert_follows(
        &answer_counts("sample:t=0.5", 12_000),
        &sequence_law(|probs| temper(probs, 2.0)),
    );
    assert_follows(
        &answer_counts("sample:t=2", 12_000),
        &sequence_law(|probs| temper(probs, 0.5)),
    );
    assert_follows(
        &answer_counts("sample:top_k=2", 12_000),
        &sequence_law(|probs| {
            // The forced end has one possible token, which stays.
            if probs.contains(&0.0) {
                probs
            } else {
                without_least(probs)
            }
        }),
    );
    assert_follows(
        &answer_counts("sample:min_p=0.6", 12_000),
        &sequence_law(with_best),
    );
    assert!(
        p_value(
            &answer_counts("sample:t=0.5", 12_000),
            &sequence_law(|probs| probs)
        ) < 1e-9
    );
}

#[test]
fn tempered_kl_has_the_exact_expectation() {
    let model = TableLm::tiny();
    let sampling = Sampling::at_temperature(0.6);
    let op = RowOp::Sample {
        sampling: Arc::new(sampling),
        coin: 0.5,
    };
    let step_kl = |prefix: &[TokenId]| match op.apply(&model.logits(prefix)) {
        Ok(RowAnswer::Sampled(sampled)) => sampled.kl_nats,
        other => panic!("expected a token, got {other:?}"),
    };
    let law = sequence_law(|probs| probs.iter().map(|p| p.powf(1.0 / 0.6)).collect());
    let (mut sum_of_steps, mut closed_form) = (0.0, 0.0);
    for ((tokens, reference_log_prob), prob) in model.enumerate().iter().zip(&law) {
        sum_of_steps += prob * (0..tokens.len()).map(|idx| step_kl(&tokens[..idx])).sum::<f64>();
        closed_form += prob * (prob.ln() - reference_log_prob);
    }
    // Logits are rounded to f32.
    assert!(
        (sum_of_steps - closed_form).abs() < 1e-6,
        "{sum_of_steps} against {closed_form}"
    );

    let num_runs = 4_000;
    let drawn: Vec<Candidate> = (0..num_runs)
        .map(|prompt| run("sample:t=0.6", prompt).candidates.remove(0))
        .collect();
    let mean = |of: &dyn Fn(&Candidate) -> f64| drawn.iter().map(of).sum::<f64>() / num_runs as f64;
    let mean_kl = mean(&|candidate| candidate.kl_nats);
    let deviation = mean(&|candidate| (candidate.kl_nats - mean_kl).powi(2)).sqrt();
    // Four standard errors.
    assert!(
        (mean_kl - closed_form).abs() < 4.0 * deviation / (num_runs as f64).sqrt(),
        "{mean_kl}, {closed_form}"
    );
    // The sequence log-ratio has the same mean, with more noise; its sums are over the same tokens.
    let mean_ratio = mean(&|candidate| candidate.log_prob - candidate.reference_log_prob);
    assert!(
        (mean_ratio - closed_form).abs() < 0.05,
        "{mean_ratio}, {closed_form}"
    );
}

#[test]
fn at_temperature_one_policy_and_reference_agree() {
    let outcome = run("bon:8", 3);
    for candidate in &outcome.candidates {
        assert_eq!(
            (candidate.log_prob, candidate.kl_nats),
            (candidate.reference_log_prob, 0.0)
        );
        let (_, expected) = TableLm::tiny()
            .enumerate()
            .into_iter()
            .find(|(tokens, _)| *tokens == candidate.token_ids)
            .expect("known");
        assert!((candidate.log_prob - expected).abs() < 1e-6);
        assert_eq!(candidate.finish, FinishReason::StopToken);
        assert_eq!(candidate.reward, Some(count_a(&candidate.token_ids)));
    }
    let num_tokens: usize = outcome
        .candidates
        .iter()
        .map(|candidate| candidate.token_ids.len())
        .sum();
    assert_eq!(outcome.tokens_generated, num_tokens as u64);
}

#[test]
fn sample_i_is_the_same_whatever_n() {
    for prompt in 0..50 {
        let sixteen = run("bon:16", prompt).candidates;
        assert_eq!(run("bon:4", prompt).candidates, sixteen[..4]);
        assert_eq!(run("won:1", prompt).candidates, sixteen[..1]);
        assert_eq!(
            run("sample", prompt).candidates[0].token_ids,
            sixteen[0].token_ids
        );
        assert_ne!(run("bon:16", prompt + 1).candidates, sixteen);
    }
}

#[test]
fn greedy_takes_the_most_probable_token_with_certainty() {
    let model = TableLm::tiny();
    let candidate = run("greedy", 0).candidates.remove(0);
    for (idx, token) in candidate.token_ids.iter().enumerate() {
        let log_probs = model.log_probs(&candidate.token_ids[..idx]);
        assert!(log_probs.iter().all(|&other| other <= log_probs[token.index()]));
    }
    assert_eq!(
        (candidate.log_prob, candidate.kl_nats),
        (0.0, -candidate.reference_log_prob)
    );
    assert!(candidate.kl_nats > 0.1);
    assert_eq!(run("sample:t=0", 7).candidates[0], candidate);
}

fn candidates(rewards: &[f64], texts: &[&str]) -> Vec<Candidate> {
    let template = run("sample", 0).candidates.remove(0);
    let candidate = |idx: usize| Candidate {
        candidate_idx: idx as u64,
        reward: rewards.get(idx).copied(),
        text: texts.get(idx).copied().unwrap_or_default().to_owned(),
        ..template.clone()
    };
    (0..rewards.len().max(texts.len())).map(candidate).collect()
}

#[test]
fn equals_go_to_the_first_candidate() {
    let check = |selection: Selection, rewards: &[f64], expect: usize| {
        assert_eq!(
            selection.choose(&candidates(rewards, &[])),
            expect,
            "{selection:?} of {rewards:?}"
        );
    };
    check(Selection::First, &[1.0, 2.0], 0);
    check(Selection::Best, &[1.0, 3.0, 3.0, 2.0], 1);
    check(Selection::Best, &[-5.0, -4.0], 1);
    check(Selection::Best, &[f64::NEG_INFINITY, f64::NEG_INFINITY], 0);
    check(Selection::Best, &[f64::NEG_INFINITY, 0.0, f64::INFINITY], 2);
    check(Selection::Best, &[0.0, -0.0], 0);
    check(Selection::Worst, &[2.0, 1.0, 1.0, 3.0], 1);
    check(Selection::Worst, &[f64::INFINITY, f64::INFINITY], 0);
    check(Selection::Worst, &[0.0, f64::NEG_INFINITY], 1);
}

#[test]
fn votes_count_answers_not_texts() {
    let check = |texts: &[&str], expect: usize| {
        let chosen = Selection::Majority(AnswerExtractor::LastNumber).choose(&candidates(&[], texts));
        assert_eq!(chosen, expect, "{texts:?}");
    };
    check(&["it is 4", "1,000", "so 1000.0"], 1);
    check(&["3", "4", "4", "3"], 0);
    check(&["none", "none", "7"], 2);
    check(&["none", "nor here"], 0);
}

/// A decoder of two candidates that waits for rewards.
fn waiting_for_rewards() -> BestOfN {
    let config = BestOfNConfig {
        num_candidates: 2,
        sampling: Sampling::GREEDY,
        selection: Selection::Best,
        scoring: Scoring::WhenChoosing,
    };
    let stop = StopRules {
        max_new_tokens: 1,
        ..inputs(0).stop
    };
    let mut decoder = BestOfN::try_new(config, DecoderInputs { stop, ..inputs(0) }).expect("valid");
    let Need::Rows(rows) = decoder.next_need() else {
        panic!("a fresh decoder needs rows")
    };
    let answers = rows
        .iter()
        .map(|row| row.op.apply(&[0.0, 1.0]).expect("usable"))
        .collect();
    decoder.feed(Answer::Rows(answers)).expect("fits");
    decoder
}

#[test]
fn answers_that_do_not_fit_are_refused_and_change_nothing() {
    let mut decoder = waiting_for_rewards();
    let check = |decoder: &mut BestOfN, answer: Answer, expect: &str| {
        let error = decoder.feed(answer).expect_err("must be refused").to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
        assert!(matches!(decoder.next_need(), Need::Rewards(candidates) if candidates.len() == 2));
    };
    check(
        &mut decoder,
        Answer::Rewards(vec![1.0, f64::NAN]),
        "candidate 1: expected a number as reward, got NaN",
    );
    check(
        &mut decoder,
        Answer::Rewards(vec![1.0]),
        "expected 2 rewards, got 1",
    );
    check(
        &mut decoder,
        Answer::Rows(Vec::new()),
        "expected an answer with rewards, got one with rows",
    );
    decoder.feed(Answer::Rewards(vec![1.0, 2.0])).expect("fits");
    assert_eq!(decoder.outcome().map(|outcome| outcome.chosen), Some(1));
    assert!(decoder.feed(Answer::Rewards(vec![1.0, 2.0])).is_err());

    let mut fresh = "bon:2"
        .parse::<DecodeSpec>()
        .and_then(|spec| spec.build(inputs(0)))
        .expect("valid");
    let error = |answer| fresh.feed(answer).expect_err("must be refused").to_string();
    let mut error = error;
    assert!(error(Answer::Rows(Vec::new())).contains("expected 2 rows, got 0"));
    assert!(error(Answer::Rewards(Vec::new())).contains("expected an answer with rows"));
    let top = || RowAnswer::Top(Vec::new());
    assert!(error(Answer::Rows(vec![top(), top()])).contains("expected an answer with sampled tokens"));
}

#[test]
fn rewards_are_asked_for_only_where_told() {
    let model = TableLm::tiny();
    let num_asked = |spec: &str, is_scored: bool| {
        let spec: DecodeSpec = spec.parse().expect("valid");
        let decoder = if is_scored {
            spec.build_scored(inputs(0))
        } else {
            spec.build(inputs(0))
        };
        let mut num_asked = 0;
        let mut reward = |_: &Candidate| {
            num_asked += 1;
            1.0
        };
        drive(
            decoder.expect("valid").as_mut(),
            &mut |prefix| model.logits(prefix),
            &mut reward,
        )
        .expect("runs");
        num_asked
    };
    for (spec, unscored, scored) in [
        ("sample", 0, 1),
        ("greedy", 0, 1),
        ("majority:3", 0, 3),
        ("bon:3", 3, 3),
        ("won:2", 2, 2),
        ("beam:2", 0, 2),
    ] {
        assert_eq!(
            (num_asked(spec, false), num_asked(spec, true)),
            (unscored, scored),
            "{spec}"
        );
    }
}

#[test]
fn damaged_logits_end_the_run_with_their_count() {
    let mut decoder = "sample"
        .parse::<DecodeSpec>()
        .and_then(|spec| spec.build(inputs(0)))
        .expect("valid");
    let error = drive(
        decoder.as_mut(),
        &mut |_| vec![f32::NAN, 0.0, f32::NEG_INFINITY],
        &mut |_| 0.0,
    );
    let expected = DecodeError::UnusableLogits {
        vocab_len: 3,
        num_nan: 1,
        num_infinite: 0,
        num_impossible: 1,
    };
    assert_eq!(error, Err(expected));
}
