//! Rollouts: what is drawn is what `generate` draws, kills and splits change nothing, bad input leaves no folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use trimtab_data::{Rollout, RolloutReader};

use crate::harness::World;

const PROMPTS: &str = r#"{"prompt": "abc", "answer": "1"}
{"prompt": "hello"}
{"prompt": "abc"}
{"prompt": "a dog"}
{"prompt": "why"}
{"prompt": "once"}
"#;

/// A world with prompts, and what every run on it has in common.
fn world() -> (World, Vec<String>) {
    let world = World::new();
    world.write("prompts.jsonl", PROMPTS);
    let model = world.model();
    let common = ["rollout", "-m", &model, "-n", "8", "--rows-per-shard", "4"];
    (world, common.map(str::to_owned).to_vec())
}

fn with<'a>(common: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let common = common.iter().map(String::as_str);
    common.chain(more.iter().copied()).collect()
}

fn read(folder: &Path) -> Vec<Rollout> {
    RolloutReader::open(folder).unwrap().map(Result::unwrap).collect()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let file = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, std::fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

#[test]
fn responses_are_those_of_generate_with_their_rewards() {
    let (world, common) = world();
    let args = [
        "-p",
        "prompts.jsonl",
        "--per-prompt",
        "3",
        "-r",
        "length",
        "-r",
        "keywords:a*2",
    ];
    let args = [&args[..], &["--out", "out", "--json"]].concat();
    let summary = world.json(&with(&common, &args));
    assert_eq!(
        (summary["rows"].as_u64(), summary["prompts"].as_u64()),
        (Some(15), Some(5))
    );
    assert_eq!(summary["dropped"]["duplicates"], 1);
    let rows = read(&world.path("out"));
    let places: Vec<(u64, u64)> = rows.iter().map(|row| (row.prompt_idx, row.sample_idx)).collect();
    let expect: Vec<(u64, u64)> = (0..5).flat_map(|p| (0..3).map(move |s| (p, s))).collect();
    assert_eq!(places, expect);
    assert_eq!(rows[0].record["answer"], "1");
    let model = world.model();
    let generate = [
        "generate", "a dog", "-m", &model, "-n", "8", "-d", "bon:3", "-r", "length", "--json",
    ];
    let drawn = world.json(&generate);
    for (candidate, row) in drawn["candidates"].as_array().unwrap().iter().zip(&rows[6..9]) {
        assert_eq!(row.prompt, "a dog");
        assert_eq!(
            candidate["token_ids"],
            Value::from(row.response_token_ids.clone())
        );
        assert_eq!(candidate["text"], row.response.as_str());
        assert_eq!(candidate["finish"], row.finish.as_str());
        assert_eq!(candidate["reward"].as_f64(), Some(row.rewards["length"]));
        assert_eq!(candidate["log_prob"].as_f64(), row.log_prob);
        assert_eq!(candidate["reference_log_prob"].as_f64(), row.reference_log_prob);
    }
    let mean = rows.iter().map(|row| row.rewards["keywords:a*2"]).sum::<f64>() / 15.0;
    let shown = summary["rewards"][1]["mean"].as_f64().unwrap();
    assert!((shown - mean).abs() < 1e-12, "{shown} is not {mean}");
    let text = world.ok(&with(&common, &args[..args.len() - 1]));
    assert!(
        text.contains("15 responses to 5 prompts") && text.contains("keywords:a*2"),
        "{text}"
    );
}

#[test]
fn a_run_that_was_killed_ends_in_the_same_bytes_on_any_number_of_threads() {
    let (world, common) = world();
    let args = ["-p", "prompts.jsonl", "--per-prompt", "2", "-r", "length"];
    world.ok(&with(
        &common,
        &[&args[..], &["--out", "plain", "--threads", "1"]].concat(),
    ));
    let plain = files(&world.path("plain"));
    assert_eq!(plain.len(), 4, "three shards and the manifest");
    // As a kill after the first shard leaves it, with a line that was being written.
    let mut manifest: Value = serde_json::from_slice(&plain["manifest.json"]).unwrap();
    manifest["complete"] = false.into();
    manifest["shards"].as_array_mut().unwrap().truncate(1);
    std::fs::create_dir(world.path("killed")).unwrap();
    std::fs::write(
        world.path("killed/part-00000.parquet"),
        &plain["part-00000.parquet"],
    )
    .unwrap();
    world.write("killed/manifest.json", &manifest.to_string());
    world.write("killed/journal", "0123abcd [{\"prompt_idx\": 2");
    let resume = with(
        &common,
        &[&args[..], &["--out", "killed", "--threads", "2"]].concat(),
    )
    .join(" ");
    let resumed = world.run(&resume.split(' ').collect::<Vec<_>>());
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(resumed.stderr.contains("sampling: 2/5"), "{}", resumed.stderr);
    assert_eq!(files(&world.path("killed")), plain);
    // And once more, when there is nothing to do.
    world.ok(&resume.split(' ').collect::<Vec<_>>());
    assert_eq!(files(&world.path("killed")), plain);
}

#[test]
fn another_run_is_refused_with_both_values() {
    let (world, common) = world();
    let run = |more: &[&str]| {
        let args = ["-p", "prompts.jsonl", "--per-prompt", "1", "--out", "out"];
        with(&common, &[&args, more].concat())
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let refused = |more: &[&str], expect: &[&str]| {
        let args = run(more);
        world.fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), expect);
    };
    let args = run(&[]);
    world.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let before = files(&world.path("out"));
    refused(
        &["--seed", "7"],
        &["out holds another run", "seed: 0 there, 7 here"],
    );
    refused(&["--stop", "x"], &["stop: [] there, [\"x\"] here"]);
    refused(&["-r", "length"], &["rewards: none there, length"]);
    refused(&["--num-prompts", "2"], &["num_prompts: 5 there, 2 here"]);
    assert_eq!(files(&world.path("out")), before);
}

#[test]
fn splits_share_no_prompt_and_draw_what_the_whole_draws() {
    let (world, common) = world();
    let run = |out: &str, more: &[&str]| {
        let args = ["-p", "prompts.jsonl", "--per-prompt", "2", "--out", out];
        world.ok(&with(&common, &[&args, more].concat()));
        let rows = read(&world.path(out)).into_iter();
        rows.map(|row| (row.prompt, row.response)).collect::<Vec<_>>()
    };
    let whole = run("whole", &[]);
    let train = run("train", &["--num-prompts", "2"]);
    let held_out = run("held-out", &["--skip", "2", "--num-prompts", "9"]);
    assert_eq!([train, held_out].concat(), whole);
}

#[test]
fn rewards_are_added_to_rollouts_that_are_there() {
    let (world, common) = world();
    let args = [
        "-p",
        "prompts.jsonl",
        "--per-prompt",
        "2",
        "-r",
        "length",
        "--out",
        "one",
    ];
    world.ok(&with(&common, &args));
    let args = [
        "--rows-per-shard",
        "4",
        "--responses",
        "one",
        "-r",
        "keywords:a",
        "--out",
        "two",
    ];
    let model = world.model();
    world.ok(&[&["rollout", "-m", &model], &args[..]].concat());
    let (one, two) = (read(&world.path("one")), read(&world.path("two")));
    assert_eq!(one.len(), two.len());
    for (mut before, after) in one.into_iter().zip(two) {
        assert!(before.log_prob.is_some());
        before
            .rewards
            .insert("keywords:a".to_owned(), after.rewards["keywords:a"]);
        assert_eq!(before, after);
    }
    let again = [
        "rollout",
        "-m",
        &model,
        "--responses",
        "two",
        "-r",
        "length",
        "--out",
        "three",
    ];
    world.fails(&again, &["--reward length", "has that column already"]);
    assert!(!world.path("three").exists());
}

#[test]
fn responses_of_a_data_set_are_tokenised_and_end() {
    let (world, _) = world();
    let model = world.model();
    world.write(
        "data.jsonl",
        "{\"prompt\": \"abc\", \"completion\": \"def\", \"reward\": 0.5}\n\
         {\"prompt\": \"abc\", \"completion\": \"x\", \"reward\": 1}\n\
         {\"prompt\": \"q\", \"completion\": \"yz\", \"reward\": -1}\n",
    );
    let run = |out: &str, more: &[&str]| {
        let args = [
            "rollout",
            "-m",
            &model,
            "--responses",
            "data.jsonl",
            "-r",
            "length",
            "--out",
            out,
        ];
        world.ok(&[&args, more].concat());
        read(&world.path(out))
    };
    let rows = run("out", &[]);
    let places: Vec<(u64, u64)> = rows.iter().map(|row| (row.prompt_idx, row.sample_idx)).collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0)]);
    assert_eq!(rows[2].rewards["reward"], -1.0);
    // Three letters and the token that ends a text.
    assert_eq!(
        (rows[0].response_token_ids.len(), rows[0].finish.as_str()),
        (4, "stop_token")
    );
    assert_eq!(rows[0].log_prob, None);
    let cut = run("cut", &["-n", "2"]);
    assert_eq!(
        (cut[0].response.as_str(), cut[0].finish.as_str()),
        ("de", "length")
    );
    assert_eq!(cut[0].response_token_ids, rows[0].response_token_ids[..2]);
    assert_eq!(cut[1], {
        let mut row = rows[1].clone();
        row.rewards.clone_from(&cut[1].rewards);
        row
    });
}

#[test]
fn first_turns_of_dialogues_are_prompts() {
    let (world, common) = world();
    let line = r#"{"chosen": "\n\nHuman: why\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "rejected": "\n\nHuman: why\n\nAssistant: b\n\nHuman: c\n\nAssistant: e"}"#;
    world.write("hh.jsonl", line);
    let args = ["-p", "hh.jsonl", "--per-prompt", "1", "--out", "out"];
    world.ok(&with(&common, &args));
    let rows = read(&world.path("out"));
    assert_eq!(
        (rows.len(), rows[0].prompt.as_str(), rows[0].messages.len()),
        (1, "why", 0)
    );
    let dialogue = ["-p", "hh.jsonl", "--dialogue", "--out", "dialogue"];
    let expect = ["hh.jsonl row 1", "dialogue of 3 turns", "chat template"];
    world.fails(&with(&common, &dialogue), &expect);
    assert!(!world.path("dialogue").exists());
}

#[test]
fn what_does_not_fit_the_context_is_refused_or_counted() {
    let (world, common) = world();
    let long = "a".repeat(200);
    world.write(
        "long.jsonl",
        &format!("{{\"prompt\": \"abc\"}}\n{{\"prompt\": \"{long}\"}}\n"),
    );
    let args = ["-p", "long.jsonl", "--per-prompt", "1", "--out", "out"];
    let expect = [
        "long.jsonl row 2",
        "tokens and 8 new ones",
        "context of 128",
        "--max-new-tokens",
        "--drop-long",
    ];
    world.fails(&with(&common, &args), &expect);
    assert!(!world.path("out").exists());
    let summary = world.json(&with(&common, &[&args[..], &["--drop-long", "--json"]].concat()));
    assert_eq!(
        (summary["rows"].as_u64(), summary["dropped"]["too_long"].as_u64()),
        (Some(1), Some(1))
    );
    world.write(
        "data.jsonl",
        &format!("{{\"prompt\": \"abc\", \"response\": \"{long}\"}}\n"),
    );
    let model = world.model();
    let args = [
        "rollout",
        "-m",
        &model,
        "--responses",
        "data.jsonl",
        "--out",
        "given",
    ];
    world.fails(
        &args,
        &[
            "data.jsonl: prompt 1, response 1",
            "response of 201",
            "context of 128",
            "--drop-long",
        ],
    );
    world.fails(
        &[&args[..], &["--drop-long"]].concat(),
        &["no rows to take", "1 do not fit"],
    );
    assert!(!world.path("given").exists());
}

#[test]
fn bad_input_is_refused_and_nothing_is_written() {
    let (world, common) = world();
    world.write("text.jsonl", "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n");
    world.write("empty.jsonl", "\n");
    let fails = |args: &[&str], expect: &[&str]| {
        world.fails(&with(&common, &[args, &["--out", "out"]].concat()), expect);
        assert!(!world.path("out").exists(), "{args:?}");
    };
    fails(&["-p", "absent.jsonl"], &["cannot read", "absent.jsonl"]);
    fails(
        &["-p", "text.jsonl"],
        &["text.jsonl row 2", "prompt, messages or chosen", "text"],
    );
    fails(&["-p", "empty.jsonl"], &["empty.jsonl holds no prompts"]);
    fails(
        &["-p", "prompts.jsonl", "--skip", "5"],
        &["no prompts after the first 5"],
    );
    fails(
        &["-p", "prompts.jsonl", "-r", "answer"],
        &["prompts.jsonl row 2", "\"answer\""],
    );
    fails(
        &["-p", "prompts.jsonl", "-r", "lenght"],
        &["did you mean `length`"],
    );
    fails(
        &["-p", "prompts.jsonl", "-r", "length", "-r", "length"],
        &["--reward length is given twice"],
    );
}

#[test]
fn settings_and_data_that_cannot_work_are_refused_and_nothing_is_written() {
    let (world, common) = world();
    world.write("text.jsonl", "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n");
    world.write(
        "some.jsonl",
        "{\"prompt\": \"a\", \"response\": \"b\", \"reward\": 1}\n{\"prompt\": \"a\", \"response\": \"c\"}\n",
    );
    let fails = |args: &[&str], expect: &[&str]| {
        world.fails(&with(&common, &[args, &["--out", "out"]].concat()), expect);
        assert!(!world.path("out").exists(), "{args:?}");
    };
    fails(
        &["-p", "prompts.jsonl", "-d", "bon:4"],
        &["expected `sample`", "--per-prompt"],
    );
    fails(
        &["-p", "prompts.jsonl", "--responses", "some.jsonl"],
        &["--responses", "cannot be used with"],
    );
    fails(
        &["--responses", "some.jsonl"],
        &[
            "some.jsonl: prompt 1, response 2",
            "expected the rewards [\"reward\"]",
            "[]",
        ],
    );
    fails(
        &["--responses", "text.jsonl"],
        &["text.jsonl row 1", "response, completion, chosen or messages"],
    );
    fails(
        &[
            "-p",
            "prompts.jsonl",
            "--per-prompt",
            "100000",
            "--kv-memory",
            "1",
        ],
        &["key/value blocks", "memory budget"],
    );
    fails(
        &["-p", "prompts.jsonl", "--system", "brief"],
        &["no chat template"],
    );
    let torn = world.path("torn.jsonl.gz");
    std::fs::write(&torn, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab]).unwrap();
    fails(
        &["-p", "torn.jsonl.gz"],
        &["torn.jsonl.gz", "cannot be read after line 0"],
    );
    let damaged = world.path("damaged.parquet");
    std::fs::write(&damaged, "PAR1 and no more").unwrap();
    fails(
        &["--responses", "damaged.parquet"],
        &["damaged.parquet", "not a whole Parquet file"],
    );
}
