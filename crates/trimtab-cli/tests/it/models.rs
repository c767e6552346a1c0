//! `models`: answers of yes and no as exit codes.

use crate::harness::World;

#[test]
fn the_list_names_what_could_be_fetched() {
    let world = World::new();
    let list = world.json(&["models", "list", "--json"]);
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"smollm2-135m-instruct") && names.contains(&"stories15m"),
        "{names:?}"
    );
    assert!(
        list.as_array()
            .unwrap()
            .iter()
            .all(|model| model["installed"].is_null())
    );
    assert!(world.ok(&["models", "list"]).contains("Apache-2.0"));
    assert!(!world.path("home").exists(), "looking creates nothing");
}

#[test]
fn questions_about_absent_models_are_answered_no() {
    let world = World::new();
    for question in ["path", "rm", "verify"] {
        let ran = world.run(&["models", question, "stories15m"]);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(1), ""),
            "{question}: {}",
            ran.stderr
        );
        assert!(ran.stderr.contains("stories15m"), "{}", ran.stderr);
    }
}

#[test]
fn local_models_are_used_where_they_are() {
    let world = World::new();
    let model = world.model();
    assert_eq!(world.ok(&["models", "path", &model]).trim(), model);
    let got = world.json(&["models", "get", &model, "--json"]);
    assert_eq!(got["source"], "local file");
    let report = world.json(&["generate", "hi", "-m", &model, "-n", "2", "--json"]);
    assert_eq!(got["model_sha256"], report["model_sha256"]);
    world.fails(&["models", "rm", &model], &["outside the store"]);
    assert!(world.path("tiny.bin").exists());
}
