use super::*;
use crate::frontier::FrontierPoint;

fn scored(reward: f64) -> Scored {
    Scored {
        reward,
        log_prob: -3.0,
        reference_log_prob: -3.0,
        kl_nats: 0.0,
        num_tokens: 10,
    }
}

/// A best-of-N run: the answer is the best of the candidates.
fn best_of(prompt_idx: u64, rewards: &[f64]) -> PromptRun {
    let candidates: Vec<Scored> = rewards.iter().map(|&reward| scored(reward)).collect();
    let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    PromptRun {
        prompt_idx,
        answers: vec![scored(best)],
        candidates,
        tokens_generated: 10 * rewards.len() as u64,
    }
}

fn bon(method: &str, runs: Vec<PromptRun>) -> MethodRuns {
    let num_candidates = runs[0].candidates.len() as u32;
    let kl_rule = KlRule::BestOfN { num_candidates };
    MethodRuns {
        method: method.to_owned(),
        num_candidates,
        kl_rule,
        runs,
    }
}

fn input(methods: Vec<MethodRuns>) -> FrontierInput {
    let facts = RunFacts {
        model: "m".into(),
        model_sha256: "00".into(),
        seed: 1,
        precision: "f32".into(),
        reward: "length".into(),
        reward_unit: "nats".into(),
        config_sha256: "11".into(),
        version: "0".into(),
    };
    let references = [(0, [0.0, 1.0]), (1, [2.0, 2.0])].map(|(prompt_idx, rewards)| ReferenceSamples {
        prompt_idx,
        rewards: rewards.to_vec(),
    });
    FrontierInput {
        facts,
        methods,
        references: references.to_vec(),
    }
}

fn only_point(method: MethodRuns) -> FrontierPoint {
    Frontier::compute(&input(vec![method])).unwrap().points.remove(0)
}

#[test]
fn a_point_is_made_of_means_over_prompts() {
    let point = only_point(bon(
        "bon:2",
        vec![best_of(1, &[3.0, 2.0]), best_of(0, &[1.0, 1.0])],
    ));
    assert_eq!(point.reward_mean, 2.0);
    assert_eq!(point.reward_gain, 0.75);
    assert_eq!(point.win_rate, 0.875);
    assert_eq!(point.tokens_generated, 40);
    assert_eq!(point.tokens_per_answer, 20.0);
    assert_eq!(point.kl_kind, KlKind::Bound);
    assert_eq!(point.kl_nats, 0.193147);
    assert_eq!(point.kl_ci, None, "the bound does not depend on samples");
    // Prompt 0 ties and so moves nothing; prompt 1 does not tie and reaches the bound.
    let estimate = point.kl_estimate_nats.unwrap();
    assert!((estimate - 0.193147 / 2.0).abs() < 1e-6, "{estimate}");
}

#[test]
fn another_policy_than_the_reference_adds_its_log_ratio() {
    let mut runs = vec![best_of(0, &[0.0, 1.0]), best_of(1, &[0.0, 1.0])];
    for (run, log_prob) in runs.iter_mut().zip([-2.5, -2.0]) {
        run.answers[0].log_prob = log_prob;
        run.candidates[0].kl_nats = 0.3;
    }
    let point = only_point(bon("bon:2,t=0.7", runs));
    assert!(
        (point.kl_nats - (0.193147 + 0.75)).abs() < 2e-6,
        "{}",
        point.kl_nats
    );
    assert!(point.kl_ci.is_some(), "its log-ratio is sampled");
    assert!((point.kl_estimate_nats.unwrap() - (0.193147 + 0.75)).abs() < 2e-6);
}

#[test]
fn each_rule_has_its_kind_and_value() {
    let check = |kl_rule: KlRule, kind: KlKind, expect: f64| {
        let mut runs = vec![best_of(0, &[0.0, 1.0, 2.0]), best_of(1, &[0.0, 1.0, 2.0])];
        for run in &mut runs {
            run.answers[0].reference_log_prob = -3.25;
            run.candidates[0].kl_nats = 0.6;
        }
        let point = only_point(MethodRuns {
            kl_rule,
            ..bon("m", runs)
        });
        assert_eq!(point.kl_kind, kind, "{kl_rule:?}");
        assert!(
            (point.kl_nats - expect).abs() < 1e-6,
            "{kl_rule:?}: {}",
            point.kl_nats
        );
    };
    check(KlRule::TokenwiseSum, KlKind::Exact, 0.2);
    check(KlRule::Deterministic, KlKind::Exact, 3.25);
    check(KlRule::LogRatio, KlKind::Estimate, 0.25);
    check(
        KlRule::Selection { num_candidates: 3 },
        KlKind::Bound,
        3.0_f64.ln() + 0.25,
    );
    check(
        KlRule::WorstOfN { num_candidates: 3 },
        KlKind::Bound,
        best_of_n_bound_nats(3) + 0.25,
    );
    // Ten tokens are three blocks of at most four.
    check(
        KlRule::Blockwise {
            num_candidates: 3,
            block_len: 4,
        },
        KlKind::Bound,
        3.0 * best_of_n_bound_nats(3),
    );
}

#[test]
fn the_worst_has_the_estimate_of_the_best_of_negated_rewards() {
    let rewards = [0.0, 0.0, 0.0, 0.0, 0.0, 5.0];
    let estimate = |kl_rule, sign: f64| {
        let runs = [0, 1].map(|prompt_idx| best_of(prompt_idx, &rewards.map(|reward| sign * reward)));
        only_point(MethodRuns {
            kl_rule,
            ..bon("m", runs.to_vec())
        })
        .kl_estimate_nats
        .unwrap()
    };
    let worst = estimate(KlRule::WorstOfN { num_candidates: 3 }, 1.0);
    assert_eq!(worst, estimate(KlRule::BestOfN { num_candidates: 3 }, -1.0));
    assert_ne!(worst, estimate(KlRule::BestOfN { num_candidates: 3 }, 1.0));
}

#[test]
fn the_curve_uses_the_largest_pool_that_is_the_references() {
    let small = bon("bon:2", vec![best_of(0, &[0.0, 1.0]), best_of(1, &[0.0, 1.0])]);
    let large = bon(
        "bon:4",
        vec![
            best_of(0, &[0.0, 1.0, 2.0, 3.0]),
            best_of(1, &[0.0, 1.0, 2.0, 3.0]),
        ],
    );
    let frontier = Frontier::compute(&input(vec![small, large])).unwrap();
    let counts: Vec<u32> = frontier
        .best_of_n_curve
        .iter()
        .map(|point| point.num_candidates)
        .collect();
    assert_eq!(counts, [1, 2, 3, 4]);
    // All six responses of a prompt: means of {0,1,0,1,2,3} and {2,2,0,1,2,3}.
    assert!((frontier.best_of_n_curve[0].reward_mean - 17.0 / 12.0).abs() < 1e-6);
}

#[test]
fn faults_name_method_and_prompt() {
    let check = |methods: Vec<MethodRuns>, expect: &str| {
        let message = Frontier::compute(&input(methods))
            .expect_err("must be refused")
            .to_string();
        assert!(message.contains(expect), "{message:?} lacks {expect:?}");
    };
    let run = |prompt_idx| best_of(prompt_idx, &[1.0, 2.0]);
    check(vec![bon("bon:2", vec![run(0)])], "prompt 1 is missing");
    check(
        vec![bon("bon:2", vec![run(0), run(0)])],
        "prompt 0 is there twice",
    );
    check(vec![bon("bon:2", vec![run(0), run(9)])], "prompt 9 has none");
    let mut nan = run(1);
    nan.answers[0].reward = f64::NAN;
    check(
        vec![bon("bon:2", vec![run(0), nan])],
        "method \"bon:2\", prompt 1: reward number 0 is NaN",
    );
    let mut no_answer = run(1);
    no_answer.answers.clear();
    check(vec![bon("bon:2", vec![run(0), no_answer])], "prompt 1: no reward");
    let empty = FrontierInput {
        references: Vec::new(),
        ..input(Vec::new())
    };
    assert!(matches!(Frontier::compute(&empty), Err(EvalError::Empty { .. })));
}

#[test]
fn one_prompt_has_numbers_and_no_intervals() {
    let mut one = input(vec![bon("bon:2", vec![best_of(0, &[1.0, 3.0])])]);
    one.references.truncate(1);
    let point = Frontier::compute(&one).unwrap().points.remove(0);
    assert_eq!(point.reward_mean, 3.0);
    assert_eq!(
        (point.reward_ci, point.win_rate_ci, point.tokens_per_answer_ci),
        (None, None, None)
    );
}
