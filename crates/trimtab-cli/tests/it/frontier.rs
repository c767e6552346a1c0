//! `frontier`: same bytes whatever happens on the way.

use std::path::Path;
use std::process::Stdio;

use crate::harness::World;

const RESULTS: [&str; 4] = ["frontier.json", "frontier.csv", "report.html", "config.toml"];

fn config(world: &World, num_prompts: usize, methods: &str) -> String {
    let prompts: Vec<String> = (0..num_prompts).map(|i| format!("prompt number {i}")).collect();
    world.write("prompts.txt", &prompts.join("\n"));
    let text = format!(
        "model = \"{}\"\nprompts = \"prompts.txt\"\nreward = \"keywords:e|t|x + length*-0.1\"\nmethods = {methods}\n\
         max_new_tokens = 40\nseed = 4\n",
        world.model()
    );
    world.write("run.toml", &text).display().to_string()
}

fn results(folder: &Path) -> Vec<Vec<u8>> {
    RESULTS
        .iter()
        .map(|name| std::fs::read(folder.join(name)).unwrap())
        .collect()
}

const METHODS: &str =
    r#"["sample", "bon:4", "won:4", "majority:n=3,answer=text", "greedy", "beam:3", "bon:n=2,t=0.7"]"#;

#[test]
fn every_method_has_a_point_with_the_stable_keys() {
    let world = World::new();
    let config = config(&world, 5, METHODS);
    let report = world.json(&["frontier", &config, "--out", "out", "--json"]);
    let points = report["points"].as_array().unwrap();
    let of = |key: &str| points.iter().map(|point| point[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("num_candidates"), [1, 4, 4, 3, 1, 3, 2]);
    assert_eq!(
        of("kl_kind"),
        ["exact", "bound", "bound", "bound", "exact", "exact", "estimate"]
    );
    for point in points {
        // `null` where all prompts have one value.
        let is_interval = |key: &str| {
            let ci = &point[key];
            ci.is_null() || ci.as_array().is_some_and(|ci| ci.len() == 2)
        };
        assert!(point["reward_mean"].is_number() && is_interval("reward_ci"));
        let win_rate = point["win_rate"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&win_rate) && is_interval("win_rate_ci"));
        assert!(point["kl_nats"].as_f64().unwrap() >= 0.0 && point["tokens_generated"].as_u64().unwrap() > 0);
    }
    assert!(
        points[0]["reward_ci"].is_array() && points[0]["win_rate_ci"].is_array(),
        "prompts differ in plain samples"
    );
    let reward = |idx: usize| points[idx]["reward_mean"].as_f64().unwrap();
    assert!(
        reward(1) >= reward(0) && reward(0) >= reward(2),
        "best-of-4 >= sample >= worst-of-4"
    );
    assert_eq!(report["seed"], 4);
    assert_eq!(report["model_sha256"].as_str().unwrap().len(), 64);
    let on_disk: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("out/frontier.json")).unwrap()).unwrap();
    assert_eq!(on_disk, report);
    let html = std::fs::read_to_string(world.path("out/report.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("prompt number 0"));
}

#[test]
fn threads_and_a_second_run_do_not_change_a_byte() {
    let world = World::new();
    let config = config(&world, 6, METHODS);
    world.ok(&["frontier", &config, "--out", "a", "--threads", "2"]);
    world.ok(&["frontier", &config, "--out", "b", "--threads", "1"]);
    let first = results(&world.path("a"));
    assert_eq!(first, results(&world.path("b")));
    world.ok(&["frontier", &config, "--out", "a"]);
    assert_eq!(
        first,
        results(&world.path("a")),
        "a finished run is repeated from its journal"
    );
    let copied = world.path("a/config.toml").display().to_string();
    world.ok(&["frontier", &copied, "--out", "c"]);
    assert_eq!(
        first,
        results(&world.path("c")),
        "the configuration beside a report repeats it"
    );
}

#[test]
fn a_journal_cut_anywhere_is_continued_to_the_same_bytes() {
    let world = World::new();
    let config = config(&world, 4, r#"["sample", "bon:4"]"#);
    world.ok(&["frontier", &config, "--out", "whole"]);
    let journal = std::fs::read(world.path("whole/journal")).unwrap();
    let expected = results(&world.path("whole"));
    let lines: Vec<usize> = (0..journal.len()).filter(|&at| journal[at] == b'\n').collect();
    // After the header, inside an entry, between entries, and one byte short of the end.
    for (idx, cut) in [lines[0] + 1, lines[2] + 40, lines[3] + 1, journal.len() - 1]
        .into_iter()
        .enumerate()
    {
        let out = format!("cut{idx}");
        std::fs::create_dir(world.path(&out)).unwrap();
        std::fs::write(world.path(&out).join("journal"), &journal[..cut]).unwrap();
        world.ok(&["frontier", &config, "--out", &out]);
        assert_eq!(expected, results(&world.path(&out)), "cut at byte {cut}");
    }
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let world = World::new();
    let config = config(&world, 40, r#"["bon:8"]"#);
    world.ok(&["frontier", &config, "--out", "whole"]);
    let mut child = world
        .command(&["frontier", &config, "--out", "killed"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = world.path("killed/journal");
    let num_lines = || std::fs::read_to_string(&journal).map_or(0, |text| text.matches('\n').count());
    while num_lines() < 4 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = num_lines();
    assert!(kept >= 4, "the header and some prompts are kept");
    assert!(
        !world.path("killed/report.html").exists(),
        "it was killed before its end"
    );
    let ran = world.run(&["frontier", &config, "--out", "killed"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let done_before = format!("answering: {}/80", kept - 1);
    assert!(
        ran.stderr.contains(&done_before),
        "{:?} lacks {done_before:?}",
        ran.stderr
    );
    assert_eq!(results(&world.path("whole")), results(&world.path("killed")));
}

#[test]
fn another_run_is_not_mixed_in() {
    let world = World::new();
    let config_path = config(&world, 3, r#"["sample"]"#);
    world.ok(&["frontier", &config_path, "--out", "out"]);
    let before = results(&world.path("out"));
    let changed = std::fs::read_to_string(&config_path)
        .unwrap()
        .replace("seed = 4", "seed = 5");
    let changed = world.write("changed.toml", &changed).display().to_string();
    world.fails(
        &["frontier", &changed, "--out", "out"],
        &["another run", "seed: 4 there, 5 here", "--out"],
    );
    assert_eq!(
        before,
        results(&world.path("out")),
        "what is there stays as it is"
    );
}

#[test]
fn a_nan_reward_stops_the_run_and_keeps_the_journal() {
    let world = World::new();
    let config_path = config(&world, 30, r#"["bon:2"]"#);
    // Refuses the prompt that the fourth line of the file asks about, by an answer that is no number.
    let script = world.write(
        "score.sh",
        "while IFS= read -r line; do case \"$line\" in *'prompt number 29'*) echo '{\"reward\": null}';; *) echo '{\"reward\": 1.5}';; esac; done\n",
    );
    let text = std::fs::read_to_string(&config_path).unwrap().replace(
        "keywords:e|t|x + length*-0.1",
        &format!("cmd:/bin/sh {}", script.display()),
    );
    let bad = world.write("bad.toml", &text).display().to_string();
    world.fails(
        &["frontier", &bad, "--out", "out"],
        &["expected a number as reward", "is kept in"],
    );
    let kept = std::fs::read_to_string(world.path("out/journal"))
        .unwrap()
        .lines()
        .count();
    assert!(kept > 1, "finished prompts are kept");
    assert!(!world.path("out/report.html").exists());
}

/// A configuration with these prompts and further lines; `name` is that of its file, beside the prompts.
fn config_of(world: &World, name: &str, prompts: &str, lines: &str) -> String {
    let text = format!(
        "model = \"{}\"\nprompts = \"{prompts}\"\nmax_new_tokens = 20\n{lines}\n",
        world.model()
    );
    world.write(name, &text).display().to_string()
}

#[test]
fn changed_records_are_another_run() {
    let world = World::new();
    let records = |answer: u32| {
        let line = |n: u32, answer: u32| format!("{{\"prompt\": \"sum {n}\", \"answer\": {answer}}}\n");
        world.write("p.jsonl", &(line(1, 1) + &line(2, answer)));
    };
    records(2);
    let config = config_of(
        &world,
        "run.toml",
        "p.jsonl",
        "reward = \"numeric\"\nmethods = [\"bon:2\"]",
    );
    world.ok(&["frontier", &config, "--out", "out"]);
    let before = results(&world.path("out"));
    records(3);
    world.fails(
        &["frontier", &config, "--out", "out"],
        &["another run", "prompts", "prompt 2"],
    );
    assert_eq!(before, results(&world.path("out")));
}

#[test]
fn moved_prompts_are_the_same_run() {
    let world = World::new();
    let config = config(&world, 3, r#"["sample"]"#);
    world.ok(&["frontier", &config, "--out", "out"]);
    let before = results(&world.path("out"));
    std::fs::create_dir(world.path("elsewhere")).unwrap();
    std::fs::rename(world.path("prompts.txt"), world.path("elsewhere/prompts.txt")).unwrap();
    let moved = std::fs::read_to_string(&config)
        .unwrap()
        .replace("prompts.txt", "elsewhere/prompts.txt");
    let moved = world.write("moved.toml", &moved).display().to_string();
    world.ok(&["frontier", &moved, "--out", "out"]);
    assert_eq!(
        before,
        results(&world.path("out")),
        "nothing is drawn or written anew"
    );
    world.fails(&["frontier", &config, "--out", "out"], &["prompts.txt"]);
}

#[test]
fn the_written_configuration_works_from_anywhere() {
    let world = World::new();
    std::fs::create_dir(world.path("sub")).unwrap();
    world.write("sub/p.txt", "one\ntwo");
    let text = "model = \"tiny.bin\"\nprompts = \"p.txt\"\nreward = \"length\"\nmethods = [\"sample\"]\nmax_new_tokens = 9";
    world.write("sub/run.toml", text);
    world.ok(&["frontier", "sub/run.toml", "--out", "a"]);
    let copied = world.path("a/config.toml").display().to_string();
    let other_folder = tempfile::tempdir().unwrap();
    let out = world.path("b").display().to_string();
    let ran = world
        .command(&["frontier", &copied, "--out", &out])
        .current_dir(other_folder.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(results(&world.path("a")), results(&world.path("b")));
}

#[test]
fn a_folder_in_use_is_refused() {
    let world = World::new();
    let config = config(&world, 3, r#"["sample"]"#);
    std::fs::create_dir(world.path("out")).unwrap();
    let journal = std::fs::File::create(world.path("out/journal")).unwrap();
    journal.lock().unwrap();
    world.fails(
        &["frontier", &config, "--out", "out"],
        &["another run is using out"],
    );
    assert!(!world.path("out/config.toml").exists());
    drop(journal);
    world.ok(&["frontier", &config, "--out", "out"]);
}

#[test]
fn doubled_lines_count_once_and_contradicting_ones_are_refused() {
    let world = World::new();
    let config = config(&world, 3, r#"["sample"]"#);
    world.ok(&["frontier", &config, "--out", "out"]);
    let expected = results(&world.path("out"));
    let journal = std::fs::read_to_string(world.path("out/journal")).unwrap();
    let last = journal.lines().last().unwrap();
    let num_lines = journal.lines().count();
    world.write("out/journal", &format!("{journal}{last}\n"));
    world.ok(&["frontier", &config, "--out", "out"]);
    assert_eq!(expected, results(&world.path("out")));
    let json = last[9..].replace("\"tokens_generated\":", "\"tokens_generated\":9");
    let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    world.write("out/journal", &format!("{journal}{line}"));
    let at = format!("line {} differs from line {num_lines}", num_lines + 1);
    world.fails(&["frontier", &config, "--out", "out"], &[&at]);
}

#[test]
fn a_configuration_of_the_user_is_never_overwritten() {
    let world = World::new();
    let run = config(&world, 3, r#"["sample"]"#);
    let mine = format!("# mine\n{}", std::fs::read_to_string(&run).unwrap());
    let read = || std::fs::read_to_string(world.path("config.toml")).unwrap();
    for foreign in [mine.replace("seed = 4", "seed = 5"), "something else".to_owned()] {
        world.write("config.toml", &foreign);
        world.fails(
            &["frontier", &run, "--out", "."],
            &["config.toml", "not of this run", "--out"],
        );
        assert_eq!(read(), foreign);
        assert!(!world.path("journal").exists());
    }
    world.write("config.toml", &mine);
    world.ok(&["frontier", "config.toml", "--out", "."]);
    world.ok(&["frontier", "config.toml", "--out", "."]);
    assert_eq!(read(), mine, "a configuration of this very run stays as it is");
}

#[test]
fn what_cannot_run_is_refused_before_anything_is_written() {
    let world = World::new();
    let refused = |lines: &str, prompts: &str, expect: &[&str]| {
        let config = config_of(&world, "run.toml", prompts, lines);
        world.fails(&["frontier", &config, "--out", "out", "--kv-memory", "1"], expect);
        assert!(!world.path("out").exists(), "{lines}");
    };
    let long = |len: usize| "x".repeat(len);
    world.write("p.txt", &format!("short\n{}\nmiddle\n{}", long(120), long(130)));
    world.write(
        "p.jsonl",
        "{\"prompt\": \"a\", \"answer\": 1}\n\n{\"prompt\": \"b\"}\n",
    );
    let length = "reward = \"length\"\nmethods = [\"sample\"]";
    refused(
        length,
        "p.txt",
        &[
            "context of 128",
            "max_new_tokens = 20",
            "prompt 2 has 12",
            "prompt 4 has 13",
        ],
    );
    refused(
        "reward = \"length\"\nmethods = [\"sample\", \"bon:100000\"]\nnum_prompts = 1",
        "p.txt",
        &[
            "prompt 1 (\"short\") with bon:100000",
            "100000 branches",
            "memory budget",
        ],
    );
    refused(
        "reward = \"length + answer*0.5\"\nmethods = [\"sample\"]",
        "p.jsonl",
        &["p.jsonl line 3", "no field \"answer\""],
    );
    world.write(
        "p.jsonl",
        "{\"prompt\": \"a\", \"answer\": \"x\"}\n{\"prompt\": \"a\"}\n",
    );
    refused(length, "p.jsonl", &["lines 1 and 2", "different other fields"]);
    refused(
        "reward = \"numeric\"\nmethods = [\"sample\"]\nnum_prompts = 1",
        "p.jsonl",
        &["different other fields"],
    );
    world.write("p.jsonl", "{\"prompt\": \"a\", \"answer\": \"x\"}\n");
    refused(
        "reward = \"numeric\"\nmethods = [\"sample\"]",
        "p.jsonl",
        &["line 1", "answer is \"x\"", "ends in one"],
    );
}

#[test]
fn duplicate_prompts_are_dropped_with_a_note() {
    let world = World::new();
    world.write("p.txt", "one\ntwo\none\none\n");
    let config = config_of(
        &world,
        "run.toml",
        "p.txt",
        "reward = \"length\"\nmethods = [\"sample\"]",
    );
    let ran = world.run(&["frontier", &config, "--out", "out", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("2 duplicate prompts dropped"),
        "{}",
        ran.stderr
    );
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["num_prompts"], 2);
}

#[test]
fn a_run_that_failed_at_once_does_not_poison_its_folder() {
    let world = World::new();
    world.write("p.txt", "one\ntwo\n");
    let lines = |reward: &str| format!("reward = \"{reward}\"\nmethods = [\"sample\"]");
    let bad = config_of(&world, "run.toml", "p.txt", &lines("cmd:no-such-program-3141"));
    world.fails(&["frontier", &bad, "--out", "out"], &["cannot be started"]);
    let good = config_of(&world, "run.toml", "p.txt", &lines("length"));
    world.ok(&["frontier", &good, "--out", "out"]);
    let kept = std::fs::read_to_string(world.path("out/config.toml")).unwrap();
    assert!(kept.contains("reward = \"length\""), "{kept}");
}

#[test]
fn byte_order_marks_and_line_ends_of_windows_change_nothing() {
    let world = World::new();
    let config = config(&world, 3, r#"["sample"]"#);
    world.ok(&["frontier", &config, "--out", "a"]);
    for path in [Path::new(&config), world.path("prompts.txt").as_path()] {
        let text = std::fs::read_to_string(path).unwrap().replace('\n', "\r\n");
        std::fs::write(path, format!("\u{feff}{text}")).unwrap();
    }
    world.ok(&["frontier", &config, "--out", "b"]);
    assert_eq!(results(&world.path("a")), results(&world.path("b")));
}

#[test]
fn limits_of_external_rewards_can_be_set_and_are_no_other_run() {
    let world = World::new();
    world.write("p.txt", "one\ntwo\n");
    let scored = |script: &str, limits: &str| {
        let script = world.write("score.sh", script);
        let reward = format!("cmd:/bin/sh {}", script.display());
        let lines = format!("reward = \"{reward}\"\nmethods = [\"bon:3\"]\n{limits}");
        config_of(&world, "run.toml", "p.txt", &lines)
    };
    // Answers one item whatever it is asked, so that only batches of one work.
    let one_answer = "echo '{\"reward\": 1}'";
    let one = scored(one_answer, "reward_batch = 1\nreward_timeout_s = 60");
    world.ok(&["frontier", &one, "--out", "out"]);
    let before = results(&world.path("out"));
    let slower = scored(one_answer, "reward_batch = 1\nreward_timeout_s = 90");
    world.ok(&["frontier", &slower, "--out", "out"]);
    assert_eq!(before, results(&world.path("out")));
    let failing = scored("exit 3", "reward_retries = 0");
    world.fails(
        &["frontier", &failing, "--out", "failed"],
        &["gave up after 1 attempt:"],
    );
}
