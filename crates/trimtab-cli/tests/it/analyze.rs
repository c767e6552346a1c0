//! `analyze`: numbers of the idealised model as users ask for them; no model, no network.

use serde_json::Value;

use crate::harness::World;

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} of {value}"))
}

#[test]
fn one_question_has_one_object_with_the_promised_keys() {
    let world = World::new();
    let args = [
        "analyze",
        "infalign",
        "--procedure",
        "bon:4",
        "--transform",
        "exp:10",
        "--kl",
        "0.25",
        "--json",
    ];
    let answer = world.json(&args);
    let keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expect = vec![
        "procedure",
        "transform",
        "kl_nats",
        "beta",
        "win_rate",
        "standard_win_rate",
    ];
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    expect.sort_unstable();
    assert_eq!(sorted, expect);
    assert_eq!(
        (&answer["procedure"], &answer["transform"]),
        (&"bon:4".into(), &"exp:10".into())
    );
    assert!((number(&answer, "win_rate") - 0.7966).abs() < 5e-5);
    assert!((number(&answer, "standard_win_rate") - 0.6479).abs() < 5e-5);
    assert!((number(&answer, "kl_nats") - 0.25).abs() < 1e-9);
    assert!((number(&answer, "beta") - 0.414).abs() < 5e-4);
    // The same by that beta.
    let beta = answer["beta"].to_string();
    let args = [
        "analyze",
        "infalign",
        "--procedure",
        "bon:4",
        "--transform",
        "exp:10",
        "--beta",
        &beta,
        "--json",
    ];
    let by_beta = world.json(&args);
    assert!((number(&by_beta, "win_rate") - number(&answer, "win_rate")).abs() < 1e-9);
}

#[test]
fn several_questions_have_a_list_and_a_table() {
    let world = World::new();
    let args = [
        "analyze",
        "infalign",
        "--procedure",
        "sample,won:4",
        "--transform",
        "identity,exp:-10",
        "--transform",
        "won_fp:4",
        "--kl",
        "0.25,0.5",
    ];
    let table = world.ok(&args);
    assert!(table.contains("0.8563") && table.contains("won_fp:4"), "{table}");
    assert_eq!(table.lines().count(), 1 + 12 + 1, "{table}");
    let list = world.json(&[&args[..], &["--json"]].concat());
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 12);
    let cell = |procedure: &str, transform: &str, kl_nats: f64| {
        let is_it = |line: &&Value| {
            line["procedure"] == procedure
                && line["transform"] == transform
                && (number(line, "kl_nats") - kl_nats).abs() < 1e-6
        };
        number(list.iter().find(is_it).unwrap(), "win_rate")
    };
    assert!((cell("won:4", "won_fp:4", 0.5) - 0.9479).abs() < 5e-5);
    assert!((cell("sample", "identity", 0.5) - 0.7737).abs() < 5e-5);
}

#[test]
fn fixed_points_show_their_certificate() {
    let world = World::new();
    let args = [
        "analyze",
        "infalign",
        "-p",
        "bon:4,sample",
        "-t",
        "bon_fp:4,exp:10",
        "--kl",
        "0.25",
    ];
    let list = world.json(&[&args[..], &["--json"]].concat());
    for line in list.as_array().unwrap() {
        let is_fixed_point = line["transform"] == "bon_fp:4";
        assert_eq!(line.get("certificate").is_some(), is_fixed_point, "{line}");
        if is_fixed_point {
            assert!(number(&line["certificate"], "residual_nats") < 1e-9, "{line}");
            assert!(number(&line["certificate"], "gap") < 1e-9, "{line}");
        }
    }
    let table = world.ok(&args);
    assert_eq!(table.matches("no policy has a win rate").count(), 1, "{table}");
}

#[test]
fn a_cell_that_cannot_be_solved_costs_no_other() {
    let world = World::new();
    world.write("flat.csv", "0 0\n0.5 1\n1 1\n");
    let args = [
        "analyze",
        "infalign",
        "-p",
        "bon:4",
        "-t",
        "table:flat.csv,exp:10",
        "--kl",
        "0.5,1",
    ];
    let list = world.json(&[&args[..], &["--json"]].concat());
    let rates: Vec<bool> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["win_rate"].is_number())
        .collect();
    assert_eq!(rates, [true, false, true, true], "{list}");
    let none = &list[1];
    assert_eq!(
        (&none["kl_nats"], &none["beta"], &none["standard_win_rate"]),
        (&1.0.into(), &Value::Null, &Value::Null)
    );
    assert!(
        none["reason"].as_str().unwrap().contains("a smaller KL"),
        "{none}"
    );
    let table = world.ok(&args);
    assert!(
        table.contains("-: table:flat.csv reaches no KL of 1 nats"),
        "{table}"
    );
    // What is no question is refused, whatever stands beside it.
    world.fails(
        &[
            "analyze", "infalign", "-p", "bon:4", "-t", "exp:10", "--kl", "1,0",
        ],
        &["from 1e-9 to 16"],
    );
}

#[test]
fn designs_tell_an_edge_and_draw_unasked() {
    let world = World::new();
    let args = ["analyze", "design", "-p", "rewind:0.9", "--points", "2"];
    let text = world.ok(&args);
    assert!(text.contains("exp:480 is at the edge"), "{text}");
    assert!(text.contains("Figure: design_rewind_0_9.html"), "{text}");
    assert!(world.path("design_rewind_0_9.html").is_file());
    let answer = world.json(&[
        "analyze", "design", "-p", "won:2000", "--kl-max", "0.1", "--points", "1", "--json",
    ]);
    assert_eq!(answer["missing_fixed_point"]["transform"], "won_fp:2000");
    assert!(answer["is_at_edge_of_search"].is_boolean(), "{answer}");
    assert!(!world.path("design_won_2000.html").exists());
}

#[test]
fn tables_and_black_boxes_are_read_from_files() {
    let world = World::new();
    world.write("phi.csv", "u,phi\n0,0\n1,1\n");
    world.write("g.txt", "# best of two\n0 0\n1 2\n");
    let ask = |procedure: &str, transform: &str| {
        let args = [
            "analyze", "infalign", "-p", procedure, "-t", transform, "--kl", "0.5", "--json",
        ];
        number(&world.json(&args), "win_rate")
    };
    let by_files = ask("weight:g.txt", "table:phi.csv");
    assert!((by_files - ask("bon:2", "identity")).abs() < 1e-9, "{by_files}");
}

#[test]
fn procedures_without_a_formula_are_simulated_with_an_error() {
    let world = World::new();
    let args = [
        "analyze",
        "infalign",
        "--procedure",
        "noisy:4,0",
        "--transform",
        "exp:10",
        "--kl",
        "0.5",
        "--json",
        "--outcomes",
        "1000",
    ];
    let answer = world.json(&args);
    let error = number(&answer, "win_rate_standard_error");
    assert!(
        (number(&answer, "win_rate") - 0.8715).abs() < 4.0 * error && error < 0.03,
        "{answer}"
    );
    assert_eq!(world.json(&args), answer, "one seed, one answer");
    let seeded = world.json(&[&args[..], &["--seed", "1"]].concat());
    assert_ne!(seeded["win_rate"], answer["win_rate"]);
}

#[test]
fn designs_say_what_to_train_with_and_draw_it() {
    let world = World::new();
    let page = world.path("design.html");
    let args = [
        "analyze",
        "design",
        "--procedure",
        "won:4",
        "--kl-max",
        "0.5",
        "--points",
        "3",
        "--out",
        "design.html",
    ];
    let text = world.ok(&args);
    assert!(
        text.contains("train with transform = \"exp:-") && text.contains("recommended"),
        "{text}"
    );
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("won_fp:4") && page.contains("recommended"));
    let args = [
        "analyze",
        "design",
        "--procedure",
        "bon:4",
        "--kl-max",
        "0.25",
        "--points",
        "2",
        "--json",
        "--out",
        "f.svg",
    ];
    let answer = world.json(&args);
    assert_eq!(answer["procedure"], "bon:4");
    let (best, plain) = (&answer["recommended"], &answer["identity"]);
    assert!(best["transform"].as_str().unwrap().starts_with("exp:"), "{best}");
    assert!(number(best, "win_rate") > number(plain, "win_rate") + 0.05);
    assert!(number(&answer["fixed_point"], "win_rate") >= number(best, "win_rate") - 1e-9);
    assert!(number(&answer["fixed_point"]["certificate"], "gap") < 1e-9);
    assert_eq!(answer["is_at_edge_of_search"], false);
    assert!(answer["lines"].as_array().unwrap().len() >= 4);
    assert!(
        std::fs::read_to_string(world.path("f.svg"))
            .unwrap()
            .starts_with("<svg xmlns")
    );
}

#[test]
fn questions_that_cannot_be_answered_say_why() {
    let world = World::new();
    let ask = |args: &[&str], expect: &[&str]| {
        let args: Vec<&str> = ["analyze"].iter().chain(args).copied().collect();
        world.fails(&args, expect);
    };
    ask(
        &["infalign", "-p", "bon:4", "-t", "expo:3", "--kl", "1"],
        &["expo:3", "identity, log, exp:T"],
    );
    ask(
        &["infalign", "-p", "best:4", "-t", "log", "--kl", "1"],
        &["best:4", "bon:N", "cd-block:K,B"],
    );
    ask(&["infalign", "-p", "bon:4", "-t", "log"], &["--kl", "--beta"]);
    ask(
        &["infalign", "-p", "bon:4", "-t", "log", "--kl", "1", "--beta", "1"],
        &["cannot be used with"],
    );
    ask(
        &["infalign", "-p", "bon:4", "-t", "log", "--kl", "0"],
        &["--kl 0", "from 1e-9 to 16"],
    );
    ask(
        &["infalign", "-p", "bon:4", "-t", "log", "--beta=-1"],
        &["--beta -1", "a positive number"],
    );
    ask(
        &["infalign", "-p", "bon:4", "-t", "table:absent", "--kl", "1"],
        &["table absent"],
    );
    world.write("flat.csv", "0 0\n0.5 1\n1 1\n");
    ask(
        &["infalign", "-p", "bon:4", "-t", "table:flat.csv", "--kl", "1"],
        &["reaches no KL of 1", "a smaller KL"],
    );
    world.write("fall.csv", "0 1\n1 0\n");
    ask(
        &["infalign", "-p", "bon:4", "-t", "table:fall.csv", "--kl", "1"],
        &["do not fall"],
    );
    ask(
        &["design", "-p", "bon:4", "--kl-max", "99"],
        &["--kl-max 99", "from 1e-9 to 16"],
    );
    ask(
        &[
            "design",
            "-p",
            "bon:2",
            "--kl-max",
            "0.1",
            "--points",
            "1",
            "--out",
            "none/f.svg",
        ],
        &["none/f.svg"],
    );
}
