use proptest::prelude::*;

use super::*;
use crate::likelihood::LikelihoodScale;
use crate::testing::{text_input, tokens_input};

fn parse(spec: &str) -> Vec<(RewardKind, f64)> {
    let spec: RewardSpec = spec.parse().unwrap_or_else(|error| panic!("{spec:?}: {error}"));
    spec.terms()
        .iter()
        .map(|term| (term.kind.clone(), term.weight))
        .collect()
}

fn regex(pattern: &str) -> RewardKind {
    RewardKind::Regex {
        pattern: pattern.to_owned(),
    }
}

fn cmd(command_line: &str) -> RewardKind {
    RewardKind::Cmd {
        command_line: command_line.to_owned(),
    }
}

fn http(url: &str) -> RewardKind {
    RewardKind::Http { url: url.to_owned() }
}

#[test]
fn parses_terms_and_weights() {
    let check = |spec: &str, expect: &[(RewardKind, f64)]| assert_eq!(parse(spec), expect, "{spec}");
    let length = RewardKind::Length { max_tokens: 1024 };
    check("length", &[(length.clone(), 1.0)]);
    check(" length ", &[(length.clone(), 1.0)]);
    check("length:64", &[(RewardKind::Length { max_tokens: 64 }, 1.0)]);
    check(
        "json*0.8 + length*-0.3",
        &[(RewardKind::Json, 0.8), (length.clone(), -0.3)],
    );
    check(
        "json * 0.8  +  length * 1e-3",
        &[(RewardKind::Json, 0.8), (length, 1e-3)],
    );
    check("numeric:0.5*2", &[(RewardKind::Numeric { tolerance: 0.5 }, 2.0)]);
    check(
        "likelihood:per-token",
        &[(
            RewardKind::Likelihood {
                scale: LikelihoodScale::PerToken,
            },
            1.0,
        )],
    );
    check("regex:a*b", &[(regex("a*b"), 1.0)]);
    check("regex:a+b*2", &[(regex("a+b"), 2.0)]);
    check("regex:\"a*2\"", &[(regex("a*2"), 1.0)]);
    check(
        "regex:\"a + b\"*-1 + json",
        &[(regex("a + b"), -1.0), (RewardKind::Json, 1.0)],
    );
    check("regex:\"say \"\"hi\"\"\"", &[(regex("say \"hi\""), 1.0)]);
    check(
        "cmd:python3 score.py --fast",
        &[(cmd("python3 score.py --fast"), 1.0)],
    );
    check(
        "http://localhost:8000/score*2",
        &[(http("http://localhost:8000/score"), 2.0)],
    );
    check(
        "http:localhost:8000/score",
        &[(http("localhost:8000/score"), 1.0)],
    );
    check("https://example.org/r", &[(http("https://example.org/r"), 1.0)]);
}

#[test]
fn refuses_with_the_remedy() {
    let check = |spec: &str, expect: &str| {
        let error = spec.parse::<RewardSpec>().unwrap_err().to_string();
        assert!(error.contains(expect), "{spec}: {error}");
    };
    check("", "expected a reward, got nothing");
    check("length + ", "expected a reward, got nothing");
    check(
        "lenght",
        "got \"lenght\"; did you mean `length`? rewards: length[:T_max], regex:<pattern>",
    );
    check("keyword:a", "did you mean `keywords`?");
    check("numerical", "did you mean `numeric`?");
    check(
        "length*heavy",
        "expected a finite weight after `*` in \"length*heavy\", got \"heavy\"",
    );
    check("length*inf", "got \"inf\"");
    check(
        "json*0.8+length",
        "got \"0.8+length\"; terms are joined by ` + ` with spaces",
    );
    for glued in ["json*0.5+length", "json+length", "json*0.5+length*2"] {
        check(glued, "terms are joined by ` + ` with spaces");
    }
    check(
        "length:0",
        "reward length: expected T_max in tokens, at least 1, got \"0\"",
    );
    check("numeric:-1", "reward numeric: expected a tolerance, at least 0");
    check("json:x", "reward json: expected no argument, got \"x\"");
    check("regex:", "reward regex: expected regex:<pattern>, got \"\"");
    check("regex:\"a", "expected a closing quote");
    check(
        "regex:\"a\"b",
        "expected a closing quote and then at most `*weight`",
    );
}

#[test]
fn refuses_at_build_what_parsing_cannot_judge() {
    let check = |spec: &str, expect: &str| {
        let spec: RewardSpec = spec.parse().unwrap();
        let error = spec.build().err().expect("must be refused").to_string();
        assert!(error.contains(expect), "{spec}: {error}");
    };
    check("regex:(", "reward regex: regex parse error");
    check(
        "keywords:a||b",
        "reward keywords: expected words separated by single `|`",
    );
    check(
        "cmd:say 'hi",
        "reward cmd: expected a command line with closed quotes",
    );
    check("http:ftp://x", "reward http: expected a URL");
}

#[test]
fn errors_say_everything_once() {
    let spec: RewardSpec = "regex:(".parse().unwrap();
    let error = spec.build().err().expect("must be refused");
    assert!(
        std::error::Error::source(&error).is_none(),
        "its text is in the message"
    );
}

#[test]
fn records_are_checked_before_there_are_responses() {
    let check = |spec: &str, record: serde_json::Value, expect: bool| {
        let reward = spec.parse::<RewardSpec>().unwrap().build().unwrap();
        let record = record.as_object().unwrap();
        assert_eq!(
            reward.check_record(record).is_ok(),
            expect,
            "{spec} with {record:?}"
        );
    };
    check("length", serde_json::json!({}), true);
    check("answer", serde_json::json!({}), false);
    check("answer", serde_json::json!({"answer": "x"}), true);
    check("numeric", serde_json::json!({"answer": "x"}), false);
    check("numeric", serde_json::json!({"answer": "x 4"}), true);
    check("length + numeric*0.5", serde_json::json!({"answer": "x"}), false);
}

#[test]
fn external_limits_reach_the_scorer() {
    let limits = ExternalLimits {
        num_retries: 0,
        ..ExternalLimits::default()
    };
    let spec: RewardSpec = "http://127.0.0.1:1/".parse().unwrap();
    let error = spec.build_with(&limits).unwrap().score(&[text_input("a")]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("gave up after 1 attempt:"), "{error}");
}

#[test]
fn builds_what_it_says() {
    let build = |spec: &str| spec.parse::<RewardSpec>().unwrap().build().unwrap();
    assert_eq!(build("length:2").name(), "length:2");
    assert_eq!(build("length:2").score(&[tokens_input(2)]).unwrap(), [0.0]);
    let mixed = build("keywords:good|fine*2 + regex:bad*-1");
    assert_eq!(mixed.name(), "keywords:good|fine*2 + regex:bad*-1");
    assert_eq!(mixed.score(&[text_input("good, fine, bad")]).unwrap(), [3.0]);
    assert_eq!(mixed.unit(), "2 x [keywords found] + -1 x [matches]");
}

#[test]
fn rewards_on_states_are_built_by_whoever_has_models() {
    let spec: RewardSpec = "head:runs/harmless*2 + json".parse().unwrap();
    assert_eq!(spec.head_folders().collect::<Vec<_>>(), ["runs/harmless"]);
    let refused = spec.build().err().expect("there are no models here").to_string();
    assert!(
        refused.contains("head:runs/harmless reads a language model's states"),
        "{refused}"
    );
    let mut opened = Vec::new();
    let built = spec
        .build_with_models::<RewardSpecError>(&ExternalLimits::default(), &mut |folder, name| {
            opened.push((folder.to_owned(), name));
            RewardKind::Json.build(&ExternalLimits::default())
        })
        .unwrap();
    assert_eq!(
        opened,
        [("runs/harmless".to_owned(), "head:runs/harmless".to_owned())]
    );
    assert_eq!(
        built.score(&[text_input("{}"), text_input("no")]).unwrap(),
        [3.0, 0.0]
    );
    assert_eq!(built.name(), "head:runs/harmless*2 + json");
}

#[test]
fn travels_through_configuration_files_as_text() {
    let spec: RewardSpec = serde_json::from_str("\"json*0.5 + length\"").unwrap();
    assert_eq!(serde_json::to_string(&spec).unwrap(), "\"json*0.5 + length\"");
    assert!(serde_json::from_str::<RewardSpec>("\"jsn\"").is_err());
}

#[test]
fn what_is_no_text_in_a_configuration_file_is_refused_by_type() {
    let error = serde_json::from_str::<RewardSpec>("0.5").unwrap_err().to_string();
    assert!(
        error.contains("floating point `0.5`, expected a string"),
        "{error}"
    );
}

/// Any argument that can be written: not blank, which every reward refuses.
fn argument() -> impl Strategy<Value = String> {
    let tricky = prop::sample::select(vec![
        "a*2",
        "a + b",
        "\"",
        "\"x\"*3",
        "+ ",
        "*",
        ":",
        "http://h/x*1e3",
        " a ",
        "\\",
    ]);
    prop_oneof![tricky.prop_map(str::to_owned), "[ -~é+*\":]{1,12}"]
        .prop_filter("blank", |text| !text.trim().is_empty())
}

fn kind() -> impl Strategy<Value = RewardKind> {
    prop_oneof![
        (1..5000_u32).prop_map(|max_tokens| RewardKind::Length { max_tokens }),
        (0.0..2.0_f64).prop_map(|tolerance| RewardKind::Numeric { tolerance }),
        Just(RewardKind::Json),
        Just(RewardKind::Likelihood {
            scale: LikelihoodScale::PerToken
        }),
        argument().prop_map(|pattern| RewardKind::Regex { pattern }),
        argument().prop_map(|command_line| RewardKind::Cmd { command_line }),
        argument().prop_map(|folder| RewardKind::Head { folder }),
        argument().prop_map(|url| RewardKind::Http { url }),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(terms in prop::collection::vec((kind(), -9.0_f64..9.0), 1..4)) {
        let terms: Vec<RewardTerm> = terms.into_iter().map(|(kind, weight)| RewardTerm { kind, weight }).collect();
        let spec = RewardSpec::new(terms).unwrap();
        let printed = spec.to_string();
        let read: RewardSpec = printed.parse().map_err(|error| TestCaseError::fail(format!("{printed}: {error}")))?;
        prop_assert_eq!(read, spec, "{}", printed);
    }

    #[test]
    fn no_text_panics(text in "[ -~]{0,24}") {
        let _ = text.parse::<RewardSpec>();
    }
}
