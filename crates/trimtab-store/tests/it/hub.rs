//! Models from a hub that answers well, badly or not to the end.

use std::fs;

use trimtab_store::{HubConfig, ModelFormat, NoProgress, SourceError, SourcePolicy, StoreError, StoredModel};

use crate::fakes::{Place, file, hub_at, hub_source, sha, table};
use crate::server::{Answer, Request, Server};

const CONTENT: &[u8] = b"0123456789";

fn one_file() -> String {
    table(&[file("m.gguf", CONTENT)], &[hub_source("sub/m.gguf")])
}

fn get(place: &Place, server: &Server) -> Result<StoredModel, StoreError> {
    let store = place.store(&one_file()).with_hub(hub_at(&server.address));
    store.get("m", SourcePolicy::Any, &mut NoProgress)
}

fn failure(result: Result<StoredModel, StoreError>) -> SourceError {
    match result.expect_err("was fetched") {
        StoreError::AllSourcesFailed { mut failures, .. } => failures.remove(0).error,
        other => panic!("got {other}"),
    }
}

/// Leaves what a killed call would have left.
fn leave_part(place: &Place, content: &[u8]) {
    fs::create_dir_all(place.home("partial/m")).unwrap();
    fs::write(place.home("partial/m/m.gguf.part"), content).unwrap();
}

fn part(place: &Place) -> Vec<u8> {
    fs::read(place.home("partial/m/m.gguf.part")).unwrap()
}

fn range_starts(server: &Server) -> Vec<Option<usize>> {
    server
        .requests()
        .iter()
        .filter(|request| request.line.starts_with("GET"))
        .map(Request::range_start)
        .collect()
}

#[test]
fn a_file_is_fetched_once() {
    let (place, server) = (
        Place::new(),
        Server::start(|request, _| Answer::file(request, CONTENT)),
    );
    let model = get(&place, &server).unwrap();
    assert_eq!(fs::read(&model.path).unwrap(), CONTENT);
    assert_eq!(
        (model.source.as_str(), model.was_cached, model.format),
        ("hub o/n@abc", false, ModelFormat::Gguf)
    );
    assert!(get(&place, &server).unwrap().was_cached);
    assert_eq!(
        server.lines(),
        [
            "HEAD /o/n/resolve/abc/sub/m.gguf",
            "GET /o/n/resolve/abc/sub/m.gguf"
        ]
    );
}

#[test]
fn a_part_is_continued_by_a_range() {
    let (place, server) = (
        Place::new(),
        Server::start(|request, _| Answer::file(request, CONTENT)),
    );
    leave_part(&place, &CONTENT[..4]);
    assert_eq!(fs::read(get(&place, &server).unwrap().path).unwrap(), CONTENT);
    assert_eq!(range_starts(&server), [Some(4)]);
}

#[test]
fn a_server_that_ignores_ranges_sends_the_whole_again() {
    let (place, server) = (Place::new(), Server::start(|_, _| Answer::ok(CONTENT)));
    leave_part(&place, &CONTENT[..4]);
    assert_eq!(fs::read(get(&place, &server).unwrap().path).unwrap(), CONTENT);
    assert_eq!(range_starts(&server), [Some(4)]);
}

#[test]
fn a_range_other_than_the_one_asked_for_is_refused() {
    let server = Server::start(|_, _| Answer {
        status: 206,
        headers: vec![("content-range", "bytes 6-9/10".to_owned())],
        body: CONTENT[6..].to_vec(),
        cut_at: None,
    });
    let place = Place::new();
    leave_part(&place, &CONTENT[..4]);
    let error = failure(get(&place, &server));
    assert!(
        error.to_string().contains("asked for bytes from 4"),
        "got {error}"
    );
    assert_eq!(part(&place), &CONTENT[..4]);
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    // Three bytes an answer: fruitful attempts are not counted, however many it takes.
    let server = Server::start(|request, _| Answer::file(request, CONTENT).cut(3));
    let place = Place::new();
    assert_eq!(fs::read(get(&place, &server).unwrap().path).unwrap(), CONTENT);
    assert_eq!(range_starts(&server), [None, Some(3), Some(6), Some(9)]);
}

#[test]
fn a_transfer_that_never_ends_is_given_up_and_kept() {
    let server = Server::start(|request, _| match request.range_start() {
        Some(_) => Answer::status(503),
        None => Answer::ok(CONTENT).cut(7),
    });
    let place = Place::new();
    let result = get(&place, &server);
    let text = result.as_ref().unwrap_err().to_string();
    assert!(
        text.contains("7 bytes are kept") && text.contains("answered 503"),
        "got {text}"
    );
    assert!(matches!(
        failure(result),
        SourceError::Refused { status: 503, .. }
    ));
    assert_eq!(part(&place), &CONTENT[..7]);
    assert_eq!(
        range_starts(&server).len(),
        1 + HubConfig::default().max_fruitless_attempts as usize
    );
}

#[test]
fn a_server_that_starts_over_for_ever_is_given_up() {
    let server = Server::start(|_, _| Answer::ok(CONTENT).cut(7));
    let error = failure(get(&Place::new(), &server));
    assert!(matches!(error, SourceError::Unreachable { .. }), "got {error}");
}

#[test]
fn wrong_content_is_kept_apart_and_never_appears() {
    let (place, server) = (Place::new(), Server::start(|_, _| Answer::ok(b"0123456788")));
    let SourceError::HashMismatch {
        expected,
        got,
        kept_at,
        ..
    } = failure(get(&place, &server))
    else {
        panic!("another error")
    };
    assert_eq!(
        (expected.to_string(), got.to_string()),
        (sha(CONTENT), sha(b"0123456788"))
    );
    assert_eq!(fs::read(kept_at).unwrap(), b"0123456788");
    assert!(!place.home("models/m").exists() && !place.home("partial/m/m.gguf.part").exists());
}

#[test]
fn another_file_on_the_hub_is_noticed_before_its_first_byte() {
    let server = Server::start(|_, _| Answer {
        headers: vec![("x-linked-etag", format!("\"{}\"", sha(b"other")))],
        ..Answer::ok(CONTENT)
    });
    let error = failure(get(&Place::new(), &server));
    assert!(error.to_string().contains(&sha(b"other")), "got {error}");
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn another_size_is_refused_before_it_is_read() {
    for body in [&b"01234567890"[..], b"012345678"] {
        let server = Server::start(move |_, _| Answer::ok(body));
        let error = failure(get(&Place::new(), &server));
        let got = body.len() as u64;
        assert!(
            matches!(error, SourceError::SizeMismatch { expected_bytes: 10, got_bytes, .. } if got_bytes == got),
            "got {error}"
        );
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (status, remedy) in [
        (404, "check the repository"),
        (401, "HF_TOKEN"),
        (403, "HF_TOKEN"),
        (410, "410"),
    ] {
        let server = Server::start(move |_, _| Answer::status(status));
        let error = failure(get(&Place::new(), &server));
        assert!(error.to_string().contains(remedy), "for {status}: {error}");
        assert_eq!(server.lines().len(), 1, "{status} was asked again");
    }
}

#[test]
fn redirects_are_followed_without_the_token() {
    let storage = Server::start(|request, _| Answer::file(request, CONTENT));
    // Another host name for the same machine.
    let target = format!("{}/blob", storage.address.replace("127.0.0.1", "localhost"));
    let hub = Server::start(move |_, _| Answer::redirect(target.clone()));
    let place = Place::new();
    let config = HubConfig {
        token: Some("secret".to_owned()),
        ..hub_at(&hub.address)
    };
    let store = place.store(&one_file()).with_hub(config);
    let model = store.get("m", SourcePolicy::Any, &mut NoProgress).unwrap();
    assert_eq!(fs::read(model.path).unwrap(), CONTENT);
    let tokens = |server: &Server| -> Vec<_> {
        server
            .requests()
            .iter()
            .map(|request| request.header("authorization").map(str::to_owned))
            .collect()
    };
    assert_eq!(tokens(&hub), vec![Some("Bearer secret".to_owned()); 2]);
    assert_eq!(tokens(&storage), [None]);
}

#[test]
fn circles_of_redirects_end() {
    let server = Server::start(|request, _| {
        Answer::redirect(request.line.rsplit(' ').next().unwrap_or_default().to_owned())
    });
    let error = failure(get(&Place::new(), &server));
    assert!(matches!(error, SourceError::Unreachable { .. }), "got {error}");
}

#[test]
fn the_cache_of_the_hubs_own_tools_is_used_if_its_content_is_right() {
    for (content, gets) in [(CONTENT, 0), (b"9876543210", 1)] {
        let (place, server) = (
            Place::new(),
            Server::start(|request, _| Answer::file(request, CONTENT)),
        );
        let snapshot = place.path("hub/models--o--n/snapshots/abc/sub");
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(snapshot.join("m.gguf"), content).unwrap();
        let config = HubConfig {
            cache_dir: Some(place.path("hub")),
            ..hub_at(&server.address)
        };
        let store = place.store(&one_file()).with_hub(config);
        let model = store.get("m", SourcePolicy::Any, &mut NoProgress).unwrap();
        assert_eq!(fs::read(model.path).unwrap(), CONTENT);
        assert_eq!(range_starts(&server).len(), gets);
    }
}

/// Name, content, and whether it is a large file, of which the hub gives the hash.
type RepositoryFile = (&'static str, &'static [u8], bool);

/// A hub with the one repository `o/n`, at the commit `c0ffee`.
fn repository(files: Vec<RepositoryFile>) -> Server {
    Server::start(move |request, _| {
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        if path.starts_with("/api/models/o/n/revision/") {
            let describe = |(name, content, is_large): &RepositoryFile| {
                let lfs = if *is_large {
                    format!(r#", "lfs": {{"sha256": "{}"}}"#, sha(content))
                } else {
                    String::new()
                };
                format!(r#"{{"rfilename": "{name}", "size": {}{lfs}}}"#, content.len())
            };
            let siblings: Vec<String> = files.iter().map(describe).collect();
            let body = format!(
                r#"{{"sha": "c0ffee", "siblings": [{}], "more": 1}}"#,
                siblings.join(", ")
            );
            return Answer::ok(body.as_bytes());
        }
        let found = files
            .iter()
            .find(|(name, _, _)| path == format!("/o/n/resolve/c0ffee/{name}"));
        found.map_or_else(
            || Answer::status(404),
            |(_, content, _)| Answer::file(request, content),
        )
    })
}

fn get_repository(place: &Place, server: &Server, spec: &str) -> Result<StoredModel, StoreError> {
    let store = place.store(&one_file()).with_hub(hub_at(&server.address));
    store.get(spec, SourcePolicy::Any, &mut NoProgress)
}

#[test]
fn a_repository_gives_its_best_gguf_at_one_commit() {
    let server = repository(vec![
        ("n-Q4_0.gguf", b"four", true),
        ("n-Q8_0.gguf", b"eight", true),
    ]);
    let place = Place::new();
    let model = get_repository(&place, &server, "o/n").unwrap();
    assert_eq!(fs::read(&model.path).unwrap(), b"eight");
    assert_eq!(
        (model.name.as_str(), model.source.as_str()),
        ("o/n", "hub o/n@c0ffee")
    );
    let other = get_repository(&place, &server, "o/n:Q4_0").unwrap();
    assert_eq!(
        (fs::read(&other.path).unwrap().as_slice(), other.name.as_str()),
        (&b"four"[..], "o/n:Q4_0")
    );
    let before = server.lines().len();
    assert!(get_repository(&place, &server, "o/n").unwrap().was_cached);
    assert_eq!(
        server.lines().len(),
        before,
        "the hub was asked about a model in the store"
    );
    let listed: Vec<String> = place
        .store(&one_file())
        .list()
        .into_iter()
        .map(|model| model.name)
        .collect();
    assert_eq!(listed, ["m", "o/n", "o/n:Q4_0"]);
}

#[test]
fn a_repository_of_safetensors_becomes_a_folder() {
    let shards = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let server = repository(vec![
        ("config.json", b"{}", false),
        (shards[0], b"one", true),
        (shards[1], b"two", true),
        ("model.safetensors.index.json", b"{}", false),
        ("README.md", b"no", false),
    ]);
    let place = Place::new();
    let model = get_repository(&place, &server, "o/n").unwrap();
    assert_eq!(
        (model.format, model.files.len()),
        (ModelFormat::SafetensorsFolder, 4)
    );
    let lines = format!("{}  {}\n{}  {}\n", sha(b"one"), shards[0], sha(b"two"), shards[1]);
    assert_eq!(model.weights_sha256.to_string(), sha(lines.as_bytes()));
    // The same folder named by its path has the same hash.
    let path = model.path.to_str().unwrap();
    assert_eq!(
        get_repository(&place, &server, path).unwrap().weights_sha256,
        model.weights_sha256
    );
}

#[test]
fn repositories_without_a_model_or_with_tricks_are_refused() {
    let cases: [(Vec<RepositoryFile>, &str); 3] = [
        (vec![("README.md", b"no", false)], "no model file"),
        (vec![("../../../evil-Q8_0.gguf", b"evil", true)], "file name"),
        (vec![("n-IQ2_XXS.gguf", b"two", true)], "n-IQ2_XXS.gguf"),
    ];
    for (files, expect) in cases {
        let error = failure(get_repository(&Place::new(), &repository(files), "o/n"));
        assert!(error.to_string().contains(expect), "for {expect:?}: {error}");
    }
}

#[test]
fn answers_that_are_no_description_are_refused() {
    for body in ["", "[]", "<html>", r#"{"sha": 1}"#] {
        let server = Server::start(move |_, _| Answer::ok(body.as_bytes()));
        let error = failure(get_repository(&Place::new(), &server, "o/n"));
        assert!(
            matches!(error, SourceError::BadAnswer { .. }),
            "for {body:?}: {error}"
        );
    }
}
