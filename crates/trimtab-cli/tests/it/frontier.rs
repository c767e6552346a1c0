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
        assert!(
            point["reward_mean"].is_number() && point["reward_ci"].as_array().is_some_and(|ci| ci.len() == 2)
        );
        let win_rate = point["win_rate"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&win_rate) && point["win_rate_ci"].is_array());
        assert!(point["kl_nats"].as_f64().unwrap() >= 0.0 && point["tokens_generated"].as_u64().unwrap() > 0);
    }
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
    world.fails(&["frontier", &changed, "--out", "out"], &["another run", "--out"]);
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
