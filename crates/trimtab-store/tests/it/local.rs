//! Models used where they lie: their hashes, and when a remembered hash is trusted.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use trimtab_store::{ModelFormat, NoProgress, SourcePolicy, Store, StoreError};

use crate::fakes::{Place, Recorded, sha};

fn age(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 - seconds);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

fn hash(store: &Store, path: &Path) -> String {
    let model = store
        .get(path.to_str().unwrap(), SourcePolicy::Offline, &mut NoProgress)
        .unwrap();
    assert!(model.was_cached && model.path == path);
    model.weights_sha256.to_string()
}

#[test]
fn a_hash_is_remembered_while_size_and_time_stay() {
    let place = Place::new();
    let (store, path) = (Store::open(&place.path("home")).unwrap(), place.path("m.gguf"));
    fs::write(&path, b"one").unwrap();
    age(&path, 0);
    assert_eq!(hash(&store, &path), sha(b"one"));
    // The same size and time: the store cannot know, and does not read.
    fs::write(&path, b"two").unwrap();
    age(&path, 0);
    assert_eq!(hash(&store, &path), sha(b"one"));
    // It knows when asked for every byte, and when the time or the size is another.
    let spec = path.to_str().unwrap();
    assert_eq!(
        store.verify(spec, &mut NoProgress).unwrap().to_string(),
        sha(b"two")
    );
    fs::write(&path, b"six").unwrap();
    age(&path, 1);
    assert_eq!(hash(&store, &path), sha(b"six"));
    fs::write(&path, b"three").unwrap();
    age(&path, 1);
    assert_eq!(hash(&store, &path), sha(b"three"));
}

#[test]
fn a_file_that_changed_just_now_is_read_each_time() {
    let place = Place::new();
    let (store, path) = (Store::open(&place.path("home")).unwrap(), place.path("m.gguf"));
    #[expect(
        clippy::disallowed_methods,
        reason = "the file must look younger than the clock"
    )]
    let now = SystemTime::now() + Duration::from_hours(1);
    for content in [b"one", b"two"] {
        fs::write(&path, content).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(now)
            .unwrap();
        assert_eq!(hash(&store, &path), sha(content));
    }
}

#[test]
fn a_damaged_memory_of_hashes_is_ignored() {
    let place = Place::new();
    let (store, path) = (Store::open(&place.path("home")).unwrap(), place.path("m.bin"));
    fs::write(&path, b"one").unwrap();
    age(&path, 0);
    hash(&store, &path);
    let records: Vec<_> = place.home("local-hashes").read_dir().unwrap().flatten().collect();
    assert_eq!(records.len(), 1);
    fs::write(records[0].path(), b"{").unwrap();
    assert_eq!(hash(&store, &path), sha(b"one"));
    let mut events = Recorded::default();
    store
        .get(path.to_str().unwrap(), SourcePolicy::Any, &mut events)
        .unwrap();
    assert_eq!(events.lines, [""; 0], "the hash was not remembered again");
}

#[test]
fn a_store_that_cannot_be_written_still_hashes() {
    let place = Place::new();
    // A file in place of the folder of hashes.
    fs::create_dir(place.path("home")).unwrap();
    fs::write(place.home("local-hashes"), b"").unwrap();
    let (store, path) = (Store::open(&place.path("home")).unwrap(), place.path("m.bin"));
    fs::write(&path, b"one").unwrap();
    age(&path, 0);
    assert_eq!(hash(&store, &path), sha(b"one"));
}

#[test]
fn a_file_is_no_store() {
    let place = Place::new();
    fs::write(place.path("home"), b"").unwrap();
    let error = Store::open(&place.path("home")).unwrap_err().to_string();
    let home = place.path("home").display().to_string();
    assert!(
        error.contains(&home) && error.contains("got a file; set TRIMTAB_HOME to a folder"),
        "{error}"
    );
}

#[test]
fn a_folder_stands_for_the_one_model_file_in_it() {
    let place = Place::new();
    let store = Store::open(&place.path("home")).unwrap();
    let check = |files: &[&str], expect: Result<(&str, ModelFormat), &str>| {
        let folder = place.path("folder");
        fs::create_dir(&folder).unwrap();
        for name in files {
            fs::write(folder.join(name), name).unwrap();
        }
        let got = store.get(folder.to_str().unwrap(), SourcePolicy::Any, &mut NoProgress);
        match (got, expect) {
            (Ok(model), Ok((name, format))) => {
                assert_eq!((model.path, model.format), (folder.join(name), format));
                assert_eq!(model.weights_sha256.to_string(), sha(name.as_bytes()));
            }
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{error}"),
            (got, expect) => panic!("{files:?}: expected {expect:?}, got {got:?}"),
        }
        fs::remove_dir_all(&folder).unwrap();
    };
    check(&["m.gguf", "README.md"], Ok(("m.gguf", ModelFormat::Gguf)));
    check(
        &["stories15M.bin", "tokenizer.bin"],
        Ok(("stories15M.bin", ModelFormat::Llama2C)),
    );
    check(
        &["stories260K.bin", "tok512.bin"],
        Ok(("stories260K.bin", ModelFormat::Llama2C)),
    );
    check(
        &["a.gguf", "b.gguf"],
        Err("has 2 model files; name one of a.gguf, b.gguf"),
    );
    check(&["tokenizer.bin"], Err("no config.json and no .gguf"));
    check(&["model.safetensors", "m.gguf"], Err("no config.json"));
}

#[test]
fn formats_follow_names_and_local_files_are_not_removed() {
    let place = Place::new();
    let store = Store::open(&place.path("home")).unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    for name in [
        "a.gguf",
        "a.bin",
        "folder/config.json",
        "folder/model.safetensors",
    ] {
        fs::write(place.path(name), name).unwrap();
    }
    for (name, format, source) in [
        ("a.gguf", ModelFormat::Gguf, "local file"),
        ("a.bin", ModelFormat::Llama2C, "local file"),
        ("folder", ModelFormat::SafetensorsFolder, "local folder"),
    ] {
        let spec = place.path(name);
        let spec = spec.to_str().unwrap();
        let model = store.get(spec, SourcePolicy::Any, &mut NoProgress).unwrap();
        assert_eq!((model.format, model.source.as_str()), (format, source));
        assert!(matches!(
            store.remove(spec, &mut NoProgress),
            Err(StoreError::BadName { .. })
        ));
        assert_eq!(store.path(spec).unwrap(), place.path(name));
    }
}
