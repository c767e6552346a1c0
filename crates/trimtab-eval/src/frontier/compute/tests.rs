use trimtab_decode::BlockKl;

use super::*;
use crate::confidence::clopper_pearson;
use crate::frontier::FrontierPoint;
use crate::kl::{KlKind, best_of_n_bound_nats, best_of_n_kl_estimate_nats};
use crate::samples::Scored;

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
        ..PromptRun::default()
    }
}

fn bon(method: &str, runs: Vec<PromptRun>) -> MethodRuns {
    let num_candidates = runs[0].candidates.len() as u32;
    let kl_rule = KlRule::BestOfN { num_candidates };
    MethodRuns {
        method: method.to_owned(),
        num_candidates,
        sampling: Sampling::REFERENCE,
        kl_rule,
        value_names: Vec::new(),
        varies_by_seed: false,
        shown_as: ShownAs::default(),
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
        rewards_also: Vec::new(),
        x_axis: None,
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
}

#[test]
fn several_answers_to_a_prompt_are_averaged_and_paid_for_once() {
    let several = |prompt_idx| PromptRun {
        answers: vec![scored(1.0), scored(2.0), scored(6.0)],
        tokens_generated: 35,
        ..best_of(prompt_idx, &[1.0, 0.0, 2.0, 1.0, 6.0, 0.0])
    };
    let point = only_point(bon("bon:2", vec![several(0), several(1)]));
    assert_eq!(point.reward_mean, 3.0);
    // Twice 35 thirds.
    assert_eq!((point.tokens_generated, point.tokens_per_answer), (23, 11.666667));
}

#[test]
fn the_estimate_uses_all_draws_from_the_reference() {
    let rewards = [[0.0, 1.0, 1.0, 3.0], [2.0, 3.0, 3.0, 3.0]];
    let few = |prompt_idx: u64| best_of(prompt_idx, &rewards[prompt_idx as usize][..2]);
    let all = |prompt_idx: u64| best_of(prompt_idx, &rewards[prompt_idx as usize]);
    let mut tempered = bon("bon:n=2,t=0.7", vec![few(0), few(1)]);
    tempered.sampling = Sampling::at_temperature(0.7);
    let methods = vec![
        bon("bon:2", vec![few(0), few(1)]),
        bon("bon:4", vec![all(0), all(1)]),
        tempered,
    ];
    let points = Frontier::compute(&input(methods)).unwrap().points;
    let pool = |rewards: &[f64]| RewardSample::try_new(rewards).unwrap();
    let expect = |pools: &[RewardSample], n| best_of_n_kl_estimate_nats(pools, n).map(rounded);
    // The held-out responses and the four of the larger method.
    let pools = [
        pool(&[0.0, 1.0, 0.0, 1.0, 1.0, 3.0]),
        pool(&[2.0, 2.0, 2.0, 3.0, 3.0, 3.0]),
    ];
    assert_eq!(points[0].kl_estimate_nats, expect(&pools, 2));
    assert_eq!(points[1].kl_estimate_nats, expect(&pools, 4));
    // Another policy has its own draws alone, and log-ratios of zero.
    let own = [pool(&[0.0, 1.0]), pool(&[2.0, 3.0])];
    assert_eq!(Some(points[2].kl_nats), expect(&own, 2));
}

#[test]
fn another_policy_than_the_reference_adds_its_log_ratio_and_leaves_no_bound() {
    let mut runs = vec![best_of(0, &[0.0, 1.0]), best_of(1, &[0.0, 1.0])];
    for (run, log_prob) in runs.iter_mut().zip([-2.5, -2.0]) {
        run.answers[0].log_prob = log_prob;
    }
    let mut method = bon("bon:n=2,t=0.7", runs);
    method.sampling = Sampling::at_temperature(0.7);
    let point = only_point(method);
    assert_eq!(point.kl_kind, KlKind::Estimate);
    assert!(
        (point.kl_nats - (0.193147 + 0.75)).abs() < 2e-6,
        "{}",
        point.kl_nats
    );
    assert!(
        point.kl_ci.unwrap().contains(point.kl_nats),
        "its log-ratio is sampled"
    );
    assert_eq!(point.kl_estimate_nats, None, "it is the estimate itself");
}

#[test]
fn the_configuration_says_which_policy_is_the_reference() {
    // Draws that happened not to move are no proof: a cut policy of these is still none of the reference's.
    let mut cut = bon(
        "bon:n=2,top_k=40",
        vec![best_of(0, &[0.0, 1.0]), best_of(1, &[0.0, 1.0])],
    );
    cut.sampling = Sampling {
        top_k: Some(40),
        ..Sampling::REFERENCE
    };
    let frontier = Frontier::compute(&input(vec![cut])).unwrap();
    assert_eq!(frontier.points[0].kl_kind, KlKind::Estimate);
    // Only the held-out responses, means of {0, 1} and {2, 2}.
    assert_eq!(frontier.best_of_n_curve[0].reward_mean, 1.25);
    // And rounding of the reference's steps is no distance.
    let mut exact = bon("sample", vec![best_of(0, &[0.0]), best_of(1, &[1.0])]);
    exact.kl_rule = KlRule::TokenwiseSum;
    exact.runs[0].candidates[0].kl_nats = 1e-3;
    let point = only_point(exact);
    let nothing = Interval { lo: 0.0, hi: 0.0 };
    assert_eq!((point.kl_nats, point.kl_ci), (0.0, Some(nothing)));
}

#[test]
fn each_rule_has_its_kind_and_value() {
    let check = |kl_rule: KlRule, sampling: Sampling, kind: KlKind, expect: f64| {
        let mut runs = vec![best_of(0, &[0.0, 1.0, 2.0]), best_of(1, &[0.0, 1.0, 2.0])];
        for run in &mut runs {
            run.answers[0].reference_log_prob = -3.25;
            run.candidates[0].kl_nats = 0.6;
        }
        let point = only_point(MethodRuns {
            sampling,
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
    let (reference, tempered) = (Sampling::REFERENCE, Sampling::at_temperature(0.7));
    let bound = best_of_n_bound_nats(3);
    check(KlRule::TokenwiseSum, tempered, KlKind::Exact, 0.2);
    check(KlRule::TokenwiseSum, reference, KlKind::Exact, 0.0);
    check(KlRule::Deterministic, Sampling::GREEDY, KlKind::Exact, 3.25);
    check(KlRule::LogRatio, tempered, KlKind::Estimate, 0.25);
    let selection = KlRule::Selection { num_candidates: 3 };
    check(selection, reference, KlKind::Bound, 3.0_f64.ln());
    check(selection, tempered, KlKind::Estimate, 3.0_f64.ln() + 0.25);
    let worst = KlRule::WorstOfN { num_candidates: 3 };
    check(worst, reference, KlKind::Bound, bound);
    check(worst, tempered, KlKind::Estimate, bound + 0.25);
    check(KlRule::GuidedSum, reference, KlKind::Exact, 0.2);
}

#[test]
fn blocks_have_the_bound_of_the_choices_made_and_an_estimate_where_all_have_one() {
    let blocks = |bound_nats: f64, estimate_nats: Option<f64>| BlockKl {
        num_choices: (bound_nats * 2.0) as u64,
        bound_nats,
        estimate_nats,
    };
    let with = |sampling: Sampling, blocks: [BlockKl; 2]| {
        let mut runs = vec![best_of(0, &[0.0]), best_of(1, &[1.0])];
        for (run, blocks) in runs.iter_mut().zip(blocks) {
            run.block_kl = vec![blocks];
            run.answers[0].reference_log_prob = -3.25;
        }
        only_point(MethodRuns {
            sampling,
            kl_rule: KlRule::Blockwise,
            ..bon("cd-block:k=2,m=8", runs)
        })
    };
    let (reference, tempered) = (Sampling::REFERENCE, Sampling::at_temperature(0.7));
    let point = with(reference, [blocks(1.0, None), blocks(2.0, Some(1.5))]);
    assert_eq!(
        (point.kl_nats, point.kl_kind, point.kl_estimate_nats),
        (1.5, KlKind::Bound, None)
    );
    assert!(
        point.kl_ci.is_some(),
        "responses differ in their number of choices"
    );
    assert_eq!(point.choices_per_answer, Some(3.0));
    let point = with(reference, [blocks(1.0, Some(0.5)), blocks(2.0, Some(1.5))]);
    assert_eq!((point.kl_nats, point.kl_estimate_nats), (1.5, Some(1.0)));
    assert!(point.kl_estimate_ci.is_some());
    // The truth lies between nothing and the bound.
    let point = with(reference, [blocks(1.0, Some(-0.5)), blocks(2.0, Some(-0.25))]);
    assert_eq!(point.kl_estimate_nats, Some(0.0));
    let point = with(tempered, [blocks(1.0, Some(0.5)), blocks(2.0, Some(1.5))]);
    assert_eq!((point.kl_nats, point.kl_kind), (1.25, KlKind::Estimate));
    let missing = MethodRuns {
        kl_rule: KlRule::Blockwise,
        ..bon("cd-block:k=2,m=8", vec![best_of(0, &[0.0]), best_of(1, &[1.0])])
    };
    let error = Frontier::compute(&input(vec![missing])).expect_err("it lacks its choices");
    assert!(
        error.to_string().contains("prompt 0: no choices of blocks"),
        "{error}"
    );
}

#[test]
fn steered_draws_are_not_the_references() {
    let mut steered = bon("cd-token:weight=4", vec![best_of(0, &[7.0]), best_of(1, &[9.0])]);
    steered.kl_rule = KlRule::GuidedSum;
    steered.runs[0].candidates[0].kl_nats = 0.5;
    let frontier = Frontier::compute(&input(vec![steered])).unwrap();
    // Their rewards are in no pool, and their divergence is not zero by construction.
    assert_eq!(frontier.best_of_n_curve[0].reward_mean, 1.25);
    assert_eq!(frontier.points[0].kl_nats, 0.25);
    assert_eq!(frontier.points[0].like_best_of, None, "no N of the curve gives 8");
}

#[test]
fn what_stands_beside_answers_is_averaged_over_them() {
    let mut run = best_of(0, &[1.0, 2.0]);
    run.answers = vec![scored(1.0), scored(2.0)];
    run.first_commit_tokens = vec![4, 7];
    run.values = vec![vec![0.5, 1.0], vec![1.5, 2.0]];
    run.rewards_also = vec![vec![10.0], vec![30.0]];
    let other = PromptRun {
        prompt_idx: 1,
        ..run.clone()
    };
    let name = |name: &str| RewardName {
        name: name.into(),
        unit: "nats".into(),
    };
    let mut method = bon("m", vec![run, other.clone()]);
    method.value_names = vec![name("a"), name("b")];
    let samples = FrontierInput {
        rewards_also: vec![name("length")],
        ..input(vec![method.clone()])
    };
    let point = Frontier::compute(&samples).unwrap().points.remove(0);
    assert_eq!(point.first_commit_tokens, Some(5.5));
    assert_eq!(
        point.values.iter().map(|value| value.mean).collect::<Vec<_>>(),
        [1.0, 1.5]
    );
    assert_eq!(
        (point.rewards_also[0].name.as_str(), point.rewards_also[0].mean),
        ("length", 20.0)
    );
    // A further reward that was not computed is a fault; a moment that no answer has is none.
    method.runs[0].first_commit_tokens.clear();
    assert_eq!(only_point(method.clone()).first_commit_tokens, None);
    method.runs[0].rewards_also.clear();
    let samples = FrontierInput {
        rewards_also: vec![name("length")],
        ..input(vec![method])
    };
    assert!(matches!(
        Frontier::compute(&samples),
        Err(EvalError::Empty { .. })
    ));
}

#[test]
fn seeds_are_averaged_within_prompts() {
    let of_seed = |seed: u64, rewards: [f64; 2]| {
        let runs = vec![best_of(0, &rewards[..1]), best_of(1, &rewards[1..])];
        let mut samples = input(vec![bon("bon:1", runs)]);
        samples.facts.seed = seed;
        samples
    };
    let inputs = [of_seed(3, [0.0, 2.0]), of_seed(4, [2.0, 2.0])];
    let frontier = Frontier::over_seeds(&inputs).unwrap();
    let point = &frontier.points[0];
    assert_eq!((frontier.facts.seed, frontier.seeds.as_slice()), (3, &[3, 4][..]));
    assert_eq!(
        (point.reward_mean, frontier.num_prompts, frontier.num_references),
        (1.5, 2, 8)
    );
    assert_eq!((point.tokens_per_answer, point.tokens_generated), (10.0, 20));
    let by_seed: Vec<(u64, f64)> = point
        .seed_values
        .iter()
        .map(|of| (of.seed, of.reward_mean))
        .collect();
    assert_eq!(by_seed, [(3, 1.0), (4, 2.0)]);
    // Only where a seed is shared by all prompts does it widen: Student's interval of 1 and 2, in squares.
    let mut varying = inputs.clone();
    for samples in &mut varying {
        samples.methods[0].varies_by_seed = true;
    }
    let wider = Frontier::over_seeds(&varying).unwrap().points[0]
        .reward_ci
        .unwrap();
    let Interval { lo, hi } = point.reward_ci.unwrap();
    let half = 12.706_205 * 0.5;
    assert!(
        (wider.hi - (1.5 + (hi - 1.5).hypot(half))).abs() < 1e-5,
        "{wider:?}"
    );
    assert!(
        (wider.lo - (1.5 - (1.5 - lo).hypot(half))).abs() < 1e-5,
        "{wider:?}"
    );
    // One seed is a plain run, and other methods are no seeds of it.
    assert_eq!(
        Frontier::over_seeds(&inputs[..1]).unwrap(),
        Frontier::compute(&inputs[0]).unwrap()
    );
    let mut foreign = inputs.clone();
    foreign[1].methods[0].method = "bon:9".into();
    assert!(matches!(
        Frontier::over_seeds(&foreign),
        Err(EvalError::SeedMismatch { seed: 4, first: 3 })
    ));
    assert!(Frontier::over_seeds(&[]).is_err());
}

#[test]
fn a_choice_among_equal_draws_is_exactly_the_answer() {
    let check =
        |spec: &str, expect: KlRule| assert_eq!(KlRule::of_spec(&spec.parse().unwrap()), expect, "{spec}");
    for spec in [
        "greedy",
        "beam:3",
        "sample:t=0",
        "bon:n=4,t=0",
        "majority:n=4,top_k=1",
        "won:n=4,t=0",
    ] {
        check(spec, KlRule::Deterministic);
    }
    check("bon:n=1,t=0.7", KlRule::TokenwiseSum);
    check("bon:n=4,t=0.7", KlRule::BestOfN { num_candidates: 4 });
    check("cd-token:weight=0", KlRule::GuidedSum);
    check("cd-block:k=4,m=8", KlRule::Blockwise);
    check("cd-block:k=4,m=8,t=0", KlRule::Deterministic);
}

#[test]
fn the_worst_has_the_estimate_of_the_best_of_negated_rewards() {
    let rewards = [0.0, 0.0, 0.0, 0.0, 0.0, 5.0];
    let estimate = |kl_rule, sign: f64| {
        let runs = [0, 1].map(|prompt_idx| best_of(prompt_idx, &rewards.map(|reward| sign * reward)));
        only_point(MethodRuns {
            kl_rule,
            // Of its own draws, so that the held-out rewards need no negation.
            sampling: Sampling::at_temperature(0.7),
            ..bon("m", runs.to_vec())
        })
        .kl_nats
    };
    let worst = estimate(KlRule::WorstOfN { num_candidates: 3 }, 1.0);
    assert_eq!(worst, estimate(KlRule::BestOfN { num_candidates: 3 }, -1.0));
    assert_ne!(worst, estimate(KlRule::BestOfN { num_candidates: 3 }, 1.0));
}

#[test]
fn equal_values_have_no_interval_unless_they_count_successes() {
    let with_rewards = |answer: f64, references: [f64; 2]| {
        let mut samples = input(vec![bon(
            "bon:1",
            vec![best_of(0, &[answer]), best_of(1, &[answer])],
        )]);
        for reference in &mut samples.references {
            reference.rewards = references.to_vec();
        }
        Frontier::compute(&samples).unwrap().points.remove(0)
    };
    let exact = |num_successes| Some(rounded_interval(clopper_pearson(num_successes, 2, 0.95)));
    // Right or wrong: two successes in two are not certainty.
    assert_eq!(with_rewards(1.0, [0.0, 1.0]).reward_ci, exact(2));
    assert_eq!(with_rewards(0.0, [0.0, 1.0]).reward_ci, exact(0));
    // A reward that takes other values as well says nothing by two equal ones.
    let point = with_rewards(1.0, [1.0, 0.5]);
    assert_eq!(
        (point.reward_ci, point.reward_gain_ci, point.win_rate_ci),
        (None, None, None)
    );
    let ties = with_rewards(3.0, [3.0, 3.0]);
    assert_eq!((ties.win_rate, ties.win_rate_ci), (0.5, None));
    assert_eq!((ties.reward_ci, ties.tokens_per_answer_ci), (None, None));
    assert_eq!(with_rewards(2.0, [3.0, 3.0]).win_rate_ci, exact(0));
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
