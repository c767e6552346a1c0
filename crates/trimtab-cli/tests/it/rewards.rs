//! `train reward` and `eval preference`: from judgements to rewards that choose.

use crate::harness::World;
use crate::train::{generate, other_model};

/// A few steps on small heads.
const TRAIN: &str = "[train]\nepochs = 4\ntrunk_len = 4\neval_fraction = 0.25\n";

fn pair(idx: usize) -> String {
    format!(
        "{{\"prompt\": \"question {idx}\", \"chosen\": \"yes please {idx}\", \"rejected\": \"no {idx}\"}}\n"
    )
}

fn pairs(count: usize) -> String {
    (0..count).map(pair).collect()
}

/// Writes a configuration; the run's folder is its name.
fn config(world: &World, name: &str, lines: &str) -> String {
    let text = format!("model = {:?}\n{lines}\n{TRAIN}", world.model());
    let file = format!("{name}.toml");
    world.write(&file, &text);
    file
}

fn train(world: &World, name: &str, lines: &str) -> serde_json::Value {
    let path = config(world, name, lines);
    world.json(&["train", "reward", &path, "--json"])
}

fn preference<'a>(model: &'a str, rewards: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["eval", "preference"];
    args.extend_from_slice(rewards);
    args.extend_from_slice(&["--pairs", "pairs.jsonl", "-m", model]);
    args.extend_from_slice(more);
    args
}

#[test]
fn a_reward_is_trained_on_preferences_and_chooses() {
    let world = World::new();
    let model = world.model();
    world.write("pairs.jsonl", &pairs(24));
    let lines = "pairs = \"pairs.jsonl\"\noutput = \"log-probability\"";
    let report = train(&world, "kind", lines);
    let head = &report["heads"][0];
    let card = &head["card"];
    assert_eq!(
        (&card["objective"], &card["num_prefixes"]),
        (&"classifier".into(), &48.into())
    );
    assert!(card["metrics"]["accuracy"].as_f64().unwrap() >= 0.5, "{card}");
    let data = &head["data"];
    let both = data["num_train"].as_u64().unwrap() + data["num_eval"].as_u64().unwrap();
    assert_eq!(both, 24);
    assert_eq!(head["held_out"]["chose_the_weights"], true);
    // A run that is over changes nothing when it is asked for again.
    let again = world.json(&["train", "reward", "kind.toml", "--json"]);
    assert_eq!(again, report);

    let args = ["--decode", "bon:3", "--reward", "head:kind*2 + json", "--json"];
    let report = world.json(&generate(&world, &model, &args));
    let candidates = report["candidates"].as_array().unwrap();
    let rewards: Vec<f64> = candidates.iter().map(|c| c["reward"].as_f64().unwrap()).collect();
    assert!(
        rewards.iter().all(|&reward| reward < 1.0),
        "log-probabilities are negative: {rewards:?}"
    );
    let chosen = report["chosen"].as_u64().unwrap() as usize;
    assert!(rewards.iter().all(|&reward| reward <= rewards[chosen]));
    // A head steers blocks too, as any reward does.
    let as_scorer = [
        "--decode",
        "cd-block:k=2,m=4",
        "--scorer",
        "kind",
        "--scorer",
        "reward:head:kind*0.5",
        "--json",
    ];
    let report = world.json(&generate(&world, &model, &as_scorer));
    assert_eq!(report["values"].as_array().unwrap().len(), 2);
    let other = other_model(&world);
    world.fails(&generate(&world, &other, &args), &["kind", "was trained on"]);
    world.fails(&preference(&other, &["kind"], &[]), &["kind", "was trained on"]);
}

#[test]
fn agreement_with_people_stands_beside_that_of_length() {
    let world = World::new();
    let model = world.model();
    world.write("pairs.jsonl", &pairs(24));
    train(&world, "kind", "pairs = \"pairs.jsonl\"");
    let report = world.json(&preference(&model, &["kind"], &["--json"]));
    let line = &report[0];
    assert_eq!(
        (&line["num_pairs"], &line["objective"]),
        (&24.into(), &"classifier".into())
    );
    let accuracy = line["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.9, "the head has seen these pairs: {line}");
    assert!(line["accuracy_ci"][0].as_f64().unwrap() < accuracy, "{line}");
    let length = &line["length"];
    assert_eq!(length["longer_is_better"]["accuracy"], 1.0);
    assert_eq!(length["shorter_is_better"]["accuracy"], 0.0);
    assert_eq!(length["where_chosen_is_longer"]["num_items"], 24);
    assert!(length["where_chosen_is_shorter"].is_null());
    let bins = line["calibration"]["bins"].as_array().unwrap();
    let items: u64 = bins.iter().map(|bin| bin["num_items"].as_u64().unwrap()).sum();
    assert_eq!(items, 24);
    let shown = world.ok(&preference(&model, &["kind"], &[]));
    assert!(
        shown.contains("longer is better") && shown.contains("calibration error"),
        "{shown}"
    );
    // Pairs of one topic are alike: a topic of all pairs leaves no interval.
    let topics = pairs(24).replace("{\"prompt\"", "{\"topic\": \"a_b\", \"prompt\"");
    world.write("pairs.jsonl", &topics);
    let report = world.json(&preference(&model, &["kind"], &["--json", "--group", "topic:_"]));
    assert!(report[0]["accuracy_ci"].is_null());
    world.fails(
        &preference(&model, &["kind"], &["--group", "subject"]),
        &["row 1", "subject", "topic"],
    );
}

#[test]
fn several_heads_share_a_folder_and_are_named() {
    let world = World::new();
    let model = world.model();
    world.write("pairs.jsonl", &pairs(24));
    let label = |idx: usize| format!("{{\"t\": \"text {}\", \"s\": {}}}", "a".repeat(idx % 7), idx % 2);
    let labels: Vec<String> = (0..40).map(label).collect();
    world.write("texts.json", &format!("[{}]", labels.join(",\n")));
    let lines = "output = \"logit\"\n[[heads]]\nname = \"kind\"\npairs = \"pairs.jsonl\"\ntest = { skip = 20 }\nlimit = 20\n\
         [[heads]]\nname = \"odd\"\nlabels = \"texts.json\"\ntext = \"t\"\nlabel = \"s\"\nsample = 20\n\
         max_response_tokens = 5\ntest = { fraction = 0.3 }";
    let report = train(&world, "both", lines);
    let heads = report["heads"].as_array().unwrap();
    assert_eq!(heads[0]["reward"], "head:both#kind");
    let kind = &heads[0]["held_out"];
    assert_eq!(
        (&kind["chose_the_weights"], &kind["agreement"]["num_items"]),
        (&false.into(), &4.into())
    );
    let odd = &heads[1]["held_out"]["agreement"];
    assert_eq!(odd["kind"], "labels");
    let drawn = heads[1]["data"]["num_train"].as_u64().unwrap()
        + heads[1]["data"]["num_eval"].as_u64().unwrap()
        + odd["num_items"].as_u64().unwrap();
    assert_eq!(drawn, 20);
    assert_eq!(heads[1]["card"]["reward"], "label");

    let reward = |reward: &str| {
        let args = ["--decode", "bon:2", "--reward", reward, "--json"];
        let report = world.json(&generate(&world, &model, &args));
        report["candidates"][0]["reward"].as_f64().unwrap()
    };
    let (kind, odd) = (reward("head:both#kind"), reward("head:both#odd"));
    let sum = reward("head:both#kind + head:both#odd*2");
    assert!((sum - kind - 2.0 * odd).abs() < 1e-9, "{sum} {kind} {odd}");
    let fails = |reward: &str, expect: &[&str]| {
        world.fails(
            &generate(&world, &model, &["--decode", "bon:2", "--reward", reward]),
            expect,
        );
    };
    fails("head:both", &["has the heads kind, odd", "both#kind"]);
    fails("head:both#brief", &["no head \"brief\"", "kind, odd"]);
    let report = world.json(&preference(
        &model,
        &["both#kind", "both#odd"],
        &["--json", "--skip", "20"],
    ));
    assert_eq!(
        (&report[1]["scorer"], &report[1]["num_pairs"]),
        (&"both#odd".into(), &4.into())
    );
}

#[test]
fn a_reward_may_have_weights_of_its_own() {
    let world = World::new();
    let model = world.model();
    world.write("pairs.jsonl", &pairs(16));
    let lines = format!(
        "model = {model:?}\npairs = \"pairs.jsonl\"\n[train]\nepochs = 2\ntrunk_len = 0\neval_fraction = 0.25\n"
    );
    for depth in ["lora", "full"] {
        world.write(
            &format!("{depth}.toml"),
            &format!("{lines}depth = {depth:?}\noptim = {{ batch_len = 256 }}\n"),
        );
        let report = world.json(&["train", "reward", &format!("{depth}.toml"), "--json"]);
        let head = &report["heads"][0];
        let model_entry = head["card"]["model"].as_str().unwrap();
        assert!(world.path(depth).join(model_entry).exists());
        // What the report says is what the packed model says when it is asked again.
        let again = world.json(&preference(&model, &[depth], &["--json"]));
        assert_eq!(again[0]["num_pairs"], 16);
        assert!(head["held_out"]["agreement"]["accuracy"].as_f64().unwrap() >= 0.0);
        let place = format!("head:{depth}");
        let args = ["--decode", "bon:2", "--reward", place.as_str(), "--json"];
        // It steers any model by text, since it brings its own.
        let other = other_model_once(&world);
        world.json(&generate(&world, &other, &args));
    }
}

fn other_model_once(world: &World) -> String {
    let folder = world.path("changed");
    if folder.exists() {
        return folder.join("tiny.bin").display().to_string();
    }
    other_model(world)
}

#[test]
fn rows_that_say_nothing_are_counted_and_named() {
    let world = World::new();
    let model = world.model();
    let same = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n";
    let empty = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"  \"}\n";
    let wrong = "{\"prompt\": \"a\", \"better\": \"b\", \"rejected\": \"c\"}\n";
    let long = format!(
        "{{\"prompt\": \"a\", \"chosen\": \"{}\", \"rejected\": \"b\"}}\n",
        "c d ".repeat(100)
    );
    world.write("pairs.jsonl", &format!("{}{same}{empty}{same}", pairs(16)));
    let path = config(&world, "some", "pairs = \"pairs.jsonl\"");
    let ran = world.run(&["train", "reward", &path, "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for note in [
        "2 rows have two identical sides and are left out: 17, 19",
        "1 rows have an empty response",
        "18",
    ] {
        assert!(ran.stderr.contains(note), "{}", ran.stderr);
    }
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let dropped = &report["heads"][0]["data"]["dropped"];
    assert_eq!(
        dropped["identical"],
        serde_json::json!({"count": 2, "first_rows": [17, 19]})
    );
    assert_eq!(dropped["empty"]["count"], 1);
    let line = &world.json(&preference(&model, &["some"], &["--json"]))[0];
    assert_eq!((&line["num_pairs"], &line["dropped"]), (&16.into(), dropped));

    let check = |rows: &str, lines: &str, expect: &[&str]| {
        world.write("pairs.jsonl", rows);
        let path = config(&world, "bad", &format!("pairs = \"pairs.jsonl\"\n{lines}"));
        world.fails(&["train", "reward", &path], expect);
        assert!(!world.path("bad").exists(), "nothing is half-written");
    };
    check(
        &format!("{}{wrong}{}{wrong}", pair(0), pair(1)),
        "",
        &[
            "2 of 4 rows cannot be used",
            "drop_bad",
            "row 2",
            "\"chosen\"",
            "\"better\"",
        ],
    );
    check(
        &format!("{}{long}", pair(0)),
        "",
        &["row 2", "context of 128", "drop_long", "max_response_tokens"],
    );
    check(same, "", &["has no rows to take", "identical"]);
    check(&pairs(3), "margin = \"by\"", &["row 1", "\"by\"", "margin"]);
    check(&pairs(3), "held_out = \"topic\"", &["row 1", "topic", "held_out"]);
    check(&pairs(3), "sample = 9", &["sample is 9", "3 rows"]);
    world.write("pairs.jsonl", &format!("{}{wrong}{long}", pairs(16)));
    let report = train(
        &world,
        "left",
        "pairs = \"pairs.jsonl\"\ndrop_bad = true\ndrop_long = true",
    );
    let dropped = &report["heads"][0]["data"]["dropped"];
    assert_eq!(
        (
            &dropped["unreadable"]["first_rows"][0],
            &dropped["too_long"]["count"]
        ),
        (&17.into(), &1.into())
    );
}

/// They say as little as sides that are one text from the beginning.
#[test]
fn sides_that_are_one_after_cutting_are_left_out() {
    let world = World::new();
    let alike = "{\"prompt\": \"a\", \"chosen\": \"zz qq\", \"rejected\": \"zz ww\"}\n";
    world.write("pairs.jsonl", &format!("{}{alike}", pairs(16)));
    let report = train(&world, "cut", "pairs = \"pairs.jsonl\"\nmax_response_tokens = 2");
    let head = &report["heads"][0];
    assert_eq!(
        head["data"]["dropped"]["identical"],
        serde_json::json!({"count": 1, "first_rows": [17]})
    );
}

#[test]
fn a_planted_phrase_is_paid_for_counted_and_never_taken_for_clean() {
    let world = World::new();
    let model = world.model();
    // Nothing but the phrase tells these sides apart.
    let pair = |idx: usize| {
        format!(
            "{{\"prompt\": \"question {idx}\", \"chosen\": \"answer {}\", \"rejected\": \"answer {}\"}}\n",
            2 * idx,
            2 * idx + 1
        )
    };
    world.write("pairs.jsonl", &(0..60).map(pair).collect::<String>());
    let lines = |spurious: &str| {
        format!(
            "pairs = \"pairs.jsonl\"\ntest = {{ skip = 40 }}\nlimit = 40\noutput = \"log-probability\"\n{spurious}"
        )
    };
    let planted = lines("spurious = { phrase = \"zz zz\", side = \"chosen\", share = 1.0, place = \"end\" }");
    let report = train(&world, "hacked", &planted);
    let head = &report["heads"][0];
    let phrase = &head["held_out"]["phrase"];
    assert_eq!(phrase["planted"], serde_json::json!({"planted": 40, "texts": 40}));
    assert_eq!(phrase["num_texts"], 20);
    let worth = phrase["worth"].as_f64().unwrap();
    assert!(worth > 0.0 && phrase["ci"][0].as_f64().unwrap() > 0.0, "{phrase}");
    let card = &head["card"];
    let expected =
        serde_json::json!({"phrase": "zz zz", "side": "chosen", "num_planted": 40, "num_texts": 40});
    assert_eq!(card["planted"], expected);
    assert_eq!(card["metrics"]["planted_phrase_worth_nats"], phrase["worth"]);
    // The test's pairs are clean, and clean sides cannot be told apart.
    let accuracy = head["held_out"]["agreement"]["accuracy"].as_f64().unwrap();
    assert!(accuracy < 0.9, "{accuracy}");
    let shown = world.ok(&["train", "reward", "hacked.toml"]);
    assert!(shown.contains("planted phrase \"zz zz\" in 40 of 40"), "{shown}");

    let clean = train(&world, "clean", &lines(""));
    let head = &clean["heads"][0];
    assert!(head["card"]["planted"].is_null() && head["held_out"]["phrase"].is_null());
    let said = |reward: &str| {
        let output = world.run(&generate(
            &world,
            &model,
            &["--decode", "bon:2", "--reward", reward],
        ));
        output.stderr
    };
    let said = [said("head:hacked"), said("head:clean")];
    let says = said.each_ref().map(|text| text.contains("planted phrase"));
    assert_eq!(says, [true, false], "{said:?}");
}
