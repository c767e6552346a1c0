use proptest::prelude::*;

use super::*;
use crate::cd_block::{BlockChoice, BlockEnd};
use crate::laws::inputs;
use crate::stop::StopRules;

#[test]
fn specs_read_as_documented_and_print_shortest() {
    let check = |text: &str, canonical: &str| {
        let spec: DecodeSpec = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(spec.to_string(), canonical, "{text}");
        assert_eq!(canonical.parse(), Ok(spec), "{canonical}");
    };
    check("sample", "sample");
    check("sample:", "sample");
    check("sample:t=1", "sample");
    check("sample:temperature=0.7, top_p=0.9", "sample:t=0.7,top_p=0.9");
    check("sample:min_p=0.05,top_k=40", "sample:top_k=40,min_p=0.05");
    check("greedy", "greedy");
    check("bon:16", "bon:16");
    check("bon:n=16,t=1", "bon:16");
    check("bon:16,t=0.5", "bon:n=16,t=0.5");
    check("won:4", "won:4");
    check("majority:8", "majority:8");
    check("majority:8,answer=number", "majority:8");
    check("majority:n=8,t=0.7,answer=text", "majority:n=8,t=0.7,answer=text");
    check(
        "majority:8,pattern=a=(b,c){1,2}",
        "majority:n=8,pattern=a=(b,c){1,2}",
    );
    check("beam:4", "beam:4");
    check("beam:width=4,length_power=0", "beam:4");
    check("beam:4,length_power=0.6", "beam:width=4,length_power=0.6");
    check("cd-token:weight=4", "cd-token:4");
    check("cd-token:-0.5", "cd-token:-0.5");
    check("cd-token:4,top_p=0.9,t=0.8", "cd-token:weight=4,t=0.8,top_p=0.9");
    check("cd-block:m=16,k=6", "cd-block:k=6,m=16");
    check(
        "cd-block:k=6,m=16,beams=1,choose=best,audit=0,t=1",
        "cd-block:k=6,m=16",
    );
    check(
        "cd-block:k=2,m=whole,beams=3,choose=proportional,temp=0.5,end=sentence",
        "cd-block:k=2,m=whole,beams=3,choose=proportional,temp=0.5,end=sentence",
    );
    check(
        "cd-block:k=2,m=8,choose=proportional,temp=1",
        "cd-block:k=2,m=8,choose=proportional",
    );
    check(
        "cd-block:budget=500,target=-1.5,audit=8,k=2,m=8,end=newline,top_k=40",
        "cd-block:k=2,m=8,end=newline,target=-1.5,budget=500,audit=8,top_k=40",
    );
}

fn refused_with(text: &str, expect: &[&str]) {
    let error = text.parse::<DecodeSpec>().expect_err(text).to_string();
    assert!(
        expect.iter().all(|part| error.contains(part)),
        "{text}: {error:?} lacks some of {expect:?}"
    );
}

#[test]
fn refusals_say_what_would_be_right() {
    let check = refused_with;
    check(
        "sampel",
        &[
            "sample, greedy, bon, won, majority, beam, cd-token, cd-block",
            "\"sampel\"",
            "did you mean sample?",
        ],
    );
    check("best-of-16", &["expected one of sample"]);
    check("", &["expected one of sample"]);
    check(
        "bon",
        &["bon n: expected a whole number from 1", "bon:16", "got nothing"],
    );
    check("bon:0", &["bon n: expected a whole number from 1", "got 0"]);
    check("bon:-1", &["got -1"]);
    check("bon:1e9", &["got 1e9"]);
    check("bon:99999999", &["got 99999999"]);
    check("bon:4,t=-1", &["temperature: expected", "at least 0", "got -1"]);
    check("sample:t=warm", &["sample t: expected a number", "got warm"]);
    check("sample:t=inf", &["temperature", "got inf"]);
    check("sample:top_k=0", &["top_k: expected", "got 0"]);
    check(
        "sample:topp=0.9",
        &["expected one of t, top_k, top_p, min_p", "did you mean top_p?"],
    );
    check("sample:0.7", &["expected one of t, top_k", "\"0.7\""]);
    check("sample:t=1,t=2", &["option t once"]);
    check("bon:16,4", &["option n once"]);
    check("bon:16,", &["option n once"]);
    check("greedy:t=1", &["greedy: expected no options, got t"]);
    check(
        "majority:4,answer=letter",
        &["majority answer: expected number, text", "got letter"],
    );
    check(
        "majority:4,pattern=(",
        &["pattern: expected a regular expression"],
    );
    check("majority:4,answer=text,pattern=x", &["majority answer"]);
    check("beam:0", &["beam width: expected a whole number from 1", "got 0"]);
    check(
        "beam:1025",
        &["beam width: expected a whole number from 1 to 1024", "got 1025"],
    );
    check("beam:4,length_power=-1", &["length_power", "got -1"]);
}

#[test]
fn refusals_of_steered_methods_say_what_would_be_right() {
    let check = refused_with;
    check("cd_token:4", &["did you mean cd-token?"]);
    check(
        "cd-token",
        &[
            "cd-token weight: expected a finite number",
            "cd-token:weight=4",
            "got nothing",
        ],
    );
    check("cd-token:inf", &["cd-token weight", "got inf"]);
    check("cd-token:weight=1,k=2", &["expected one of weight, t, top_k"]);
    check(
        "cd-block:m=16",
        &[
            "cd-block k: expected a whole number",
            "cd-block:k=6,m=16",
            "got nothing",
        ],
    );
    check(
        "cd-block:k=6",
        &["cd-block m: expected", "or whole", "got nothing"],
    );
    check("cd-block:6,m=16", &["expected one of k, m, beams", "\"6\""]);
    check("cd-block:k=0,m=16", &["cd-block k", "got 0"]);
    check("cd-block:k=6,m=0", &["cd-block m", "got 0"]);
    check("cd-block:k=6,m=all", &["cd-block m", "got all"]);
    check("cd-block:k=6,m=1,beams=0", &["cd-block beams", "got 0"]);
    check(
        "cd-block:k=2000,m=1,beams=1000",
        &["k * beams + audit: expected at most 1048576", "got 2000000"],
    );
    check("cd-block:k=6,m=1,budget=0", &["cd-block budget", "got 0"]);
    check("cd-block:k=6,m=1,target=nan", &["cd-block target", "got NaN"]);
    check(
        "cd-block:k=6,m=1,choose=worst",
        &["best or proportional", "got worst"],
    );
    check(
        "cd-block:k=6,m=1,temp=2",
        &["cd-block temp", "choose=proportional", "got 2"],
    );
    check(
        "cd-block:k=6,m=1,choose=proportional,temp=0",
        &["cd-block temp", "above 0", "got 0"],
    );
    check("cd-block:k=6,m=1,end=word", &["newline, sentence", "got word"]);
    check("cd-block:k=6,m=1,beams=2,audit=4", &["cd-block audit", "got 4"]);
    check(
        "cd-block:k=6,m=1,choose=proportional,audit=4",
        &["cd-block audit", "got 4"],
    );
}

#[test]
fn every_method_is_listed_with_an_example_that_reads() {
    for method in METHODS {
        let spec: DecodeSpec = method
            .example
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", method.example));
        assert_eq!(spec.method(), method.name);
        assert!(spec.build(inputs(0)).is_ok());
    }
}

#[test]
fn methods_say_what_they_need() {
    let check = |text: &str, num_candidates: usize, needs_rewards: bool| {
        let spec: DecodeSpec = text.parse().expect("valid");
        assert_eq!(
            (spec.num_candidates(), spec.needs_rewards(), spec.needs_scorers()),
            (num_candidates, needs_rewards, false),
            "{text}"
        );
        let decoder = spec.build(inputs(0)).expect("valid");
        assert_eq!(
            (decoder.max_live_branches(), decoder.max_new_tokens()),
            (num_candidates, 8)
        );
    };
    check("sample", 1, false);
    check("greedy", 1, false);
    check("bon:16", 16, true);
    check("won:4", 4, true);
    check("majority:8", 8, false);
    check("beam:4", 4, false);
}

#[test]
fn steered_methods_say_what_they_need_and_refuse_to_go_without() {
    let check = |text: &str, expect: (usize, usize, usize)| {
        let spec: DecodeSpec = text.parse().expect("valid");
        assert!(spec.needs_scorers() && !spec.needs_rewards());
        let decoder = spec.build(inputs(0)).expect("valid");
        let got = (
            spec.num_candidates(),
            decoder.max_live_branches(),
            decoder.max_new_tokens(),
        );
        assert_eq!(got, expect, "{text}");
        let unsteered = DecoderInputs {
            steering: std::sync::Arc::default(),
            ..inputs(0)
        };
        let error = spec.build(unsteered).map(|_| ()).expect_err(text).to_string();
        let expected = format!(
            "{} is steered by prefix scorers and none is given; name one, e.g. --scorer DIR",
            spec.method()
        );
        assert_eq!(error, expected);
    };
    // One position more where the last token's row is asked for its value.
    check("cd-token:4", (1, 1, 8));
    check("cd-block:k=4,m=2", (1, 4, 9));
    check("cd-block:k=4,m=2,beams=3", (3, 12, 9));
    check("cd-block:k=4,m=2,audit=5", (1, 9, 9));
    assert_eq!(
        "cd-block:k=4,m=2,t=0.7"
            .parse::<DecodeSpec>()
            .map(|spec| spec.sampling()),
        Ok(Sampling::at_temperature(0.7))
    );
}

#[test]
fn specs_in_config_files_are_texts() {
    let spec: DecodeSpec = "bon:n=4,t=0.5".parse().expect("valid");
    assert_eq!(
        serde_json::to_string(&spec).ok().as_deref(),
        Some("\"bon:n=4,t=0.5\"")
    );
    assert_eq!(
        serde_json::from_str::<DecodeSpec>("\"bon:4,t=0.5\"").ok(),
        Some(spec)
    );
    let error = serde_json::from_str::<DecodeSpec>("\"bno:4\"")
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("did you mean bon?"), "{error}");
}

#[test]
fn specs_in_config_files_that_are_no_texts_say_what_they_have_to_be() {
    let error = serde_json::from_str::<DecodeSpec>("4")
        .expect_err("a number")
        .to_string();
    assert!(error.contains("integer `4`, expected a string"), "{error}");
}

#[test]
fn building_checks_what_parsing_did_not_see() {
    let stop = StopRules {
        max_new_tokens: 0,
        ..inputs(0).stop
    };
    for text in ["sample", "beam:2", "cd-token:1", "cd-block:k=2,m=2"] {
        let spec: DecodeSpec = text.parse().expect("valid");
        assert!(
            spec.build(DecoderInputs {
                stop: stop.clone(),
                ..inputs(0)
            })
            .is_err()
        );
    }
    let by_hand = DecodeSpec::BestOfN {
        num_candidates: 0,
        sampling: Sampling::REFERENCE,
    };
    assert!(by_hand.build(inputs(0)).is_err());
}

prop_compose! {
    fn any_sampling()(
        temperature in prop_oneof![Just(1.0), 0.0_f64..1e3],
        top_k in prop::option::of(1_usize..100_000),
        top_p in prop::option::of(1e-9_f64..=1.0),
        min_p in prop::option::of(0.0_f64..0.999),
    ) -> Sampling {
        Sampling { temperature, top_k, top_p, min_p }
    }
}

fn any_answer() -> impl Strategy<Value = AnswerExtractor> {
    let pattern = "[a-z0-9,=:. ]{0,12}|pattern=x|\\(a,b\\)\\{1,2\\}";
    prop_oneof![
        Just(AnswerExtractor::LastNumber),
        Just(AnswerExtractor::Text),
        pattern.prop_map(
            |pattern| AnswerExtractor::pattern(&pattern).expect("the alphabet has no syntax to break")
        ),
    ]
}

prop_compose! {
    fn any_block()(
        (num_candidates, beams, audit) in (1_usize..1000, 1_usize..1000, 0_usize..1000),
        block_len in prop::option::of(1_usize..100_000),
        choice in prop_oneof![
            Just(BlockChoice::Best),
            prop_oneof![Just(1.0), 1e-9_f64..1e9]
                .prop_map(|temperature| BlockChoice::Proportional { temperature }),
        ],
        block_end in prop_oneof![
            Just(BlockEnd::Tokens),
            Just(BlockEnd::Newline),
            Just(BlockEnd::Sentence),
        ],
        target in prop::option::of(-1e9_f64..1e9),
        token_budget in prop::option::of(1..u64::MAX),
        sampling in any_sampling(),
    ) -> CdBlockConfig {
        // The estimate exists only where one branch is kept by value.
        let audit = if beams == 1 && choice == BlockChoice::Best { audit } else { 0 };
        CdBlockConfig {
            num_candidates, block_len, beams, choice, block_end, target, token_budget, audit, sampling,
        }
    }
}

fn any_spec() -> impl Strategy<Value = DecodeSpec> {
    let drawn = || (1..=BestOfNConfig::MAX_CANDIDATES, any_sampling());
    prop_oneof![
        any_sampling().prop_map(|sampling| DecodeSpec::Sample { sampling }),
        Just(DecodeSpec::Greedy),
        drawn().prop_map(|(num_candidates, sampling)| DecodeSpec::BestOfN {
            num_candidates,
            sampling
        }),
        drawn().prop_map(|(num_candidates, sampling)| DecodeSpec::WorstOfN {
            num_candidates,
            sampling
        }),
        (drawn(), any_answer()).prop_map(|((num_candidates, sampling), answer)| DecodeSpec::Majority {
            num_candidates,
            sampling,
            answer
        }),
        (1..=BeamConfig::MAX_WIDTH, 0.0_f64..9.0)
            .prop_map(|(width, length_power)| DecodeSpec::Beam(BeamConfig { width, length_power })),
        (-1e9_f64..1e9, any_sampling())
            .prop_map(|(weight, sampling)| DecodeSpec::CdToken(CdTokenConfig { weight, sampling })),
        any_block().prop_map(DecodeSpec::CdBlock),
    ]
}

proptest! {
    #[test]
    fn printing_and_reading_are_inverse(spec in any_spec()) {
        prop_assert_eq!(spec.to_string().parse::<DecodeSpec>(), Ok(spec));
    }

    #[test]
    fn no_text_panics(text in "(sample|bon|beam|majority|cd-token|cd-block|x)?[:=,a-z0-9.-]{0,20}") {
        let _ = text.parse::<DecodeSpec>();
    }
}
