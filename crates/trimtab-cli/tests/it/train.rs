//! `train scorer`, and `generate` and `explain` with what it leaves.

use std::path::Path;

use crate::harness::World;

const PROMPTS: &str =
    "hello\nthe quick brown fox\nzebra\none two three\ngood morning\nabc\nwhat is it\nwhy not\n";

/// A few steps on small heads.
const TRAIN: &str = "[train]\nepochs = 2\ntrunk_len = 8\neval_fraction = 0.25\noptim = { batch_len = 128 }\n";

/// A world with rollouts of its model.
fn world_with_rollouts() -> World {
    let world = World::new();
    world.write("prompts.txt", PROMPTS);
    world.ok(&[
        "rollout",
        "--model",
        &world.model(),
        "--prompts",
        "prompts.txt",
        "--per-prompt",
        "3",
        "-n",
        "12",
        "--reward",
        "length",
        "--out",
        "rollouts",
    ]);
    world
}

fn config(world: &World, name: &str, lines: &str) -> String {
    let text = format!(
        "model = {:?}\nrollouts = \"rollouts\"\nfeatures_len = 8\n{lines}\n{TRAIN}",
        world.model()
    );
    world.write(name, &text).display().to_string()
}

pub(crate) fn generate<'a>(world: &'a World, model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let _ = world;
    let mut args = vec!["generate", "hello", "-m", model, "-n", "12"];
    args.extend_from_slice(more);
    args
}

#[test]
fn a_scorer_is_trained_once_for_all() {
    let world = world_with_rollouts();
    let fudge = config(&world, "fudge.toml", "reward = \"length\"\nname = \"long\"");
    let report = world.json(&["train", "scorer", &fudge, "--json"]);
    let card = &report["card"];
    assert_eq!(
        (&card["name"], &card["objective"]),
        (&"long".into(), &"cd-fudge".into())
    );
    assert_eq!(card["reward_unit"], "nats, log(tokens / T_max)");
    assert!(card["metrics"]["mse"].as_f64().unwrap() > 0.0, "{card}");
    assert!(world.path("fudge/scorer.safetensors").is_file() && world.path("fudge/metrics.jsonl").is_file());

    // Another objective finds the states that the first has read.
    let q = config(&world, "q.toml", "reward = \"length\"\nobjective = \"cd-q\"");
    let ran = world.run(&["train", "scorer", &q, "--out", "other"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("reading states"), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("cd-q of reward length (nats"),
        "{}",
        ran.stdout
    );
    assert!(ran.stderr.contains("--scorer other"), "{}", ran.stderr);

    // So does another reward.
    let e = config(&world, "e.toml", "reward = \"keywords:e\"");
    let ran = world.run(&["train", "scorer", &e, "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("reading states"), "{}", ran.stderr);
    let card: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(card["card"]["reward_unit"], "keywords found");
    assert_ne!(card["card"]["data_sha256"], report["card"]["data_sha256"]);

    // A run that is over changes nothing when it is asked for again.
    let before = std::fs::read(world.path("fudge/scorer.safetensors")).unwrap();
    assert_eq!(world.json(&["train", "scorer", &fudge, "--json"]), report);
    assert_eq!(
        std::fs::read(world.path("fudge/scorer.safetensors")).unwrap(),
        before
    );
}

#[test]
fn a_trained_scorer_steers_and_its_choices_are_explained() {
    let world = world_with_rollouts();
    let fudge = config(&world, "fudge.toml", "reward = \"length\"");
    let q = config(&world, "other.toml", "reward = \"length\"\nobjective = \"cd-q\"");
    world.ok(&["train", "scorer", &fudge]);
    world.ok(&["train", "scorer", &q]);
    let model = world.model();
    let blocks = [
        "--decode",
        "cd-block:k=3,m=4",
        "--scorer",
        "fudge",
        "--scorer",
        "other*-0.5",
        "--json",
        "--trace",
    ];
    let report = world.json(&generate(&world, &model, &blocks));
    assert_eq!(report["values"].as_array().unwrap().len(), 2);
    assert_eq!(report["scorers"][1]["weight"], -0.5);
    assert_eq!(report["kl_kind"], "bound");
    let trace = report["trace"].as_array().unwrap();
    assert!(!trace.is_empty());
    for step in trace {
        let candidates = step["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 3);
        let mixed: Vec<f64> = candidates
            .iter()
            .map(|c| c["mixed_value"].as_f64().unwrap())
            .collect();
        for (candidate, &mixed_value) in candidates.iter().zip(&mixed) {
            let value = |idx: usize| candidate["values"][idx].as_f64().unwrap();
            assert!((value(0) - 0.5 * value(1) - mixed_value).abs() < 1e-6);
            let is_best = mixed.iter().all(|&other| other <= mixed_value);
            assert_eq!(candidate["is_kept"], is_best);
        }
    }
    let tokens = ["--decode", "cd-token:weight=2", "--scorer", "fudge", "--json"];
    let report = world.json(&generate(&world, &model, &tokens));
    assert_eq!(report["kl_kind"], "exact");
    assert!(report["kl_nats"].as_f64().unwrap() > 0.0);
    assert!(report.get("trace").is_none());

    let explained = world.ok(&[
        "explain",
        "hello",
        "-m",
        &model,
        "-n",
        "8",
        "--decode",
        "cd-block:k=2,m=4",
        "--scorer",
        "fudge",
    ]);
    assert!(
        explained.contains("after 0 tokens") && explained.contains("fudge*1 (nats)"),
        "{explained}"
    );
    let explained = world.ok(&[
        "explain",
        "hello",
        "-m",
        &model,
        "-n",
        "4",
        "--decode",
        "cd-token:weight=2",
        "--scorer",
        "fudge",
    ]);
    assert!(explained.contains("steered"), "{explained}");
}

/// The model with one weight changed, in a folder of its own.
pub(crate) fn other_model(world: &World) -> String {
    let folder = world.path("changed");
    std::fs::create_dir(&folder).unwrap();
    let mut bytes = std::fs::read(world.path("tiny.bin")).unwrap();
    let place = (bytes.len() / 2) & !3;
    bytes[place..place + 4].copy_from_slice(&0.125_f32.to_le_bytes());
    std::fs::write(folder.join("tiny.bin"), bytes).unwrap();
    std::fs::copy(world.path("tokenizer.bin"), folder.join("tokenizer.bin")).unwrap();
    folder.join("tiny.bin").display().to_string()
}

#[test]
fn a_scorer_of_another_model_is_refused_or_steers_by_text() {
    let world = world_with_rollouts();
    let fudge = config(&world, "fudge.toml", "reward = \"length\"");
    world.ok(&["train", "scorer", &fudge]);
    let other = other_model(&world);
    let steered = ["--decode", "cd-block:k=2,m=4", "--scorer", "fudge"];
    world.fails(
        &generate(&world, &other, &steered),
        &["fudge", "was trained on", "sha256", "fudge@"],
    );
    let separate = format!("fudge@{}", world.model());
    let by_text = ["--decode", "cd-block:k=2,m=4", "--scorer", &separate, "--json"];
    let report = world.json(&generate(&world, &other, &by_text));
    assert_eq!(report["values"].as_array().unwrap().len(), 1);
    let by_tokens = ["--decode", "cd-token:weight=1", "--scorer", &separate];
    world.fails(&generate(&world, &other, &by_tokens), &["cd-token", "cd-block"]);
    // Rollouts hold tokens of one model.
    let text = format!("model = {other:?}\nrollouts = \"rollouts\"\nreward = \"length\"\n{TRAIN}");
    world.write("wrong.toml", &text);
    world.fails(
        &["train", "scorer", "wrong.toml"],
        &["tokens of another model", "--responses"],
    );
    assert!(!world.path("wrong").exists());
}

#[test]
fn unusable_data_is_named_and_nothing_is_left() {
    let world = World::new();
    let model = world.model();
    let row = |reward: &str| {
        format!(
            "{{\"prompt\": \"a\", \"response\": \"b\", \"prompt_token_ids\": [1, 2], \"response_token_ids\": [3, 4]{reward}}}\n"
        )
    };
    let check = |rows: &str, reward: &str, expect: &[&str]| {
        world.write("rows.jsonl", rows);
        let text = format!("model = {model:?}\nrollouts = \"rows.jsonl\"\nreward = {reward:?}\n{TRAIN}");
        let config = world.write("bad.toml", &text);
        world.fails(&["train", "scorer", config.to_str().unwrap()], expect);
        assert!(!world.path("bad").exists(), "nothing is half-written");
    };
    let scored = row(", \"reward\": 1.0");
    check(
        &format!("{scored}{}", row("")),
        "reward",
        &["row 2", "missing", "reward"],
    );
    check(&row(""), "lenght", &["no column lenght", "did you mean `length`"]);
    check(&row(""), "likelihood", &["row 1", "likelihood", "NaN"]);
    let long = format!("[{}]", vec!["5"; 200].join(", "));
    check(
        &format!("{}{}", row(""), row("").replace("[3, 4]", &long)),
        "length",
        &["row 2", "200", "context of 128"],
    );
    check(
        &row("").replace("[3, 4]", "[]"),
        "length",
        &["row 1", "--responses"],
    );
    world.fails(&["train", "scorer", "none.toml"], &["cannot read none.toml"]);
    let text = format!("model = {model:?}\nrollouts = \"nowhere\"\nreward = \"length\"\n");
    world.write("bad.toml", &text);
    world.fails(
        &["train", "scorer", "bad.toml"],
        &["nowhere does not exist", "trimtab rollout"],
    );
}

#[test]
fn steering_that_cannot_work_is_refused() {
    let world = World::new();
    let model = world.model();
    let fails = |more: &[&str], expect: &[&str]| world.fails(&generate(&world, &model, more), expect);
    fails(
        &["--decode", "cd-block:k=2,m=4"],
        &["steered by prefix scorers", "--scorer"],
    );
    fails(
        &["--decode", "bon:2", "--reward", "length", "--scorer", "x"],
        &["takes no scorers", "cd-block"],
    );
    fails(
        &["--decode", "cd-block:k=2,m=4", "--scorer", "x"],
        &["scorer x", "train scorer"],
    );
    fails(
        &["--decode", "cd-block:k=2,m=4", "--scorer", "x", "--scorer", "x*2"],
        &["--scorer x is given twice"],
    );
    fails(
        &["--decode", "cd-block:k=2,m=4", "--scorer", "x*nan"],
        &["weight", "nan"],
    );
    world.fails(
        &["explain", "hello", "-m", &model],
        &["decides nothing by values", "cd-block"],
    );
    assert!(!Path::new("x").exists());
}

#[test]
fn rewards_stand_in_for_scorers_and_floors_hold_one_of_them() {
    let world = World::new();
    let model = world.model();
    let steered = [
        "--decode",
        "cd-block:k=4,m=4",
        "--scorer",
        "reward:keywords:e|a",
        "--scorer",
        "reward:length*-1",
        "--keep",
        "reward:length>=-6.5",
        "--json",
        "--trace",
    ];
    let report = world.json(&generate(&world, &model, &steered));
    assert_eq!(report["scorers"][0]["name"], "reward:keywords:e|a");
    assert_eq!(report["scorers"][0]["unit"], "keywords found");
    assert!(!report["trace"].as_array().unwrap().is_empty());
    let by_tokens = ["--decode", "cd-token:weight=1", "--scorer", "reward:length"];
    world.fails(
        &generate(&world, &model, &by_tokens),
        &["cd-token needs", "cd-block"],
    );
    let unknown = ["--decode", "cd-block:k=2,m=4", "--scorer", "reward:lenght"];
    world.fails(&generate(&world, &model, &unknown), &["did you mean `length`"]);
    let no_floor = [
        "--decode",
        "cd-block:k=2,m=4",
        "--scorer",
        "reward:length",
        "--keep",
        "size>=1",
    ];
    world.fails(
        &generate(&world, &model, &no_floor),
        &["\"size\"", "reward:length"],
    );
    let memory = [
        "--decode",
        "cd-block:k=64,m=100",
        "-n",
        "100",
        "--scorer",
        "reward:length",
        "--kv-memory",
        "1",
    ];
    let mut args = vec!["generate", "hello", "-m", &model];
    args.extend_from_slice(&memory);
    world.fails(&args, &["cd-block:k=64,m=100", "--kv-memory 1 (MiB)", "branches"]);
}
