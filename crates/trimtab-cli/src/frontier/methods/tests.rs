use super::*;

#[derive(Deserialize)]
struct Config {
    methods: Vec<MethodEntry>,
}

fn methods(text: &str) -> Result<Vec<Method>> {
    expand(&toml::from_str::<Config>(text)?.methods)
}

#[test]
fn entries_are_texts_tables_and_sweeps() {
    let check = |text: &str, expect: &[&str]| {
        let names: Vec<String> = methods(text)
            .unwrap()
            .into_iter()
            .map(|method| method.name)
            .collect();
        assert_eq!(names, expect, "{text}");
    };
    check(r#"methods = ["sample", "bon:n=4"]"#, &["sample", "bon:4"]);
    check(
        r#"methods = [{ decode = "bon:{n}", n = [1, 4, 16], series = "best of N" }]"#,
        &["bon:1", "bon:4", "bon:16"],
    );
    check(
        r#"methods = [{ decode = "cd-block:k={k},m={m}", k = [2, 4], m = [16, "whole"], scorers = ["runs/len*1.0"] }]"#,
        &[
            "cd-block:k=2,m=16 @ len",
            "cd-block:k=2,m=whole @ len",
            "cd-block:k=4,m=16 @ len",
            "cd-block:k=4,m=whole @ len",
        ],
    );
    check(
        r#"methods = [{ decode = "cd-token:weight=2", w = [0.5, -1], scorers = ["a/help", "a/len_s{seed}*{w}"] }]"#,
        &[
            "cd-token:2 @ help + len_s{seed}*0.5",
            "cd-token:2 @ help + len_s{seed}*-1",
        ],
    );
}

#[test]
fn a_sweep_says_what_is_shown() {
    let text = r#"methods = [{ decode = "cd-block:k={k},m=8", k = [6], scorers = ["a"], series = "S", label = "K = {k}" }]"#;
    let shown = methods(text).unwrap().remove(0).shown_as;
    assert_eq!(
        (shown.series.as_deref(), shown.label.as_deref()),
        (Some("S"), Some("K = 6"))
    );
    assert_eq!(
        shown.variables,
        BTreeMap::from([("k".to_owned(), "6".to_owned())])
    );
}

#[test]
fn seeds_have_scorers_of_their_own_where_they_are_named() {
    let text = r#"methods = [{ decode = "cd-token:weight=1", scorers = ["a/s{seed}*2", "b"] }]"#;
    let method = methods(text).unwrap().remove(0);
    assert!(method.varies_by_seed());
    let places: Vec<String> = method.scorers_of(7).iter().map(ToString::to_string).collect();
    assert_eq!(places, ["a/s7*2", "b"]);
}

#[test]
fn bad_entries_are_refused_by_place() {
    let check = |entry: &str, expect: &[&str]| {
        let error = methods(&format!("methods = [\"sample\", {entry}]")).expect_err("must be refused");
        let message = format!("{error:#}");
        for part in expect {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    check("3", &["a method such as"]);
    check("\"bom:4\"", &["bon"]);
    check("{ scorers = [\"a\"] }", &["decode"]);
    check(
        "\"cd-token:weight=1\"",
        &["entry 2 of methods", "needs prefix scorers"],
    );
    check(
        "{ decode = \"bon:4\", scorers = [\"a\"] }",
        &["bon:4 uses no prefix scorers"],
    );
    check(
        "{ decode = \"bon:4\", scorrers = [\"a\"] }",
        &["no text has {scorrers}"],
    );
    check("{ decode = \"bon:{n}\", n = [] }", &["variable n has no values"]);
    check(
        "{ decode = \"bon:{n}\", n = [2, 2] }",
        &["methods names bon:2 twice"],
    );
    check("{ decode = \"bon:{n}\", n = [\"x\"] }", &["entry 2", "bon", "x"]);
    check(
        "{ decode = \"cd-token:weight=1\", scorers = [\"a*x\"] }",
        &["a*x", "weight"],
    );
    check(
        "{ decode = \"bon:{seed}\", seed = [1] }",
        &["no variable can be called seed"],
    );
    let many: Vec<String> = (1..=40).map(|n| n.to_string()).collect();
    let many = many.join(", ");
    check(
        &format!("{{ decode = \"bon:n={{a}},top_k={{b}}\", a = [{many}], b = [{many}] }}"),
        &["more than 1000 methods"],
    );
}
