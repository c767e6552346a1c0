//! `frontier` with prefix scorers: a made-up scorer on the tiny model steers, is told apart, and changes no guarantee.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use trimtab_scorer::{FORMAT_VERSION, HeadSizes, ScorerBase, ScorerCard, ScorerWeights, write_scorer};

use crate::harness::World;

const HIDDEN_LEN: usize = 32;
const VOCAB_LEN: usize = 285;

/// A scorer of random weights for the model in `world`, or for one of another hash.
fn write(world: &World, name: &str, seed: u64, base_sha256: Option<&str>) {
    let bytes = std::fs::read(world.path("tiny.bin")).unwrap();
    let digest: Vec<String> = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let sizes = HeadSizes {
        hidden_len: HIDDEN_LEN,
        vocab_len: VOCAB_LEN,
        trunk_len: 8,
        features_len: 4,
    };
    let card = ScorerCard {
        format_version: FORMAT_VERSION,
        name: name.to_owned(),
        objective: "cd-q".to_owned(),
        reward: "length".to_owned(),
        reward_unit: "nats".to_owned(),
        base: ScorerBase {
            name: "tiny".to_owned(),
            sha256: base_sha256.map_or_else(|| digest.concat(), str::to_owned),
            hidden_len: HIDDEN_LEN,
            vocab_len: VOCAB_LEN,
            precision: "int8".to_owned(),
        },
        data_sha256: "00".repeat(32),
        num_prefixes: 1,
        metrics: BTreeMap::new(),
        seed,
        source_revision: "test".to_owned(),
        weights_sha256: String::new(),
        model: None,
        planted: None,
    };
    write_scorer(&world.path(name), &card, &ScorerWeights::random(seed, sizes)).unwrap();
}

fn world() -> World {
    let world = World::new();
    write(&world, "one", 1, None);
    write(&world, "two", 2, None);
    world
}

/// A configuration with these lines; `name` is that of its file.
fn config(world: &World, name: &str, lines: &str) -> String {
    let prompts: Vec<String> = (0..3).map(|i| format!("prompt number {i}")).collect();
    world.write("prompts.txt", &prompts.join("\n"));
    let text = format!(
        "model = \"tiny.bin\"\nprompts = \"prompts.txt\"\nreward = \"length\"\nmax_new_tokens = 24\n\
         reference_samples = 2\n{lines}\n"
    );
    world.write(name, &text).display().to_string()
}

const METHODS: &str = r#"methods = [
    "sample",
    "bon:4",
    { decode = "cd-block:k={k},m=8,audit=3", k = [2, 4], scorers = ["one"], series = "blockwise", label = "K = {k}" },
    { decode = "cd-token:weight=0.5", scorers = ["one*2", "two*-1"] },
]
rewards_also = ["keywords:e|t"]
x_axis = "k"
"#;

fn results(folder: &Path) -> Vec<Vec<u8>> {
    ["frontier.json", "frontier.csv", "report.html", "config.toml"]
        .iter()
        .map(|name| std::fs::read(folder.join(name)).unwrap())
        .collect()
}

#[test]
fn steered_methods_stand_beside_the_others() {
    let world = world();
    let config = config(&world, "run.toml", METHODS);
    let report = world.json(&["frontier", &config, "--out", "out", "--json"]);
    let points = report["points"].as_array().unwrap();
    let of = |key: &str| points.iter().map(|point| point[key].clone()).collect::<Vec<_>>();
    assert_eq!(
        of("method"),
        [
            "sample",
            "bon:4",
            "cd-block:k=2,m=8,audit=3 @ one",
            "cd-block:k=4,m=8,audit=3 @ one",
            "cd-token:0.5 @ one*2 + two*-1",
        ]
    );
    assert_eq!(of("kl_kind"), ["exact", "bound", "bound", "bound", "exact"]);
    assert_eq!(of("num_candidates"), [1, 4, 2, 4, 1]);
    assert_eq!(of("series")[2..4], ["blockwise", "blockwise"]);
    assert_eq!(points[3]["variables"]["k"], "4");
    for block in &points[2..4] {
        let choices = block["choices_per_answer"].as_f64().unwrap();
        let candidates = block["num_candidates"].as_f64().unwrap();
        let bound = candidates.ln() - (candidates - 1.0) / candidates;
        assert!(
            (block["kl_nats"].as_f64().unwrap() - bound * choices).abs() < 1e-5,
            "{block}"
        );
        let estimate = block["kl_estimate_nats"].as_f64().unwrap();
        assert!((0.0..=bound * choices).contains(&estimate), "{block}");
        let first = block["first_commit_tokens"].as_f64().unwrap();
        assert!(
            first > 0.0 && first <= block["tokens_per_answer"].as_f64().unwrap(),
            "{block}"
        );
        assert_eq!(block["values"][0]["name"], "one");
    }
    assert!(
        points[4]["kl_nats"].as_f64().unwrap() > 0.0,
        "a tilt moves away from the reference"
    );
    assert_eq!(points[4]["values"].as_array().unwrap().len(), 2);
    for point in points {
        assert_eq!(point["rewards_also"][0]["name"], "keywords:e|t");
        assert!(point["rewards_also"][0]["mean"].is_number());
    }
    let csv = std::fs::read_to_string(world.path("out/frontier.csv")).unwrap();
    assert!(
        csv.lines()
            .next()
            .unwrap()
            .ends_with("keywords:e|t,keywords:e|t_ci_lo,keywords:e|t_ci_hi"),
        "{csv}"
    );
    let html = std::fs::read_to_string(world.path("out/report.html")).unwrap();
    for id in [
        "reward-by-tokens",
        "trade-off-1",
        "reward-by-variable",
        "first-commit-by-variable",
    ] {
        assert!(html.contains(id), "the page lacks {id}");
    }
    assert!(html.contains("through series-2") && html.contains("K = 4"));
}

#[test]
fn threads_seeds_and_kills_do_not_change_a_byte() {
    let world = world();
    let config = config(&world, "run.toml", &format!("{METHODS}seeds = [3, 4]\n"));
    world.ok(&["frontier", &config, "--out", "a", "--threads", "2"]);
    world.ok(&["frontier", &config, "--out", "b", "--threads", "1"]);
    let first = results(&world.path("a"));
    assert_eq!(first, results(&world.path("b")));
    let journal = std::fs::read(world.path("a/journal")).unwrap();
    std::fs::create_dir(world.path("cut")).unwrap();
    std::fs::write(world.path("cut/journal"), &journal[..journal.len() / 2]).unwrap();
    world.ok(&["frontier", &config, "--out", "cut"]);
    assert_eq!(first, results(&world.path("cut")));
    let copied = world.path("a/config.toml").display().to_string();
    world.ok(&["frontier", &copied, "--out", "c"]);
    assert_eq!(first, results(&world.path("c")));
}

#[test]
fn every_seed_has_its_numbers_and_the_mean_is_over_all() {
    let world = world();
    let of_seeds = |name: &str, line: &str| -> Vec<Value> {
        let lines = format!(
            "methods = [\"bon:2\", {{ decode = \"cd-block:k=2,m=8\", scorers = [\"one\"] }}]\n{line}"
        );
        let config = config(&world, &format!("{name}.toml"), &lines);
        let report = world.json(&["frontier", &config, "--out", name, "--json"]);
        report["points"].as_array().unwrap().clone()
    };
    let both = of_seeds("both", "seeds = [3, 4]");
    let singles = [of_seeds("three", "seed = 3"), of_seeds("four", "seed = 4")];
    for (idx, point) in both.iter().enumerate() {
        let reward = |point: &Value| point["reward_mean"].as_f64().unwrap();
        let alone: Vec<f64> = singles.iter().map(|points| reward(&points[idx])).collect();
        let by_seed: Vec<f64> = point["seed_values"]
            .as_array()
            .unwrap()
            .iter()
            .map(reward)
            .collect();
        assert_eq!(alone, by_seed, "a seed draws what it draws alone");
        assert!(
            (reward(point) - f64::midpoint(alone[0], alone[1])).abs() < 2e-6,
            "{point}"
        );
        assert!(
            singles[0][idx]["seed_values"].is_null(),
            "one seed has nothing to compare"
        );
    }
}

#[test]
fn a_seed_can_have_a_scorer_of_its_own() {
    let world = world();
    for seed in [3, 4] {
        write(&world, &format!("own_s{seed}"), seed, None);
    }
    let method = "methods = [{ decode = \"cd-block:k=3,m=4\", scorers = [\"own_s{seed}\"] }]\nseeds = [3, 4]";
    let config = config(&world, "run.toml", method);
    let report = world.json(&["frontier", &config, "--out", "out", "--json"]);
    assert_eq!(report["points"][0]["method"], "cd-block:k=3,m=4 @ own_s{seed}");
    assert_eq!(report["seeds"], serde_json::json!([3, 4]));
}

#[test]
fn another_scorer_is_another_run_and_another_label_is_not() {
    let world = world();
    let method = |label: &str| {
        format!("methods = [{{ decode = \"cd-block:k=2,m=8\", scorers = [\"one\"], label = \"{label}\" }}]")
    };
    let run = config(&world, "run.toml", &method("before"));
    world.ok(&["frontier", &run, "--out", "out"]);
    let relabelled = config(&world, "run.toml", &method("after"));
    let ran = world.run(&["frontier", &relabelled, "--out", "out"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        !ran.stderr.contains("answering"),
        "nothing is drawn anew: {}",
        ran.stderr
    );
    assert!(
        std::fs::read_to_string(world.path("out/report.html"))
            .unwrap()
            .contains("after")
    );
    let before = results(&world.path("out"));
    std::fs::remove_dir_all(world.path("one")).unwrap();
    write(&world, "one", 9, None);
    world.fails(
        &["frontier", &run, "--out", "out"],
        &["another run", "weights of scorer 1"],
    );
    assert_eq!(before, results(&world.path("out")));
}

#[test]
fn scorers_that_do_not_fit_are_refused_before_anything_is_written() {
    let world = world();
    write(&world, "foreign", 1, Some(&"ab".repeat(32)));
    let refused = |method: &str, expect: &[&str]| {
        let config = config(&world, "run.toml", &format!("methods = [{method}]"));
        world.fails(&["frontier", &config, "--out", "out", "--kv-memory", "1"], expect);
        assert!(!world.path("out").exists(), "{method}");
    };
    refused("\"cd-block:k=2,m=8\"", &["needs prefix scorers", "scorers = "]);
    refused(
        "{ decode = \"cd-block:k=2,m=8\", scorers = [\"nowhere\"] }",
        &["nowhere"],
    );
    refused(
        "{ decode = \"cd-block:k=2,m=8\", scorers = [\"foreign\"] }",
        &["foreign", "tiny", "sha256 abab", "foreign@tiny"],
    );
    refused(
        "{ decode = \"cd-block:k=2,m=8\", scorers = [\"one\"], floor = \"two>=1\" }",
        &["floor is on \"two\"", "one"],
    );
    refused(
        "{ decode = \"cd-block:k=60000,m=8\", scorers = [\"one\"] }",
        &["prompt", "cd-block:k=60000,m=8", "branches"],
    );
}

#[test]
fn a_scorer_for_another_model_steers_by_text_on_its_own() {
    let world = world();
    let method =
        |scorer: &str| format!("methods = [{{ decode = \"cd-block:k=3,m=4\", scorers = [\"{scorer}\"] }}]");
    // On the very model that generates, so that both ways mean the same values.
    let by_text = config(&world, "text.toml", &method("one@tiny.bin"));
    let by_text = world.json(&["frontier", &by_text, "--out", "text", "--json"]);
    let point = &by_text["points"][0];
    assert_eq!(point["method"], "cd-block:k=3,m=4 @ one@tiny.bin");
    assert!(point["values"][0]["mean"].is_number() && point["kl_nats"].as_f64().unwrap() > 0.0);
    let by_row = config(&world, "row.toml", &method("one"));
    let by_row = world.json(&["frontier", &by_row, "--out", "row", "--json"]);
    assert_eq!(by_row["points"][0]["kl_kind"], point["kl_kind"]);
    let tokenwise = "methods = [{ decode = \"cd-token:weight=1\", scorers = [\"one@tiny.bin\"] }]";
    let tokenwise = config(&world, "token.toml", tokenwise);
    world.fails(
        &["frontier", &tokenwise, "--out", "token"],
        &["cd-token", "use cd-block"],
    );
}

#[test]
fn transcripts_give_held_out_first_turns() {
    let world = world();
    let line = |first: &str| {
        let text = format!("\n\nHuman: {first}\n\nAssistant: well\n\nHuman: more\n\nAssistant: no");
        serde_json::json!({"chosen": text, "rejected": text}).to_string()
    };
    let lines: Vec<String> = ["one", "two", "one", "three", "four"].map(line).to_vec();
    world.write("hh.jsonl", &lines.join("\n"));
    let text = "model = \"tiny.bin\"\nprompts = \"hh.jsonl\"\nreward = \"length\"\nmethods = [\"sample\"]\n\
                max_new_tokens = 8\nskip = 1\nnum_prompts = 2";
    let config = world.write("run.toml", text).display().to_string();
    let ran = world.run(&["frontier", &config, "--out", "out", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("1 duplicate prompt dropped"),
        "{}",
        ran.stderr
    );
    let html = std::fs::read_to_string(world.path("out/report.html")).unwrap();
    let shown: Vec<bool> = ["one", "two", "three", "four"]
        .map(|prompt| html.contains(&format!("<summary>{prompt}</summary>")))
        .to_vec();
    assert_eq!(
        shown,
        [false, true, true, false],
        "the second and third of four distinct prompts"
    );
    let far = text.replace("skip = 1", "skip = 4");
    let far = world.write("far.toml", &far).display().to_string();
    world.fails(
        &["frontier", &far, "--out", "far"],
        &["skip is 4", "holds 4 prompts"],
    );
}
