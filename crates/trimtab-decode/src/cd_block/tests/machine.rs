//! What the machine does besides its law: coins, branches, sources of values, traces, rewards.

use proptest::prelude::*;

use super::*;
use crate::laws::{count_a, inputs, run, run_with, steering};
use crate::need::{Candidate, Prefix};
use crate::spec::DecodeSpec;
use crate::steering::{Floor, Steering};
use crate::stop::StopRules;
use crate::testing::drive_steered;

/// The answer's tokens.
fn answer(spec: &str, inputs: DecoderInputs) -> Vec<TokenId> {
    let outcome = run_with(&TableLm::tiny(), spec, inputs).expect("it runs");
    outcome.candidates[outcome.chosen].token_ids.clone()
}

#[test]
fn whole_blocks_are_best_of_k_draw_for_draw() {
    for prompt in 0..300 {
        // The value of a response that has ended is its reward.
        let best = answer("bon:n=5,t=0.8", inputs(prompt));
        for spec in [
            "cd-block:k=5,m=whole,t=0.8",
            "cd-block:k=5,m=4,t=0.8",
            "cd-block:k=5,m=900,t=0.8",
        ] {
            assert_eq!(answer(spec, inputs(prompt)), best, "{spec} {prompt}");
        }
        // B branches of whole responses are the best of B K.
        assert_eq!(
            answer("cd-block:k=2,m=whole,beams=3", inputs(prompt)),
            answer("bon:6", inputs(prompt))
        );
    }
}

#[test]
fn one_candidate_is_plain_sampling_draw_for_draw() {
    for prompt in 0..200 {
        let plain = run("sample:top_k=2", prompt).candidates.remove(0);
        for block_len in ["1", "2", "whole"] {
            let outcome = run(&format!("cd-block:k=1,m={block_len},top_k=2"), prompt);
            assert_eq!(outcome.candidates, std::slice::from_ref(&plain), "{block_len}");
            assert_eq!(outcome.tokens_generated, plain.token_ids.len() as u64);
            let block_kl = outcome.block_kl.expect("blocks were chosen");
            assert_eq!((block_kl.bound_nats, block_kl.estimate_nats), (0.0, None));
        }
    }
}

#[test]
fn blocks_draw_with_coins_of_candidate_and_position() {
    // Candidates of the first block begin as best-of-N's; audit blocks change no answer.
    for prompt in 0..100 {
        let inputs = DecoderInputs {
            trace: true,
            ..inputs(prompt)
        };
        let drawn = run("bon:4", prompt).candidates;
        let outcome = run_with(&TableLm::tiny(), "cd-block:k=4,m=2", inputs.clone()).expect("it runs");
        let TraceStep::Block { candidates, .. } = &outcome.trace[0] else {
            panic!("blocks only")
        };
        for (block, candidate) in candidates.iter().zip(&drawn) {
            assert!(candidate.token_ids.starts_with(&block.token_ids));
        }
        let audited = run_with(&TableLm::tiny(), "cd-block:k=4,m=2,audit=3", inputs).expect("it runs");
        assert_eq!(
            (&audited.candidates, &audited.trace),
            (&outcome.candidates, &outcome.trace)
        );
        assert!(audited.tokens_generated > outcome.tokens_generated);
    }
}

#[test]
fn values_that_are_asked_steer_as_those_of_rows() {
    for prompt in 0..200 {
        for spec in [
            "cd-block:k=3,m=1",
            "cd-block:k=2,m=2,beams=2",
            "cd-block:k=3,m=whole",
        ] {
            let weights = [1.0, -0.4];
            let by_row = run_with(&TableLm::tiny(), spec, inputs_of(prompt, &weights)).expect("it runs");
            let asked = DecoderInputs {
                steering: Arc::new(steering(&weights, |_| ValueSource::Asked)),
                ..inputs(prompt)
            };
            assert_eq!(run_with(&TableLm::tiny(), spec, asked).as_ref(), Ok(&by_row));
            // The second of two is asked: the caller's list has that one alone.
            let mixed = |idx| {
                if idx == 0 {
                    ValueSource::Row { scorer: 0 }
                } else {
                    ValueSource::Asked
                }
            };
            let mixed = DecoderInputs {
                steering: Arc::new(steering(&weights, mixed)),
                ..inputs(prompt)
            };
            let model = TableLm::tiny();
            let mut scorers = AskedOnly {
                scorers: ExactScorers::new(&model),
                is_row: vec![true, false],
            };
            let outcome = run_steered(&model, spec, mixed, &mut scorers);
            assert_eq!(outcome.as_ref(), Ok(&by_row));
        }
    }
}

/// What a run says to its driver, for tests of single steps.
fn steps_of(spec: &str, prompt: u64) -> Vec<(Vec<Action>, Need)> {
    let model = TableLm::tiny();
    let mut scorers = ExactScorers::new(&model);
    let mut decoder = spec
        .parse::<DecodeSpec>()
        .and_then(|spec| spec.build(inputs(prompt)))
        .expect("valid");
    let mut branches: HashMap<BranchId, Tokens> = HashMap::from([(BranchId::ROOT, Vec::new())]);
    let mut steps = Vec::new();
    loop {
        let (actions, need) = (decoder.take_actions(), decoder.next_need());
        for action in &actions {
            match *action {
                Action::Fork { parent, child } => drop(branches.insert(child, branches[&parent].clone())),
                Action::Append { branch, token } => branches.get_mut(&branch).expect("it lives").push(token),
                Action::Prune { branch } => drop(branches.remove(&branch)),
            }
        }
        steps.push((actions, need.clone()));
        let Need::Rows(rows) = need else { return steps };
        let answer = |request: &RowRequest| {
            let tokens = &branches[&request.branch];
            let (logits, state_values) = (model.logits(tokens), scorers.state_values(tokens));
            let row = crate::Row {
                logits: &logits,
                state_values: &state_values,
                action_values: &[],
            };
            request.op.apply_row(&row).expect("usable")
        };
        decoder
            .feed(Answer::Rows(rows.iter().map(answer).collect()))
            .expect("it fits");
    }
}

#[test]
fn losers_are_pruned_at_once_and_the_winner_is_forked_without_a_row_of_its_own() {
    let mut num_choices = 0;
    for prompt in 0..100 {
        let mut live = vec![BranchId::ROOT];
        let steps = steps_of("cd-block:k=4,m=2", prompt);
        for (idx, (actions, need)) in steps.iter().enumerate() {
            for action in actions {
                match *action {
                    Action::Fork { child, .. } => live.push(child),
                    Action::Prune { branch } => live.retain(|&other| other != branch),
                    Action::Append { .. } => {}
                }
                assert!(live.len() <= 4, "never more than K");
            }
            let asked_before = idx > 0 && is_all_values(&steps[idx - 1].1);
            let is_choice =
                asked_before && actions.iter().any(|action| matches!(action, Action::Fork { .. }));
            if is_choice {
                num_choices += 1;
                // Prunes come before forks, and what is drawn next is drawn from the winner's row as it stands.
                let first_fork = actions
                    .iter()
                    .position(|action| matches!(action, Action::Fork { .. }));
                let last_prune = actions
                    .iter()
                    .rposition(|action| matches!(action, Action::Prune { .. }));
                assert!(last_prune < first_fork);
                assert!(
                    !actions
                        .iter()
                        .any(|action| matches!(action, Action::Append { .. }))
                );
                let Need::Rows(rows) = need else {
                    panic!("the next block's first tokens")
                };
                assert_eq!((rows.len(), live.len()), (4, 4));
                assert!(rows.iter().all(|row| matches!(row.op, RowOp::Sample { .. })));
            }
        }
        assert!(live.is_empty());
    }
    assert!(num_choices > 50);
}

fn is_all_values(need: &Need) -> bool {
    matches!(need, Need::Rows(rows) if rows.iter().all(|row| matches!(row.op, RowOp::StateValues)))
}

#[test]
fn blocks_of_one_length_are_valued_in_one_need() {
    for prompt in 0..50 {
        let steps = steps_of("cd-block:k=3,m=1", prompt);
        // One-token blocks: rows alternate between three draws and three values.
        for (idx, (_, need)) in steps[..steps.len() - 1].iter().enumerate() {
            let Need::Rows(rows) = need else {
                panic!("no scorer is asked")
            };
            assert_eq!((rows.len(), is_all_values(need)), (3, idx % 2 == 1));
        }
    }
}

#[test]
fn the_trace_shows_every_candidate_and_adds_up_to_the_answer() {
    for prompt in 0..100 {
        let inputs = DecoderInputs {
            trace: true,
            ..inputs_of(prompt, &[1.0, -0.3])
        };
        let outcome = run_with(&TableLm::tiny(), "cd-block:k=3,m=2", inputs).expect("it runs");
        let answer = &outcome.candidates[outcome.chosen];
        let mut tokens = Vec::new();
        let (mut reference_log_prob, mut drawn) = (0.0, 0);
        for step in &outcome.trace {
            let TraceStep::Block {
                committed_len,
                candidates,
            } = step
            else {
                panic!("blocks only")
            };
            assert_eq!((*committed_len, candidates.len()), (tokens.len(), 3));
            let kept = candidates
                .iter()
                .find(|block| block.is_kept)
                .expect("one is kept");
            tokens.extend_from_slice(&kept.token_ids);
            reference_log_prob += kept.reference_log_prob;
            drawn += candidates
                .iter()
                .map(|block| block.token_ids.len() as u64)
                .sum::<u64>();
            for block in candidates {
                let mixed = block.values[0] - 0.3 * block.values[1];
                assert!((block.mixed_value - mixed).abs() < 1e-12);
            }
        }
        assert_eq!((&tokens, drawn), (&answer.token_ids, outcome.tokens_generated));
        assert!((reference_log_prob - answer.reference_log_prob).abs() < 1e-12);
        let exact = ExactScorers::new(&TableLm::tiny()).state_values(&tokens);
        assert_eq!(
            outcome.values,
            exact.into_iter().map(f64::from).collect::<Vec<f64>>()
        );
        assert_eq!(
            outcome.block_kl.expect("there").num_choices,
            outcome.trace.len() as u64
        );
    }
}

#[test]
fn what_is_committed_first_has_cost_one_choice() {
    for prompt in 0..100 {
        let outcome = run("cd-block:k=3,m=1", prompt);
        assert_eq!(outcome.tokens_to_first_commit, Some(3));
        let whole = run("cd-block:k=3,m=whole", prompt);
        assert_eq!(whole.tokens_to_first_commit, Some(whole.tokens_generated));
        // Two branches agree on nothing for sure after one choice, but on something in the end.
        let beams = run("cd-block:k=2,m=1,beams=2", prompt);
        assert!(beams.tokens_to_first_commit >= Some(4));
        assert!(beams.tokens_to_first_commit <= Some(beams.tokens_generated));
    }
}

#[test]
fn beams_leave_with_their_candidates_and_the_best_is_the_answer() {
    let mut num_second = 0;
    for prompt in 0..200 {
        let outcome = run("cd-block:k=2,m=1,beams=3", prompt);
        assert_eq!(outcome.candidates.len(), 3);
        let values: Vec<f64> = outcome
            .candidates
            .iter()
            .map(|candidate| count_a(&candidate.token_ids))
            .collect();
        let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(
            Some(outcome.chosen),
            values.iter().position(|&value| value == best)
        );
        assert_eq!(outcome.values, [best]);
        num_second += usize::from(outcome.chosen > 0);
    }
    assert!(num_second > 10, "the best is not always the first: {num_second}");
}

#[test]
fn rewards_are_asked_for_only_where_told_and_change_no_choice() {
    let model = TableLm::tiny();
    for prompt in 0..50 {
        let spec: DecodeSpec = "cd-block:k=2,m=1,beams=2".parse().expect("valid");
        let mut decoder = spec.build_scored(inputs(prompt)).expect("valid");
        let scored = drive_steered(
            decoder.as_mut(),
            &mut |prefix| model.logits(prefix),
            // The worst answer has the greatest reward.
            &mut |candidate: &Candidate| -count_a(&candidate.token_ids),
            &mut ExactScorers::new(&model),
        )
        .expect("it runs");
        let unscored = run("cd-block:k=2,m=1,beams=2", prompt);
        assert_eq!(scored.chosen, unscored.chosen);
        for (scored, unscored) in scored.candidates.iter().zip(&unscored.candidates) {
            assert_eq!((&scored.token_ids, unscored.reward), (&unscored.token_ids, None));
            assert_eq!(scored.reward, Some(-count_a(&scored.token_ids)));
        }
    }
}

prop_compose! {
    /// Settings that do not exclude each other, with a floor or none.
    fn any_settings()(
        (num_candidates, beams, audit) in (1_usize..4, prop_oneof![Just(1), 1_usize..4], 0_usize..3),
        block_len in prop::option::of(1_usize..5),
        temperature in prop::option::of(0.1_f64..3.0),
        block_end in prop_oneof![Just(BlockEnd::Tokens), Just(BlockEnd::Newline), Just(BlockEnd::Sentence)],
        target in prop::option::of(0.0_f64..2.0),
        token_budget in prop::option::of(1_u64..40),
        floor in prop::option::of(0.0_f64..2.0),
    ) -> (CdBlockConfig, Option<Floor>) {
        let choice = temperature.map_or(BlockChoice::Best, |temperature| BlockChoice::Proportional { temperature });
        let floor = floor.filter(|_| choice == BlockChoice::Best).map(|at_least| Floor { term: 0, at_least });
        let audit = if beams == 1 && choice == BlockChoice::Best && floor.is_none() { audit } else { 0 };
        let sampling = Sampling::REFERENCE;
        let config = CdBlockConfig {
            num_candidates, block_len, beams, choice, block_end, target, token_budget, audit, sampling,
        };
        (config, floor)
    }
}

proptest! {
    /// The driver asserts the protocol; here is what must hold of every outcome.
    #[test]
    fn any_settings_keep_the_protocol_and_their_promises(
        (config, floor) in any_settings(),
        (max_new_tokens, has_stop_string) in (1_usize..6, any::<bool>()),
        sources in prop::collection::vec(any::<bool>(), 2),
        prompt in 0_u64..1000,
    ) {
        let source = |scorer: usize| {
            if sources[scorer] { ValueSource::Row { scorer } } else { ValueSource::Asked }
        };
        let stop_strings = if has_stop_string { vec!["ab".to_owned()] } else { Vec::new() };
        let inputs = DecoderInputs {
            stop: StopRules { stop_strings, max_new_tokens, ..inputs(0).stop },
            steering: Arc::new(Steering { floor, ..steering(&[1.0, -0.3], source) }),
            trace: true,
            ..inputs(prompt)
        };
        let model = TableLm::tiny();
        let mut decoder = CdBlock::try_new(config, Scoring::WhenChoosing, inputs).expect("valid");
        let outcome = drive_steered(
            &mut decoder,
            &mut |prefix| model.logits(prefix),
            &mut |_| 0.0,
            &mut AskedOnly { scorers: ExactScorers::new(&model), is_row: sources },
        ).expect("it runs");
        let block_kl = outcome.block_kl.expect("always there");
        prop_assert!(outcome.candidates.len() <= config.beams);
        prop_assert!(outcome.candidates.iter().all(|candidate| candidate.token_ids.len() <= max_new_tokens));
        if let Some(budget) = config.token_budget {
            prop_assert!(outcome.tokens_generated <= budget.max(max_new_tokens as u64));
        }
        prop_assert!(outcome.tokens_to_first_commit <= Some(outcome.tokens_generated));
        prop_assert!(block_kl.num_choices as usize <= outcome.trace.len());
        prop_assert!(block_kl.bound_nats >= block_kl.estimate_nats.unwrap_or(0.0) - 1e-12);
        prop_assert_eq!(outcome.values.is_empty(), block_kl.num_choices == 0);
        for step in &outcome.trace {
            let TraceStep::Block { candidates, .. } = step else { panic!("blocks only") };
            prop_assert!(candidates.len() <= config.num_candidates * config.beams);
            prop_assert!(candidates.iter().filter(|block| block.is_kept).count() <= config.beams);
        }
    }
}

/// Exact values; the caller is asked for those alone that do not come with the row.
struct AskedOnly<'a> {
    scorers: ExactScorers<'a>,
    is_row: Vec<bool>,
}

impl Scorers for AskedOnly<'_> {
    fn state_values(&mut self, tokens: &[TokenId]) -> Vec<f32> {
        self.scorers.state_values(tokens)
    }

    fn action_values(&mut self, _tokens: &[TokenId]) -> Vec<Vec<f32>> {
        Vec::new()
    }

    fn asked_values(&mut self, prefix: &Prefix) -> Vec<f64> {
        let values = self.scorers.asked_values(prefix).into_iter();
        let asked = values.zip(&self.is_row).filter(|(_, is_row)| !**is_row);
        asked.map(|(value, _)| value).collect()
    }
}
