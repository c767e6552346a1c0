//! `generate` and `bench`: stable keys, and answers that are functions of their arguments.

use std::io::Write;
use std::process::Stdio;

use trimtab_runtime::testing::CONTEXT_LEN;

use crate::harness::{Ran, World};

#[test]
fn json_has_the_stable_keys_and_consistent_numbers() {
    let world = World::new();
    let model = world.model();
    let report = world.json(&[
        "generate",
        "hello",
        "--model",
        &model,
        "--decode",
        "bon:6",
        "--reward",
        "keywords:e|a|q",
        "-n",
        "24",
        "--seed",
        "3",
        "--json",
    ]);
    let candidates = report["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 6);
    let chosen = report["chosen"].as_u64().unwrap() as usize;
    assert_eq!(report["text"], candidates[chosen]["text"]);
    let rewards: Vec<f64> = candidates.iter().map(|c| c["reward"].as_f64().unwrap()).collect();
    assert!(
        rewards.iter().all(|&reward| reward <= rewards[chosen]),
        "{rewards:?}, chose {chosen}"
    );
    let tokens: usize = candidates
        .iter()
        .map(|c| c["token_ids"].as_array().unwrap().len())
        .sum();
    assert_eq!(report["tokens_generated"], tokens);
    assert!(candidates.iter().all(|c| c["log_prob"].as_f64().unwrap() < 0.0));
    // log 6 - 5/6
    assert!((report["kl_nats"].as_f64().unwrap() - 0.958_426).abs() < 1e-6);
    assert_eq!(
        (&report["kl_kind"], &report["seed"]),
        (&"bound".into(), &3.into())
    );
    assert_eq!(report["model_sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn answers_depend_on_the_seed_and_not_on_threads_or_company() {
    let world = World::new();
    let model = world.model();
    let candidates = |decode: &str, seed: &str, threads: &str| {
        let report = world.json(&[
            "generate",
            "hello",
            "-m",
            &model,
            "-d",
            decode,
            "-r",
            "length",
            "-n",
            "24",
            "--seed",
            seed,
            "--threads",
            threads,
            "--json",
        ]);
        report["candidates"].as_array().unwrap().clone()
    };
    let six = candidates("bon:6", "1", "2");
    assert_eq!(six, candidates("bon:6", "1", "1"));
    assert_eq!(six[..2], candidates("bon:2", "1", "2")[..]);
    assert_ne!(six, candidates("bon:6", "2", "2"));
}

#[test]
fn a_prompt_may_come_from_standard_input() {
    let world = World::new();
    let model = world.model();
    let by_argument = world.ok(&["generate", "hello there", "-m", &model, "-d", "greedy", "-n", "8"]);
    let mut child = world
        .command(&["generate", "-", "-m", &model, "-d", "greedy", "-n", "8"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello there\n").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stdout), (Some(0), by_argument));
}

#[test]
fn without_a_limit_an_answer_may_fill_the_context() {
    let world = World::new();
    let report = world.json(&[
        "generate",
        "hello",
        "-m",
        &world.model(),
        "-d",
        "greedy",
        "--json",
    ]);
    let drawn = report["tokens_generated"].as_u64().unwrap();
    let room = CONTEXT_LEN as u64 + 1 - report["prompt_tokens"].as_u64().unwrap();
    assert!(drawn > 0 && drawn <= room, "{drawn} tokens, room for {room}");
}

#[test]
fn the_remark_tells_what_the_answer_was_chosen_from() {
    let world = World::new();
    let model = world.model();
    let check = |decode: &str, expect: &[&str]| {
        let ran = world.run(&[
            "generate", "hello", "-m", &model, "-d", decode, "-r", "length", "-n", "6",
        ]);
        for part in expect {
            assert!(ran.stderr.contains(part), "{:?} lacks {part:?}", ran.stderr);
        }
    };
    check(
        "bon:3",
        &[
            "bon:3: ",
            "of 3 (",
            " tokens generated in all)",
            "nats under the model",
            "(bound)",
        ],
    );
    check(
        "greedy",
        &[
            "greedy: 6 tokens; log-probability -",
            "(exact)",
            "cut at the limit of 6 tokens",
        ],
    );
}

#[test]
fn a_configuration_may_come_from_standard_input() {
    let world = World::new();
    let run = |config: &str| {
        let mut child = world
            .command(&["frontier", "-", "--out", "out", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    };
    let config = "model = \"./tiny.bin\"\nreward = \"length\"\nmethods = [\"sample\"]\nmax_new_tokens = 2\n";
    let both = run(&format!("{config}prompts = \"-\""));
    assert_eq!(both.code, Some(2));
    assert!(
        both.stderr.contains("cannot both come from standard input"),
        "{}",
        both.stderr
    );
    world.write("two.txt", "one\ntwo\n");
    let ran = run(&format!("{config}prompts = \"two.txt\""));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("\"method\": \"sample\""), "{}", ran.stdout);
}

#[test]
fn external_rewards_choose() {
    let world = World::new();
    let model = world.model();
    // A scorer that gives each response its place in the batch: the last candidate must win.
    let script = world.write(
        "score.sh",
        "i=0\nwhile IFS= read -r line; do echo \"{\\\"reward\\\": $i}\"; i=$((i+1)); done\n",
    );
    let reward = format!("cmd:/bin/sh {}", script.display());
    let report = world.json(&[
        "generate", "hello", "-m", &model, "-d", "bon:5", "-r", &reward, "-n", "6", "--json",
    ]);
    assert_eq!(report["chosen"], 4);
    let worst = world.json(&[
        "generate", "hello", "-m", &model, "-d", "won:5", "-r", &reward, "-n", "6", "--json",
    ]);
    assert_eq!(worst["chosen"], 0);
}

#[test]
fn bench_decode_has_the_stable_keys() {
    let world = World::new();
    let report = world.json(&[
        "bench",
        "decode",
        "--model",
        &world.model(),
        "--batch",
        "1,3",
        "--prompt",
        "20",
        "--new",
        "5",
        "--prefill",
        "40",
        "--block",
        "2",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--json",
    ]);
    assert!(report["prefill_tokens_per_s"].as_f64().unwrap() > 0.0);
    let decode = report["decode"].as_array().unwrap();
    assert_eq!((&decode[0]["batch"], &decode[1]["batch"]), (&1.into(), &3.into()));
    for batch in decode {
        assert!(batch["tokens_per_s"].as_f64().unwrap() > 0.0);
        let fraction = batch["fraction_of_limit"].as_f64().unwrap();
        assert!(fraction > 0.0 && fraction < 1.5, "{fraction}");
        let shares: f64 = batch["time_shares"]
            .as_object()
            .unwrap()
            .values()
            .map(|s| s.as_f64().unwrap())
            .sum();
        assert!((shares - 1.0).abs() < 0.02, "shares sum to {shares}");
    }
    let steered = &report["steered"][0];
    assert_eq!(
        (&steered["batch"], &steered["block_tokens"]),
        (&3.into(), &2.into())
    );
    assert!(steered["cd_block_first_block_ms"].as_f64().unwrap() > 0.0);
    let reencoding = &report["reencoding"];
    assert_eq!(
        (&reencoding["candidates"], &reencoding["prefix_tokens"]),
        (&10.into(), &22.into())
    );
    assert!(reencoding["tokens_per_s"].as_f64().unwrap() > 0.0);
    assert!(report["scorer_training_prefixes_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&report["precision"], &report["threads"]),
        (&"int8".into(), &1.into())
    );
    assert!(report["peak_rss_bytes"].is_u64() || cfg!(not(target_os = "linux")));
}

#[test]
fn benches_fit_a_small_context_and_say_so() {
    let world = World::new();
    let model = world.model();
    let ran = world.run(&[
        "bench",
        "best-of-n",
        "-m",
        &model,
        "--candidates",
        "2",
        "--rounds",
        "1",
        "--json",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&report["prompt_tokens"], &report["new_tokens"]),
        (&97.into(), &32.into())
    );
    let expect =
        format!("context is {CONTEXT_LEN}: a prompt of 97 and 32 new tokens instead of 2048 and 128");
    assert!(ran.stderr.contains(&expect), "{}", ran.stderr);
    let report = world.json(&[
        "bench", "decode", "-m", &model, "--batch", "2", "--rounds", "1", "--json",
    ]);
    assert_eq!(report["prefill_tokens"], CONTEXT_LEN);
}

#[test]
fn bench_precision_finds_f32_equal_to_itself_and_int8_near_it() {
    let world = World::new();
    let report = world.json(&[
        "bench",
        "precision",
        "--model",
        &world.model(),
        "--tokens",
        "60",
        "--precisions",
        "int8,f32",
        "--json",
    ]);
    let [int8, f32] = report["precisions"].as_array().unwrap().as_slice() else {
        panic!("two precisions")
    };
    assert_eq!(f32["mean_kl_nats"], 0.0);
    let kl = int8["mean_kl_nats"].as_f64().unwrap();
    assert!(kl > 0.0 && kl < 0.01, "{kl}");
    assert_eq!(int8["residual_error_by_layer"].as_array().unwrap().len(), 2);
}

#[test]
fn completions_name_the_commands() {
    let script = World::new().ok(&["completions", "bash"]);
    assert!(script.contains("quickstart") && script.contains("frontier"));
}
