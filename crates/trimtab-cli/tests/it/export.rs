//! `export model` and the formats of a policy, on a model of random weights.

use serde_json::Value;

use crate::harness::World;

/// A world whose vocabulary has a piece for a space, which every format but llama2.c's needs, in place of "z".
fn world_with_space() -> World {
    let world = World::new();
    let path = world.path("tokenizer.bin");
    let mut vocab = std::fs::read(&path).unwrap();
    let last = vocab.last_mut().unwrap();
    assert_eq!(*last, b'z', "the last piece of the tiny vocabulary");
    *last = b' ';
    std::fs::write(path, vocab).unwrap();
    world
}

/// Greedy tokens and the reference's log-probability of them.
fn answer(world: &World, model: &str) -> (Value, Value) {
    let args = [
        "generate",
        "one two é",
        "--raw",
        "--model",
        model,
        "--decode",
        "greedy",
        "--precision",
        "f32",
        "-n",
        "12",
        "--json",
    ];
    let json = world.json(&args);
    let candidate = &json["candidates"][0];
    (
        candidate["token_ids"].clone(),
        candidate["reference_log_prob"].clone(),
    )
}

fn export(world: &World, model: &str, format: &str, out: &str, more: &[&str]) -> Value {
    let args = [
        "export", "model", model, "--format", format, "--out", out, "--json",
    ];
    world.json(&[&args[..], more].concat())
}

#[test]
fn a_model_is_the_same_in_every_format() {
    let world = world_with_space();
    let expected = answer(&world, &world.model());
    let hf = export(&world, &world.model(), "hf", "hf", &[]);
    assert_eq!((&hf["path"], &hf["dtype"]), (&"hf".into(), &"f32".into()));
    assert_eq!(answer(&world, "hf"), expected);
    let gguf = export(&world, "./hf", "gguf", "new/gguf", &[]);
    assert_eq!(gguf["path"], "new/gguf/model.gguf");
    assert_eq!(answer(&world, "new/gguf/model.gguf"), expected);
    export(&world, &world.model(), "gguf", "direct", &[]);
    assert_eq!(answer(&world, "direct/model.gguf"), expected);
    let small = export(&world, "direct/model.gguf", "hf", "small", &["--dtype", "bf16"]);
    let size = |value: &Value| value["size_bytes"].as_u64().unwrap();
    assert!(size(&small) < size(&hf) * 6 / 10, "{small} {hf}");
    answer(&world, "small");
}

#[test]
fn what_cannot_be_exported_says_why() {
    let world = World::new();
    let model = world.model();
    world.fails(
        &["export", "model", &model, "--format", "hf", "--out", "hf"],
        &["the token for a space"],
    );
    assert!(!world.path("hf").exists() && !world.path("hf.partial").exists());
    world.fails(
        &["export", "model", &model, "--format", "onnx", "--out", "o"],
        &["invalid value 'onnx'", "hf", "gguf"],
    );
    std::fs::create_dir(world.path("full")).unwrap();
    world.write("full/file.txt", "of somebody");
    world.fails(
        &["export", "model", &model, "--format", "gguf", "--out", "full"],
        &["full is not empty", "--out"],
    );
}

#[test]
fn policies_are_written_as_asked() {
    let world = world_with_space();
    world.write("prompts.txt", "hello\nthe fox\nabc\nwhat is it\n");
    world.write(
        "ctrl.toml",
        &format!(
            "model = {:?}\nprompts = \"prompts.txt\"\nreward = \"length\"\ntransform = \"raw\"\nprecision = \"f32\"\n\
             max_new_tokens = 6\nformats = [\"gguf\", \"hf\", \"base\"]\n[rollouts]\nprompts_per_round = 2\nper_prompt = 2\n\
             [train]\nepochs = 2\ndepth = \"full\"\nkeep_at_kl_nats = [1e-9]\n\
             optim = {{ learning_rate = 1e-3, batch_len = 256 }}\n",
            world.model()
        ),
    );
    let report = world.json(&["train", "align", "ctrl.toml", "--json"]);
    let run = &report["runs"][0];
    assert_eq!(run["card"]["entry"], "model.gguf");
    let others: Vec<&str> = run["others"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    assert_eq!(others, ["ctrl/model", "ctrl/model.bin"]);
    let expected = answer(&world, "ctrl");
    assert_ne!(expected, answer(&world, &world.model()));
    for path in others {
        assert_eq!(answer(&world, path), expected, "{path}");
    }
    // Weights kept on the way take no more room than one format.
    let kept = run["kept"][0]["policy"].as_str().unwrap();
    let entries = |name: &str| world.path(kept).join(name).exists();
    assert!(entries("model.gguf") && !entries("model") && !entries("model.bin"));
    // A policy's folder is a model to export as well.
    export(&world, kept, "hf", "kept_hf", &["--dtype", "f32"]);
    assert_eq!(answer(&world, kept), answer(&world, "kept_hf"));
    world.fails(
        &["train", "align", "ctrl.toml", "--formats", "onnx"],
        &["onnx", "base", "hf", "gguf"],
    );
}

fn calibrate(world: &World, reward: &str, per_prompt: &str, out: &str) {
    world.write("prompts.txt", "hello\nthe fox\nabc\nwhat is it\n");
    let model = world.model();
    let args = [
        "calibrate",
        "--model",
        &model,
        "--reward",
        reward,
        "--prompts",
        "prompts.txt",
        "--per-prompt",
        per_prompt,
        "-n",
        "8",
        "--raw",
        "--out",
        out,
    ];
    world.ok(&args);
}

#[test]
fn rewards_of_one_sample_are_not_exported() {
    let world = World::new();
    calibrate(&world, "length", "1", "one");
    let args = [
        "export",
        "rewards",
        "one",
        "--transform",
        "exp:10",
        "--for",
        "csv",
    ];
    let refused = ["prompt 1 has one sample", "--per-prompt"];
    world.fails(&args, &refused);
    world.fails(&[&args[..], &["--out", "rows.csv"]].concat(), &refused);
    assert!(!world.path("rows.csv").exists() && !world.path("rows.part").exists());
}

#[test]
fn variants_and_templates_are_told_beside_the_rows() {
    let world = World::new();
    calibrate(&world, "length", "4", "cal");
    let export = |more: &[&str]| world.run(&[&["export", "rewards", "cal"], more].concat());
    let plain = export(&["--for", "trl"]);
    assert_eq!(
        (plain.code, plain.stderr.contains("interpolated")),
        (Some(0), false)
    );
    let smooth = export(&["--for", "trl", "--interpolated"]);
    assert!(
        smooth.stderr.contains("interpolated, a variant"),
        "{}",
        smooth.stderr
    );
    assert_eq!(smooth.stdout.lines().count(), plain.stdout.lines().count());
    let verl = export(&["--for", "verl"]);
    assert!(verl.stderr.contains("custom_chat_template"), "{}", verl.stderr);
}

/// A run's configuration on a calibration of its own folder.
fn align(world: &World, name: &str, lines: &str, per_prompt: usize) -> String {
    let text = format!(
        "model = {:?}\nprompts = \"prompts.txt\"\nraw = true\nmax_new_tokens = 8\n{lines}\n[calibration]\n\
         per_prompt = {per_prompt}\ninterpolated = true\n[rollouts]\nprompts_per_round = 2\nper_prompt = 2\n[train]\n\
         epochs = 1\ndepth = \"full\"\noptim = {{ learning_rate = 1e-3, batch_len = 256 }}\n",
        world.model()
    );
    let file = format!("{name}.toml");
    world.write("prompts.txt", "hello\nthe fox\nabc\nwhat is it\n");
    world.write(&file, &text);
    file
}

#[test]
fn a_run_without_a_kl_penalty_or_with_one_sample_goes_to_its_end() {
    let world = World::new();
    let file = align(
        &world,
        "free",
        "reward = \"length\"\ntransform = \"exp:10\"\nbeta = [0.0]",
        1,
    );
    let ran = world.run(&["train", "align", &file, "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("0, 1/2 or 1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("interpolated, a variant"), "{}", ran.stderr);
    let file = align(
        &world,
        "fp",
        "reward = \"length\"\ntransform = \"bon_fp:4\"\nbeta = [0.0]",
        4,
    );
    world.fails(&["train", "align", &file], &["beta holds 0", "a positive beta"]);
    assert!(
        !world.path("fp/calibration").exists(),
        "refused before anything was drawn"
    );
}

#[test]
fn winners_among_equals_are_counted_and_not_learned_from() {
    let world = World::new();
    let sft = "objective = \"sft\"\nprocedure = \"bon:2\"\nreward = ";
    let file = align(
        &world,
        "ties",
        &format!("{sft}\"keywords:supercalifragilistic\""),
        4,
    );
    world.fails(
        &["train", "align", &file],
        &["nothing to learn from", "groups of equal rewards"],
    );
}
