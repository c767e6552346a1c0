//! safetensors files and indices that lie, and what is said about each.

use std::fs;

use trimtab_checkpoint::Checkpoint;

use crate::files::{check as check_result, f32_bytes, safetensors, valid_safetensors};

fn check(file: Vec<u8>, expect: &str) {
    let result = Checkpoint::from_safetensors_bytes(b"{}".to_vec(), vec![file]);
    check_result(result, &format!("model.safetensors: {expect}"));
}

fn check_entries(header: &str, data_len: usize, expect: &str) {
    check(safetensors(header, &vec![0; data_len]), expect);
}

#[test]
fn headers() {
    check(
        vec![1, 2, 3],
        "header length at byte 0 needs 8 bytes, but the file has only 3 left",
    );
    check(
        u64::MAX.to_le_bytes().to_vec(),
        "header length is 18446744073709551615, expected at most 100000000",
    );
    check(
        [&100_u64.to_le_bytes()[..], b"{}"].concat(),
        "header at byte 8 needs 100 bytes, but the file has only 2 left",
    );
    check_entries(
        "[]",
        0,
        "header is not the JSON expected: invalid type: sequence, expected an object at line 1 column 0",
    );
    check_entries(
        "{",
        0,
        "header is not the JSON expected: EOF while parsing an object at line 1 column 1",
    );
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    check_entries(
        &deep,
        0,
        "header is not the JSON expected: recursion limit exceeded at line 1 column 132",
    );
}

#[test]
fn entries() {
    let t = |entry: &str| format!(r#"{{"t":{entry}}}"#);
    check_entries(
        &t(r#"{"dtype":"F32","shape":[1]}"#),
        4,
        r#"header entry "t" is not the JSON expected: missing field `data_offsets`"#,
    );
    check_entries(
        &t(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#),
        4,
        r#"header entry "t" is not the JSON expected: invalid value: integer `-1`, expected usize"#,
    );
    check_entries(
        &t(r#"{"dtype":"I64","shape":[1],"data_offsets":[0,8]}"#),
        8,
        r#"tensor "t" is of type "I64", expected one of F32, F16, BF16"#,
    );
    check_entries(
        &t(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#),
        4,
        r#"shape of tensor "t" is [4294967296, 4294967296], expected fewer than 2^64 bytes"#,
    );
    check_entries(
        &t(r#"{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}"#),
        0,
        r#"shape of tensor "t" is [4294967296, 4294967296, 0], expected fewer than 2^64 bytes"#,
    );
    check_entries(
        &t(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#),
        4,
        r#"data_offsets of tensor "t" is [4, 0], expected ascending and at most the 4 bytes of data"#,
    );
    check_entries(
        &t(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,8]}"#),
        4,
        r#"data_offsets of tensor "t" is [0, 8], expected ascending and at most the 4 bytes of data"#,
    );
    check_entries(
        &t(r#"{"dtype":"F16","shape":[1],"data_offsets":[0,4]}"#),
        4,
        r#"data_offsets of tensor "t" is [0, 4], expected 2 bytes apart for F16 of shape [1]"#,
    );
}

#[test]
fn places_and_names() {
    let entry = |name: &str, start: usize| {
        format!(
            r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{}]}}"#,
            start + 4
        )
    };
    check_entries(
        &format!("{{{},{}}}", entry("t", 0), entry("t", 4)),
        8,
        r#"two tensors are named "t""#,
    );
    check_entries(
        &format!("{{{},{}}}", entry("t", 0), entry("u", 2)),
        6,
        r#"the data of tensors "t" and "u" overlap at byte 117"#,
    );
    check_entries(
        &format!("{{{},{}}}", entry("t", 0), entry("u", 6)),
        10,
        r#"start of tensor "u" is 6, expected 4, so that no bytes lie between tensors"#,
    );
    check_entries(
        &format!("{{{}}}", entry("t", 0)),
        5,
        "file length is 67, expected 66, the end of the last tensor",
    );
}

#[test]
fn shards() {
    let shard = |name: &str| {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        safetensors(&header, &f32_bytes(&[1.0]))
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let check = |index: &str, expect: &str| {
        write("model.safetensors.index.json", index.as_bytes());
        let path = folder.path().join("model.safetensors.index.json");
        check_result(
            Checkpoint::open(folder.path()),
            &format!("{}: {expect}", path.display()),
        );
    };
    write("config.json", b"{}");
    write("one.safetensors", &shard("a"));
    write("two.safetensors", &shard("b"));
    let outside = "expected the name of a file in the same folder";
    for name in [
        "../one.safetensors",
        "/etc/passwd",
        "",
        ".",
        "x/one.safetensors",
        "c:one",
    ] {
        let index = format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#);
        check(
            &index,
            &format!(r#"weight_map file of tensor "a" is {name:?}, {outside}"#),
        );
    }
    check(
        r#"{"metadata":{}}"#,
        "index is not the JSON expected: missing field `weight_map` at line 1 column 15",
    );
    check(
        r#"{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}"#,
        r#"two weight_map entries are named "a""#,
    );
    check(
        r#"{"weight_map":{"a":"one.safetensors","b":"one.safetensors"}}"#,
        r#"weight_map file of tensor "b" is "one.safetensors", expected the file that has it"#,
    );
    write("two.safetensors", &shard("a"));
    let index = r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#;
    write("model.safetensors.index.json", index.as_bytes());
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.ends_with(r#"two.safetensors: two tensors are named "a""#),
        "{error}"
    );
}

#[test]
fn configurations() {
    let result = Checkpoint::from_safetensors_bytes(b"{".to_vec(), vec![valid_safetensors()]);
    let expect = "configuration is not the JSON expected: EOF while parsing an object at line 1 column 1";
    check_result(result, &format!("config.json: {expect}"));
}
