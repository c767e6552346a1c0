//! `eval winrate` as users meet it: what the card of a policy saves them, what it is silent about, and control on one side.

use serde_json::Value;

use crate::harness::World;

const PROMPTS: &str =
    "hello\nthe quick brown fox\nzebra\none two three\ngood morning\nabc\nwhat is it\nwhy not\n";

/// A world with a policy `p`, trained on the first four of eight prompts without a template, ten tokens each.
fn trained() -> World {
    let world = World::new();
    world.write("prompts.txt", PROMPTS);
    train(&world, "p", "beta = [0.1]");
    world
}

fn train(world: &World, name: &str, lines: &str) {
    let text = format!(
        "model = {:?}\nprompts = \"prompts.txt\"\nnum_prompts = 4\nreward = \"length\"\ntransform = \"raw\"\nraw = true\n\
         max_new_tokens = 10\n{lines}\n[rollouts]\nprompts_per_round = 4\nper_prompt = 4\n[train]\nepochs = 1\n\
         depth = \"full\"\noptim = {{ learning_rate = 1e-3, batch_len = 256 }}\n",
        world.model()
    );
    world.write(&format!("{name}.toml"), &text);
    world.ok(&["train", "align", &format!("{name}.toml")]);
}

/// Arguments after `eval winrate --reference MODEL`.
fn words(line: &str) -> Vec<&str> {
    let always = ["eval", "winrate", "--reference", "tiny.bin"];
    always.into_iter().chain(line.split_whitespace()).collect()
}

/// Rows, and what was said beside them.
fn rows(world: &World, line: &str) -> (Vec<Value>, String) {
    let ran = world.run(&words(&format!("{line} --json")));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
    (rows.as_array().unwrap().clone(), ran.stderr)
}

fn fails(world: &World, line: &str, expect: &[&str]) {
    world.fails(&words(line), expect);
}

#[test]
fn a_card_says_what_is_not_given() {
    let world = trained();
    let card: Value =
        serde_json::from_str(&std::fs::read_to_string(world.path("p/policy_card.json")).unwrap()).unwrap();
    let trained_on = &card["trained_on"];
    assert_eq!(
        (&trained_on["raw"], &trained_on["max_new_tokens"]),
        (&true.into(), &10.into())
    );
    assert_eq!(
        (&trained_on["num_prompts"], &trained_on["num_taken"]),
        (&4.into(), &4.into())
    );
    assert_eq!(card["advantage"], "leave-one-out");
    // As the help says it: neither reward nor prompts nor how they are asked.
    let line = "--policy p --procedure bon:2,won:2,sample --per-prompt 4";
    let (found, said) = rows(&world, line);
    assert_eq!(found.len(), 3);
    for row in &found {
        assert_eq!(
            (&row["num_prompts"], &row["reward_name"]),
            (&4.into(), &"length".into())
        );
        assert_eq!(
            (&row["kl_kind"], &row["kl_num_samples"]),
            (&"exact".into(), &4.into())
        );
        assert_eq!(row["method"], "rl raw");
        assert!(row["response_len"].as_f64().unwrap() <= 10.0);
    }
    for part in [
        "as p was trained",
        "--reward length",
        "--raw",
        "--max-new-tokens 10",
        "--skip 4 --num-prompts 4",
    ] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
    assert!(
        !said.contains("otherwise") && !said.contains("trained on"),
        "{said}"
    );
    // What is given counts, and what is then not as in training is said.
    let (same, said) = rows(
        &world,
        &format!("{line} --reward length --prompts prompts.txt --skip 4 --raw -n 10"),
    );
    assert_eq!(same, found);
    assert!(!said.contains("as p was trained"), "{said}");
    let (_, said) = rows(
        &world,
        "--policy p --procedure sample --per-prompt 2 --reward keywords:e --prompts prompts.txt --num-prompts 6 -n 4",
    );
    for part in [
        "reward length there, keywords:e here",
        "max_new_tokens 10 there, 4 here",
        "trained on 4 of the 6 prompts",
    ] {
        assert!(said.contains(part), "{said:?} lacks {part:?}");
    }
    let (_, said) = rows(
        &world,
        "--policy p --procedure sample --per-prompt 2 --reward length --prompts prompts.txt -n 4 --ignore-card",
    );
    assert!(
        said.contains("raw true there, false here") && !said.contains("as p was"),
        "{said}"
    );
}

#[test]
fn what_no_card_says_is_asked_for() {
    let world = trained();
    let with =
        |policy: &str, more: &str| format!("--policy {policy} --procedure sample --per-prompt 2 -n 4 {more}");
    fails(
        &world,
        &with("tiny.bin", "--prompts prompts.txt"),
        &["--reward is missing", "--reward REWARD"],
    );
    fails(
        &world,
        &with("tiny.bin", "--reward length"),
        &["--prompts is missing", "--prompts FILE"],
    );
    fails(
        &world,
        &with("p", "--ignore-card --reward length"),
        &["--prompts is missing"],
    );
    fails(&world, &with("p", "--prompts -"), &["standard input", "a file"]);
    // Nothing is left of the file.
    let first_four: String = PROMPTS.split_inclusive('\n').take(4).collect();
    world.write("prompts.txt", &first_four);
    fails(
        &world,
        &with("p", ""),
        &[
            "p was trained on all prompts of",
            "prompts.txt",
            "give --prompts FILE",
        ],
    );
    std::fs::remove_file(world.path("prompts.txt")).unwrap();
    fails(&world, &with("p", ""), &["prompts.txt", "give --prompts FILE"]);
}

#[test]
fn a_reference_may_have_samples_of_its_own_number() {
    let world = trained();
    let line = "--policy p --procedure bon:2,sample --per-prompt 4";
    let (few, _) = rows(&world, &format!("{line} --out few"));
    assert_eq!(few[0].get("reference_num_samples"), None);
    let (many, _) = rows(&world, &format!("{line} --reference-per-prompt 16 --out many"));
    for (few, many) in few.iter().zip(&many) {
        assert_eq!(
            (&many["num_samples"], &many["reference_num_samples"]),
            (&4.into(), &16.into())
        );
        // The policy's samples are the same ones.
        assert_eq!(few["reward"], many["reward"]);
    }
    assert_ne!(few[1]["win_rate"], many[1]["win_rate"]);
    fails(
        &world,
        "--policy p --procedure bon:4 --per-prompt 4 --reference-per-prompt 2",
        &["bon:4 needs 4 samples", "--reference-per-prompt is 2"],
    );
}

#[test]
fn policies_of_other_settings_are_other_lines() {
    let world = trained();
    train(&world, "q", "beta = [0.2]\nseed = 1");
    let (found, said) = rows(
        &world,
        "--policy p q tiny.bin --procedure bon:2,bon:3,won:4,sample --per-prompt 4 --judge keywords:supercalifragilistic --out out",
    );
    let methods: Vec<&str> = found.iter().map(|row| row["method"].as_str().unwrap()).collect();
    assert_eq!(
        [methods[0], methods[4], methods[8]],
        ["rl raw, beta 0.1, seed 0", "rl raw, beta 0.2, seed 1", "tiny.bin"]
    );
    // What pairs runs of two methods is in their cards; a plain model was not trained.
    assert_eq!([&found[0]["training_seed"], &found[4]["training_seed"]], [0, 1]);
    assert_eq!(found[8].get("training_seed"), None);
    assert!(!said.contains("otherwise"), "{said}");
    // No response of ten tokens holds the judge's word.
    for row in &found {
        assert_eq!(row["judges"][0]["tied_prompts"], 4);
        assert_eq!(
            (&row["judges"][0]["win_rate"], &row["judges"][0]["ci"]),
            (&0.5.into(), &Value::Null)
        );
    }
    let page = std::fs::read_to_string(world.path("out/winrate.html")).unwrap();
    // A figure for each of four procedures by two judges, and the best of 1, 2 and 3 by both.
    assert_eq!(
        page.matches("<svg viewBox=\"0 0 420 300\"").count(),
        8 + 2,
        "{page}"
    );
    assert!(page.contains("Win rate against N.") && page.contains("Tied prompts"));
    let csv = std::fs::read_to_string(world.path("out/winrate.csv")).unwrap();
    assert!(
        csv.lines()
            .next()
            .unwrap()
            .ends_with("kl_kind,reference_procedure,tied_prompts"),
        "{csv}"
    );
    let text = world.ok(&words(
        "--policy p --procedure sample --per-prompt 2 --reward keywords:supercalifragilistic",
    ));
    assert!(
        text.contains("to 4 of 4 all answers of both sides have one keywords"),
        "{text}"
    );
}

#[test]
fn a_steered_policy_meets_the_reference_as_it_is() {
    let world = trained();
    world.ok(&[
        "calibrate",
        "--model",
        "tiny.bin",
        "--reward",
        "length",
        "--prompts",
        "prompts.txt",
        "--per-prompt",
        "8",
        "-n",
        "10",
        "--raw",
        "--out",
        "cal",
    ]);
    let scorer = "model = \"tiny.bin\"\nrollouts = \"cal\"\nreward = \"length\"\nfeatures_len = 8\n[train]\nepochs = 1\n\
                  trunk_len = 8\neval_fraction = 0.25\noptim = { batch_len = 128 }\n";
    world.write("s.toml", &scorer.replace("tiny.bin", &world.model()));
    world.ok(&["train", "scorer", "s.toml"]);
    let line = "--policy p --procedure cd-block:k=2,m=4,sample --scorer s --per-prompt 4 -n 8 --out";
    let (alone, _) = rows(&world, &format!("{line} alone --apply-to policy"));
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let steered = &alone[0];
    assert_eq!(steered["reference_procedure"], "sample");
    assert_eq!(number(steered, "reference_kl_with_blocks_nats"), 0.0);
    // Two tries against one are better than one against one.
    let (tries, _) = rows(
        &world,
        "--policy p --procedure bon:2,sample --reward regex:. --per-prompt 4 -n 8 --apply-to policy --out tries",
    );
    assert_eq!(tries[0]["reference_procedure"], "sample");
    assert!(
        number(&tries[0], "win_rate") > number(&tries[1], "win_rate"),
        "{tries:?}"
    );
    // What it meets is what the samples are.
    assert_eq!(steered["reference_reward"], alone[1]["reference_reward"]);
    assert!(number(steered, "kl_with_blocks_nats") > number(steered, "kl_nats"));
    assert!(alone[1].get("reference_procedure").is_none());
    let csv = std::fs::read_to_string(world.path("alone/winrate.csv")).unwrap();
    let row = csv.lines().nth(1).unwrap();
    assert!(row.contains(&steered["kl_with_blocks_nats"].to_string()), "{row}");
    assert!(row.contains(",bound,sample,"), "{row}");
    let page = std::fs::read_to_string(world.path("alone/winrate.html")).unwrap();
    assert!(page.contains("on the policy, sample on the reference") && page.contains("at most this"));
    assert!(!world.path("alone/reference.steered-1").exists());
    let (both, _) = rows(&world, &format!("{line} both"));
    assert!(both[0].get("reference_procedure").is_none());
    assert!(number(&both[0], "reference_kl_with_blocks_nats") > 0.0);
    // The policy's answers are the same ones, whatever the reference does.
    assert_eq!(both[0]["reward"], steered["reward"]);
}
