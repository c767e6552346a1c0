//! Models that are in the store: listing, checking, replacing and removing them.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use trimtab_store::{NoProgress, SourcePolicy, Store, StoreError};

use crate::fakes::{Place, Recorded, file, hub_at, hub_source, sha, table};
use crate::server::{Answer, Server};

/// A store in which the model `m` of the given content was fetched.
fn filled(place: &Place, content: &'static [u8]) -> Store {
    let server = Server::start(move |request, _| Answer::file(request, content));
    let table = table(&[file("m.gguf", content)], &[hub_source("m.gguf")]);
    let store = place.store(&table).with_hub(hub_at(&server.address));
    store.get("m", SourcePolicy::Any, &mut NoProgress).unwrap();
    store
}

fn get(store: &Store) -> Result<(), StoreError> {
    store.get("m", SourcePolicy::Offline, &mut NoProgress).map(drop)
}

#[test]
fn the_list_tells_what_is_installed_and_what_is_unfinished() {
    let place = Place::new();
    let empty = place.store(&table(&[file("m.gguf", b"12345")], &[hub_source("m.gguf")]));
    fs::create_dir_all(place.home("partial/m")).unwrap();
    fs::write(place.home("partial/m/m.gguf.part"), b"123").unwrap();
    let listed = empty.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (
            listed[0].installed.as_ref(),
            listed[0].partial_bytes,
            listed[0].size_bytes
        ),
        (None, 3, 5)
    );
    assert_eq!(
        (listed[0].licence.as_deref(), listed[0].sources.as_slice()),
        (Some("MIT"), &["hub o/n@abc".to_owned()][..])
    );
    assert!(matches!(empty.path("m"), Err(StoreError::NotPresent { .. })));
    let store = filled(&place, b"12345");
    let listed = store.list();
    assert_eq!(
        (listed[0].installed.clone(), listed[0].partial_bytes),
        (Some(place.home("models/m/m.gguf")), 0)
    );
    assert_eq!(store.path("m").unwrap(), place.home("models/m/m.gguf"));
}

#[test]
fn a_touched_file_is_read_once_more_and_its_time_recorded() {
    let place = Place::new();
    let store = filled(&place, b"12345");
    let stored = File::options()
        .write(true)
        .open(place.home("models/m/m.gguf"))
        .unwrap();
    stored
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
        .unwrap();
    for expect in [vec!["started m.gguf 5", "advanced 5", "finished"], vec![]] {
        let mut events = Recorded::default();
        store.get("m", SourcePolicy::Offline, &mut events).unwrap();
        assert_eq!(events.lines, expect);
    }
}

#[test]
fn damage_is_named_with_the_remedy() {
    let changes: [fn(&std::path::Path); 3] = [
        |path| fs::write(path, b"1234").unwrap(),
        |path| {
            fs::write(path, b"54321").unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        },
        |path| fs::remove_file(path).unwrap(),
    ];
    for change in changes {
        let place = Place::new();
        let store = filled(&place, b"12345");
        change(&place.home("models/m/m.gguf"));
        let error = get(&store).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "got {error}");
        assert!(error.to_string().contains("models rm m"), "got {error}");
        assert!(matches!(
            store.verify("m", &mut NoProgress),
            Err(StoreError::Damaged { .. })
        ));
        store.remove("m", &mut NoProgress).unwrap();
        filled(&place, b"12345");
    }
}

#[test]
fn verifying_reads_every_byte_even_if_the_time_stayed() {
    let place = Place::new();
    let store = filled(&place, b"12345");
    assert_eq!(
        store.verify("m", &mut NoProgress).unwrap().to_string(),
        sha(b"12345")
    );
    let path = place.home("models/m/m.gguf");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"54321").unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    get(&store).unwrap();
    assert!(matches!(
        store.verify("m", &mut NoProgress),
        Err(StoreError::Damaged { .. })
    ));
}

#[test]
fn a_new_version_in_the_table_replaces_the_old_one() {
    let place = Place::new();
    filled(&place, b"12345");
    let store = filled(&place, b"newer");
    assert_eq!(fs::read(store.path("m").unwrap()).unwrap(), b"newer");
    assert!(!place.home("partial/m").exists());
}

#[test]
fn an_unreadable_record_is_named_and_fetching_replaces_it() {
    let hostile = r#"{"schema": 1, "name": "m", "source": "s", "opens": "../x", "weights_sha256": "SHA",
        "files": [{"name": "../x", "size_bytes": 1, "sha256": "SHA", "modified_ns": 0}]}"#;
    let hostile = hostile.replace("SHA", &sha(b"12345"));
    for record in ["", "{}", "[1", hostile.as_str()] {
        let place = Place::new();
        let store = filled(&place, b"12345");
        fs::write(place.home("models/m/manifest.json"), record).unwrap();
        let results = [
            get(&store),
            store.path("m").map(drop),
            store.verify("m", &mut NoProgress).map(drop),
        ];
        for result in results {
            let error = result.unwrap_err().to_string();
            assert!(
                error.contains("manifest.json: the record is unreadable: "),
                "for {record}: {error}"
            );
        }
        assert!(
            store
                .get("m", SourcePolicy::Any, &mut NoProgress)
                .is_ok_and(|model| !model.was_cached)
        );
    }
}

#[test]
fn removing_frees_everything_of_the_model() {
    let place = Place::new();
    let store = filled(&place, b"12345");
    let record_bytes = fs::metadata(place.home("models/m/manifest.json")).unwrap().len();
    for dir in ["partial/m", "rejected/m", "models/other"] {
        fs::create_dir_all(place.home(dir)).unwrap();
        fs::write(place.home(dir).join("x"), b"1234567").unwrap();
    }
    assert_eq!(
        store.remove("m", &mut NoProgress).unwrap(),
        record_bytes + 5 + 7 + 7
    );
    assert!(matches!(
        store.remove("m", &mut NoProgress),
        Err(StoreError::NotPresent { .. })
    ));
    assert!(place.home("models/other/x").exists() && !place.home("models/m").exists());
}
