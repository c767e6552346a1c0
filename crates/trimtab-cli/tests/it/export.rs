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
