//! `calibrate`, `export rewards`, `train align` and `eval winrate`, end to end on a model of random weights.

use serde_json::Value;

use crate::harness::World;

const PROMPTS: &str =
    "hello\nthe quick brown fox\nzebra\none two three\ngood morning\nabc\nwhat is it\nwhy not\n";

/// An argument list as one would type it; `MODEL` is the tiny model.
fn words(world: &World, line: &str) -> Vec<String> {
    let word = |word: &str| word.replace("MODEL", &world.model());
    line.split_whitespace().map(word).collect()
}

fn ok(world: &World, line: &str) -> String {
    world.ok(&words(world, line).iter().map(String::as_str).collect::<Vec<_>>())
}

fn json(world: &World, line: &str) -> Value {
    serde_json::from_str(&ok(world, line)).unwrap()
}

fn fails(world: &World, line: &str, expect: &[&str]) {
    let words = words(world, line);
    world.fails(&words.iter().map(String::as_str).collect::<Vec<_>>(), expect);
}

/// A world with prompts and a calibration of eight samples each, by keywords: a reward with many ties.
fn calibrated(reward: &str) -> (World, Value) {
    let world = World::new();
    world.write("prompts.txt", PROMPTS);
    let summary = calibrate(&world, reward, "--json");
    let summary = serde_json::from_str(&summary).unwrap();
    (world, summary)
}

fn calibrate(world: &World, reward: &str, more: &str) -> String {
    ok(
        world,
        &format!(
            "calibrate --model MODEL --reward {reward} --prompts prompts.txt --per-prompt 8 -n 10 --out cal {more}"
        ),
    )
}

#[test]
fn calibration_says_its_error_and_is_drawn_once() {
    let (world, summary) = calibrated("length");
    assert_eq!(
        (&summary["prompts"], &summary["per_prompt"], &summary["samples"]),
        (&8.into(), &8.into(), &64.into())
    );
    // sqrt(1 / (6 K)) without ties, less with them.
    let without_ties = summary["estimator_rmse_without_ties"].as_f64().unwrap();
    assert!((without_ties - (1.0 / 48.0_f64).sqrt()).abs() < 1e-12);
    let rmse = summary["estimator_rmse"].as_f64().unwrap();
    assert!(rmse > 0.0 && rmse < 0.18, "{rmse}");
    assert!(world.path("cal/calibration.json").is_file());
    let before = std::fs::read(world.path("cal/calibration.json")).unwrap();
    let again = calibrate(&world, "length", "--json");
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), summary);
    assert_eq!(std::fs::read(world.path("cal/calibration.json")).unwrap(), before);
    fails(
        &world,
        "calibrate --model MODEL --reward length --prompts prompts.txt --per-prompt 9 -n 10 --out cal",
        &["another run", "per_prompt: 8 there, 9 here"],
    );
}

#[test]
fn degenerate_prompts_are_counted_and_named() {
    // No response of ten tokens holds this word, so that all have the reward 0.
    let (world, summary) = calibrated("keywords:supercalifragilistic");
    assert_eq!(summary["degenerate_prompts"], 8);
    assert_eq!(
        (&summary["tied_pairs"], &summary["degenerate"][0]["reward"]),
        (&1.0.into(), &0.0.into())
    );
    let text = calibrate(&world, "keywords:supercalifragilistic", "");
    assert!(
        text.contains("8 of 8 prompts are degenerate") && text.contains("\"zebra\""),
        "{text}"
    );
    let csv = ok(&world, "export rewards cal --for csv");
    // Responses may have lines of their own; each row ends so.
    assert_eq!(csv.matches("\",0,0.5,0.5\n").count(), 64, "{csv}");
}

#[test]
fn exports_are_rows_that_other_trainers_read() {
    let (world, _) = calibrated("length");
    let lines = |trainer: &str, transform: &str| -> Vec<String> {
        let text = ok(
            &world,
            &format!("export rewards cal --transform {transform} --for {trainer}"),
        );
        text.lines().map(str::to_owned).collect()
    };
    let trl = lines("trl", "exp:10");
    assert_eq!(trl.len(), 64);
    for line in &trl {
        let row: Value = serde_json::from_str(line).unwrap();
        let u = row["calibrated_reward"].as_f64().unwrap();
        let expect = (10.0 * (u - 1.0)).exp();
        assert!((row["transformed_reward"].as_f64().unwrap() - expect).abs() < 1e-12);
        assert_eq!(row["reference_rewards"].as_array().unwrap().len(), 8);
        // The share of the seven others that it beats.
        let reward = row["reward"].as_f64().unwrap();
        let others = row["reference_rewards"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r.as_f64().unwrap());
        let beaten: f64 = others
            .map(|other| {
                if other < reward {
                    1.0
                } else if other == reward {
                    0.5
                } else {
                    0.0
                }
            })
            .sum();
        assert!((u - (beaten - 0.5) / 7.0).abs() < 1e-12);
    }
    // A model without a template was asked in texts; chat was not asked for, so the prompt is one message.
    let row: Value = serde_json::from_str(&trl[0]).unwrap();
    assert_eq!(row["prompt"][0]["content"], "hello");
    let verl: Value = serde_json::from_str(&lines("verl", "identity")[9]).unwrap();
    assert_eq!(
        (&verl["extra_info"]["index"], &verl["extra_info"]["prompt"]),
        (&9.into(), &1.into())
    );
    let csv = lines("csv", "log");
    assert!(csv.len() >= 65, "responses may have lines of their own");
    assert!(csv[0].starts_with("prompt_idx,sample_idx,prompt,response,reward"));
    ok(&world, "export rewards cal --for csv --out rows.csv");
    assert!(world.path("rows.csv").is_file() && !world.path("rows.part").exists());
    fails(
        &world,
        "export rewards cal --transform exp:0 --for csv",
        &["-500 to 500"],
    );
    fails(
        &world,
        "export rewards cal --transform bon_fp:4 --for csv",
        &["--beta"],
    );
    fails(
        &world,
        "export rewards cal --reward json --for csv",
        &["no reward \"json\"", "length"],
    );
    fails(&world, "export rewards nowhere --for csv", &["nowhere"]);
}

#[test]
fn a_learned_quantile_is_compared_with_the_empirical_one() {
    let world = World::new();
    let more: Vec<String> = (0..16).map(|number| format!("number {number}\n")).collect();
    world.write("prompts.txt", &format!("{PROMPTS}{}", more.concat()));
    let summary = calibrate(&world, "regex:[a-z]", "--learn quantile --json");
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let learned = &summary["learned"];
    assert_eq!(learned["held_out_prompts"], 4);
    assert!(learned["train_prompts"].as_u64().unwrap() >= 16, "{learned}");
    assert!(learned["rmse"].as_f64().unwrap() < 0.6, "{learned}");
    let ends = learned["rmse_of_one_half"].as_f64().unwrap();
    assert!(ends > 0.1 && ends <= 0.5, "{learned}");
    // It is a reward like any other.
    let answer = json(
        &world,
        "generate hello -m MODEL -n 6 --decode bon:2 --reward head:quantile --json",
    );
    let reward = answer["candidates"][0]["reward"].as_f64().unwrap();
    assert!(reward < 0.0, "the log of a quantile: {reward}");
}

/// A configuration with few steps.
fn align_config(world: &World, name: &str, lines: &str, train: &str) -> String {
    let text = format!(
        "model = {:?}\nprompts = \"prompts.txt\"\nreward = \"length\"\nmax_new_tokens = 10\n{lines}\n\
         [calibration]\nfolder = \"cal\"\nper_prompt = 8\n[rollouts]\nprompts_per_round = 4\nper_prompt = 4\n\
         [samples]\nper_prompt = 2\n[train]\nepochs = 2\ndepth = \"full\"\n{train}\n",
        world.model()
    );
    world.write(name, &text).display().to_string()
}

#[test]
fn a_policy_is_trained_resumed_and_opened() {
    let (world, calibration) = calibrated("length");
    let train = "optim = { learning_rate = 1e-3, batch_len = 256 }\nkeep_at_kl_nats = [1e-9]";
    let config = align_config(
        &world,
        "ctrl.toml",
        "procedure = \"bon:4\"\ntransform = \"exp:10\"\nwatch = [\"keywords:e\"]\nbeta = [0.2]",
        train,
    );
    let report = json(&world, &format!("train align {config} --json"));
    let run = &report["runs"][0];
    let card = &run["card"];
    assert_eq!(
        (
            &card["transform"],
            &card["procedure"],
            &card["objective"],
            &card["beta"]
        ),
        (&"exp:10".into(), &"bon:4".into(), &"rl".into(), &0.2.into())
    );
    assert_eq!(card["calibration_sha256"], calibration["content_sha256"]);
    assert_eq!(card["base"]["sha256"], calibration["model_sha256"]);
    assert_ne!(card["weights_sha256"], card["base"]["sha256"]);
    assert!(
        run["watched"][0]["watch"]["keywords:e"]["mean"].is_number(),
        "{run}"
    );
    assert_eq!(run["watched"][0]["step"], 0);
    assert!(run["watched"][0]["calibrated_reward"].as_f64().unwrap() > 0.2);

    // Again: nothing is drawn or trained anew.
    let weights = |folder: &str| std::fs::read(world.path(folder).join("model.bin")).unwrap();
    let before = weights("ctrl");
    assert_eq!(json(&world, &format!("train align {config} --json")), report);
    assert_eq!(weights("ctrl"), before);
    // What decides responses or their rewards is part of a run, and is named.
    let text = std::fs::read_to_string(&config).unwrap();
    for (old, new, differs) in [
        (
            "\"exp:10\"",
            "\"exp:5\"",
            "another transform (there: exp:10, here: exp:5)",
        ),
        (
            "per_prompt = 4",
            "per_prompt = 5",
            "another rollouts.per_prompt (there: 4, here: 5)",
        ),
    ] {
        assert!(text.contains(old), "{text}");
        let changed = world.write("changed.toml", &text.replace(old, new));
        let line = format!("train align {} --out ctrl", changed.display());
        fails(&world, &line, &[differs, "choose another folder"]);
    }
    assert_eq!(weights("ctrl"), before);

    // The same seed elsewhere gives the same policy, another seed another one.
    ok(&world, &format!("train align {config} --out same --seed 0"));
    assert_eq!(weights("same"), before);
    ok(&world, &format!("train align {config} --out other --seed 1"));
    assert_ne!(weights("other"), before);

    // Its folder is a model, and so are those of weights kept on the way.
    let answer = json(&world, "generate hello --model ctrl -n 5 --json");
    assert_eq!(answer["model_sha256"], card["weights_sha256"]);
    let kept = run["kept"][0]["policy"].as_str().unwrap();
    ok(&world, &format!("generate hello --model {kept} -n 5"));
}

#[test]
fn what_was_good_before_a_kl_exploded_is_a_policy() {
    let (world, _) = calibrated("length");
    // A checkpoint after each step: the same command goes on from weights that its first step finds to be too far.
    let train = "kl_limit_nats = 1.0\nkeep_at_kl_nats = [1e-4]\noptim = { learning_rate = 3e-3, batch_len = 256, \
                 warmup_fraction = 0.0, eval_every_steps = 1 }";
    let config = align_config(&world, "far.toml", "transform = \"raw\"\nbeta = [0.01]", train);
    let text = std::fs::read_to_string(&config).unwrap();
    world.write("far.toml", &text.replace("epochs = 2", "epochs = 40"));
    let mut cards: Vec<[Value; 2]> = Vec::new();
    for _ in 0..2 {
        fails(
            &world,
            &format!("train align {config}"),
            &[
                "above kl_limit_nats = 1",
                "lower learning_rate",
                "good.safetensors",
                "what was good is written: ",
                "kl_0.0001",
            ],
        );
        let card = ["far", "far/kl_0.0001"].map(|folder| {
            let path = world.path(folder).join("policy_card.json");
            let card = std::fs::read_to_string(&path).unwrap();
            // What the second time finds is what it writes.
            std::fs::remove_file(path).unwrap();
            serde_json::from_str(&card).unwrap()
        });
        cards.push(card);
    }
    assert_eq!(cards[0], cards[1]);
    let [card, kept] = &cards[1];
    assert!(
        card["stopped"].as_str().unwrap().contains("kl_limit_nats"),
        "{card}"
    );
    assert!(card["step"].as_u64().unwrap() > 0, "{card}");
    let kl = card["kl_nats"].as_f64().unwrap();
    assert!(kl > 0.0 && kl <= 1.0, "{card}");
    assert!(kept["kl_nats"].as_f64().unwrap() >= 1e-4, "{kept}");
    let answer = json(&world, "generate hello --model far -n 5 --json");
    assert_eq!(answer["model_sha256"], card["weights_sha256"]);
}

#[test]
fn betas_are_runs_and_objectives_are_values() {
    let (world, _) = calibrated("length");
    let train = "optim = { learning_rate = 1e-3, batch_len = 256 }";
    let sweep = align_config(
        &world,
        "sweep.toml",
        "transform = \"raw\"\nbeta = [0.05, 0.5]",
        train,
    );
    let report = json(&world, &format!("train align {sweep} --json"));
    assert_eq!(report["runs"].as_array().unwrap().len(), 2);
    assert_eq!(report["runs"][1]["card"]["beta"], 0.5);
    assert_eq!(report["runs"][1]["card"]["transform"], "raw");
    assert!(world.path("sweep/beta_0.05/policy_card.json").is_file());
    for (objective, more) in [
        ("dpo", "beta = [0.1]"),
        ("ipo", "beta = [0.1]"),
        ("sft", "procedure = \"bon:4\""),
        ("bonbon", "procedure = \"bon:4\""),
    ] {
        let config = align_config(
            &world,
            &format!("{objective}.toml"),
            &format!("objective = {objective:?}\n{more}"),
            train,
        );
        let report = json(&world, &format!("train align {config} --json"));
        assert_eq!(report["runs"][0]["card"]["objective"], objective);
        ok(&world, &format!("generate hello --model {objective} -n 3"));
    }
}

#[test]
fn a_warm_start_draws_nothing_and_uses_each_sample_once() {
    let (world, _) = calibrated("length");
    let train = "optim = { learning_rate = 1e-3, batch_len = 256 }";
    let config = |name: &str, rounds: u64, lines: &str, per_prompt: usize| {
        let path = align_config(&world, name, lines, train);
        let text = std::fs::read_to_string(&path).unwrap();
        let rollouts = format!(
            "prompts_per_round = 4\nper_prompt = {per_prompt}\nwarm_start_from_calibration = {rounds}\n"
        );
        world.write(
            name,
            &text.replace("prompts_per_round = 4\nper_prompt = 4\n", &rollouts),
        );
        path
    };
    let lines = |folder: &str, file: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(world.path(folder).join(file)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let warm = config("warm.toml", 1, "beta = [0.1]", 4);
    ok(&world, &format!("train align {warm}"));
    // Drawn are the reference's round that others are compared with, the second round, and one that looks at the last weights;
    // the KL of the first step is not the policy's.
    let drawn: Vec<u64> = lines("warm", "watch.jsonl")
        .iter()
        .map(|row| row["step"].as_u64().unwrap())
        .collect();
    assert_eq!(drawn, [0, 1, 2]);
    let rows: Vec<Value> = lines("warm", "metrics.jsonl")
        .into_iter()
        .filter(|row| row["kind"] == "train")
        .collect();
    let has = |row: &Value, name: &str| row[name].is_number();
    assert!(
        has(&rows[0], "kl_at_data_nats") && !has(&rows[0], "kl_nats"),
        "{}",
        rows[0]
    );
    assert!(
        has(&rows[1], "kl_nats") && !has(&rows[1], "kl_at_data_nats"),
        "{}",
        rows[1]
    );
    assert!((rows[0]["importance_ratio"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    // Without one the first round is another one, and so is the policy.
    let cold = config("cold.toml", 0, "beta = [0.1]", 4);
    ok(&world, &format!("train align {cold}"));
    let weights = |folder: &str| std::fs::read(world.path(folder).join("model.bin")).unwrap();
    assert_ne!(weights("warm"), weights("cold"));
    // Eight samples of each of eight prompts are four rounds of four prompts with four of them.
    let long = config("long.toml", 5, "beta = [0.1]", 4);
    fails(
        &world,
        &format!("train align {long}"),
        &["takes 12 samples of a prompt", "has 8"],
    );
    // With a baseline over the round one response to a prompt is enough, without it is not.
    let single = config(
        "single.toml",
        1,
        "objective = { kind = \"rl\", advantage = \"round\" }",
        1,
    );
    ok(&world, &format!("train align {single}"));
    let lonely = config("lonely.toml", 1, "", 1);
    fails(
        &world,
        &format!("train align {lonely}"),
        &["rollouts.per_prompt is 1", "at least 2"],
    );
}

#[test]
fn win_rates_are_of_both_sides_under_one_procedure() {
    let (world, _) = calibrated("length");
    let train = "optim = { learning_rate = 3e-3, batch_len = 256 }";
    let config = align_config(&world, "p.toml", "transform = \"raw\"\nbeta = [0.01]", train);
    ok(&world, &format!("train align {config}"));
    let eval = |policy: &str, more: &str| -> Value {
        let line = format!(
            "eval winrate --policy {policy} --reference MODEL --procedure bon:4,won:4,sample --reward length --prompts \
             prompts.txt --per-prompt 6 -n 10 --json {more}"
        );
        json(&world, &line)
    };
    let rows = eval("p", "--judge keywords:e --out out");
    let rows = rows.as_array().unwrap();
    let procedures: Vec<&str> = rows
        .iter()
        .map(|row| row["procedure"].as_str().unwrap())
        .collect();
    assert_eq!(procedures, ["bon:4", "won:4", "sample"]);
    for row in rows {
        let win_rate = row["win_rate"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&win_rate));
        // Prompts that agree in all but certainty say nothing about spread.
        if let Some(ends) = row["ci"].as_array() {
            let (lo, hi) = (ends[0].as_f64().unwrap(), ends[1].as_f64().unwrap());
            assert!(lo <= win_rate && win_rate <= hi, "{row}");
        }
        assert!(row["kl_nats"].as_f64().unwrap() > 0.0 && row["reward"].is_number());
        assert_eq!(
            (&row["kl_kind"], &row["judges"][0]["reward"]),
            (&"exact".into(), &"keywords:e".into())
        );
        assert_eq!(row["method"], "rl raw");
    }
    assert!(rows[0]["reward"].as_f64().unwrap() >= rows[2]["reward"].as_f64().unwrap());
    assert!(rows[1]["reward"].as_f64().unwrap() <= rows[2]["reward"].as_f64().unwrap());
    for file in [
        "winrate.json",
        "winrate.html",
        "winrate.csv",
        "p.kl",
        "reference/manifest.json",
        "p/manifest.json",
    ] {
        assert!(world.path("out").join(file).is_file(), "{file}");
    }
    // Resumed: the same bytes.
    let before = std::fs::read(world.path("out/winrate.html")).unwrap();
    assert_eq!(
        eval("p", "--judge keywords:e --out out").as_array().unwrap(),
        rows
    );
    assert_eq!(std::fs::read(world.path("out/winrate.html")).unwrap(), before);

    // Two policies are compared with each other, paired; and the reference with itself has moved nowhere.
    let both = eval("p tiny.bin", "");
    assert_eq!(both[3]["policy"], "tiny.bin");
    assert_eq!(
        (&both[3]["kl_nats"], &both[0].get("difference").is_none()),
        (&0.0.into(), &true)
    );
    let difference = both[3]["difference"].as_f64().unwrap();
    let expect = both[3]["win_rate"].as_f64().unwrap() - both[0]["win_rate"].as_f64().unwrap();
    assert!((difference - expect).abs() < 1e-12);
    let table = ok(
        &world,
        "eval winrate --policy p --reference MODEL --procedure sample --reward length --prompts prompts.txt --per-prompt 2 -n 4",
    );
    assert!(table.contains("win rate") && table.contains("sample"), "{table}");
}

#[test]
fn a_scorer_of_the_reference_steers_the_policy() {
    let (world, _) = calibrated("length");
    let config = align_config(
        &world,
        "p.toml",
        "transform = \"raw\"",
        "optim = { learning_rate = 1e-3, batch_len = 256 }",
    );
    ok(&world, &format!("train align {config}"));
    let scorer = format!(
        "model = {:?}\nrollouts = \"cal\"\nreward = \"length\"\nfeatures_len = 8\n[train]\nepochs = 1\ntrunk_len = 8\n\
         eval_fraction = 0.25\noptim = {{ batch_len = 128 }}\n",
        world.model()
    );
    let scorer = world.write("s.toml", &scorer).display().to_string();
    ok(&world, &format!("train scorer {scorer}"));
    let eval = |policy: &str| {
        json(
            &world,
            &format!(
                "eval winrate --policy {policy} --reference MODEL --procedure cd-block:k=2,m=4,sample --scorer s --reward length --prompts prompts.txt --per-prompt 2 -n 8 --json --out steered"
            ),
        )
    };
    let rows = eval("p");
    assert_eq!(rows[0]["procedure"], "cd-block:k=2,m=4");
    let (kl, with_blocks) = (
        rows[0]["kl_nats"].as_f64().unwrap(),
        rows[0]["kl_with_blocks_nats"].as_f64().unwrap(),
    );
    // Two blocks of two, log 2 - 1/2 each at most.
    assert!(
        with_blocks > kl && with_blocks <= kl + 2.0 * (2.0_f64.ln() - 0.5) + 1e-9,
        "{with_blocks} {kl}"
    );
    assert!(rows[1].get("kl_with_blocks_nats").is_none());
    assert_eq!(eval("p"), rows);
    let ran = {
        let words = words(
            &world,
            "generate hello --model p -n 8 --decode cd-block:k=2,m=4 --scorer s",
        );
        world.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("tuned from"), "{}", ran.stderr);
    // As a reward it would judge by states that it was not trained on.
    fails(
        &world,
        "generate hello --model p -n 8 --decode bon:2 --reward head:s",
        &["sha256"],
    );
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let (world, _) = calibrated("length");
    let model = world.model();
    let eval = |procedure: &str, expect: &[&str]| {
        let line = format!(
            "eval winrate --policy tiny.bin --reference MODEL --procedure {procedure} --reward length --prompts prompts.txt \
             --per-prompt 4 -n 4"
        );
        fails(&world, &line, expect);
    };
    eval("bon:8", &["needs 8 samples", "--per-prompt is 4"]);
    eval("cd-block:k=2,m=4", &["--scorer"]);
    eval("rewind:0.5", &["rewind:0.5"]);
    let align = |lines: &str, train: &str, expect: &[&str]| {
        let config = align_config(&world, "bad.toml", lines, train);
        fails(&world, &format!("train align {config}"), expect);
    };
    align("objective = \"ppo\"", "", &["rl, dpo, ipo, sft, bonbon"]);
    align("transform = \"exp\"", "", &["transform", "raw"]);
    align("beta = [-1.0]", "", &["beta"]);
    align("transform = \"table:none.txt\"", "", &["none.txt"]);
    align("reward2 = 1", "", &["reward2"]);
    // Nothing tells responses apart, so that there is no pair to learn from.
    let config = world.write(
        "none.toml",
        &format!(
            "model = {model:?}\nprompts = \"prompts.txt\"\nreward = \"keywords:supercalifragilistic\"\nmax_new_tokens = 10\n\
             objective = \"dpo\"\n[calibration]\nper_prompt = 4\n"
        ),
    );
    fails(
        &world,
        &format!("train align {}", config.display()),
        &["nothing to learn from", "pairs of equal rewards"],
    );
}
