//! GGUF files that lie, and what is said about each.

use trimtab_checkpoint::Checkpoint;

use crate::files::{GgufWriter, check as check_result, f32_bytes, text, valid_gguf};

fn check(bytes: Vec<u8>, expect: &str) {
    check_result(
        Checkpoint::from_gguf_bytes(bytes),
        &format!("model.gguf: {expect}"),
    );
}

/// An empty file of version 3.
fn gguf() -> GgufWriter {
    GgufWriter::new(3)
}

#[test]
fn headers() {
    check(
        b"GG".to_vec(),
        "magic at byte 0 needs 4 bytes, but the file has only 2 left",
    );
    check(
        b"GGML\x03\0\0\0".to_vec(),
        r#"magic is [71, 71, 77, 76], expected "GGUF""#,
    );
    check(
        b"GGUF\x03\0".to_vec(),
        "version at byte 4 needs 4 bytes, but the file has only 2 left",
    );
    check(GgufWriter::new(1).bytes(), "version is 1, expected 2 or 3");
    check(GgufWriter::new(4).bytes(), "version is 4, expected 2 or 3");
    check(
        GgufWriter::new(3 << 24).bytes(),
        "version is 3, expected a little-endian file (this one is big-endian)",
    );
    check(
        gguf().with_counts(u64::MAX, 0).bytes(),
        "number of tensors is 18446744073709551615, but the 8 bytes left hold at most 0",
    );
    check(
        gguf().u32("a", 1).with_counts(0, 3).bytes(),
        "number of metadata entries is 3, but the 17 bytes left hold at most 1",
    );
}

#[test]
fn metadata() {
    check(
        gguf().value("", 7, &[1, 0, 0, 0]).bytes(),
        "key of metadata entry 0 is 0 bytes long, expected between 1 and 65535 bytes long",
    );
    check(
        gguf().value(&"k".repeat(65_536), 7, &[1]).bytes(),
        "key of metadata entry 0 is 65536 bytes long, expected between 1 and 65535 bytes long",
    );
    check(
        gguf().u32("a", 1).u32("b", 1).u32("a", 2).bytes(),
        r#"two metadata entries are named "a""#,
    );
    check(
        gguf().value("a", 13, &[0; 8]).bytes(),
        r#"type of metadata "a" is 13, expected between 0 and 12"#,
    );
    check(
        gguf().value("ab", 7, &[2]).bytes(),
        r#"metadata "ab" is 2, expected a boolean, 0 or 1"#,
    );
    check(
        gguf().value("a", 10, &[0; 4]).bytes(),
        r#"metadata "a" at byte 37 needs 8 bytes, but the file has only 4 left"#,
    );
    check(
        gguf().value("a", 8, &u64::MAX.to_le_bytes()).bytes(),
        r#"metadata "a" at byte 45 needs 18446744073709551615 bytes, but the file has only 0 left"#,
    );
    check(
        gguf()
            .value("a", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, b'b'])
            .bytes(),
        "metadata \"a\" is \"\u{fffd}b\", expected UTF-8 text",
    );
    let long = format!("{}\n", "n".repeat(300));
    let shown = "n".repeat(80);
    check(
        gguf().value(&long, 99, &[0; 8]).bytes(),
        &format!("type of metadata \"{shown}\"... (301 bytes) is 99, expected between 0 and 12"),
    );
}

#[test]
fn arrays() {
    check(
        gguf().array("a", 9, 0, &[]).bytes(),
        r#"element type of metadata "a" is 9, expected a type between 0 and 12 other than 9, array"#,
    );
    check(
        gguf().array("a", 5, 1 << 62, &[0; 8]).bytes(),
        r#"length of metadata "a" is 4611686018427387904, but the 8 bytes left hold at most 2"#,
    );
    check(
        gguf()
            .array("a", 8, 2, &[text("x"), u64::MAX.to_le_bytes().to_vec()].concat())
            .bytes(),
        r#"element 1 of metadata "a" at byte 66 needs 18446744073709551615 bytes, but the file has only 0 left"#,
    );
}

#[test]
fn tensors() {
    let one = |axes: &[u64], kind, offset| gguf().tensor_at("t", axes, kind, offset).bytes();
    check(
        one(&[], 0, 0),
        r#"number of axes of tensor "t" is 0, expected between 1 and 4"#,
    );
    check(
        gguf().tensor_at("t", &[1; 5], 0, 0).bytes(),
        r#"number of axes of tensor "t" is 5, expected between 1 and 4"#,
    );
    check(
        one(&[4, 0], 0, 0),
        r#"axis 1 of tensor "t" is 0, expected between 1 and 2^63 - 1"#,
    );
    check(
        one(&[1 << 63], 0, 0),
        r#"axis 0 of tensor "t" is 9223372036854775808, expected between 1 and 2^63 - 1"#,
    );
    check(
        one(&[1 << 40, 1 << 40], 0, 0),
        r#"shape of tensor "t" is [1099511627776, 1099511627776], expected fewer than 2^64 bytes"#,
    );
    check(
        one(&[33], 8, 0),
        r#"shape of tensor "t" is [33], expected rows of whole blocks of 32 elements for Q8_0"#,
    );
    let supported = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";
    check(
        one(&[256], 16, 0),
        &format!(r#"tensor "t" is of type IQ2_XXS (16), expected one of {supported}"#),
    );
    check(
        one(&[256], 999, 0),
        &format!(r#"tensor "t" is of type 999, expected one of {supported}"#),
    );
    check(
        one(&[4], 0, 8),
        r#"offset of tensor "t" is 8, expected a multiple of 32"#,
    );
    check(
        one(&[4], 0, 32),
        r#"data of tensor "t" at byte 96 needs 16 bytes, but the file has only 0 left"#,
    );
    check(
        one(&[4], 0, u64::MAX - 31),
        r#"data of tensor "t" at byte 18446744073709551615 needs 16 bytes, but the file has only 0 left"#,
    );
}

#[test]
fn names_and_places() {
    let data = f32_bytes(&[0.0; 16]);
    check(
        gguf()
            .tensor("t", &[16], 0, &data)
            .tensor("t", &[16], 0, &data)
            .bytes(),
        r#"two tensors are named "t""#,
    );
    check(
        gguf()
            .tensor("t", &[16], 0, &data)
            .tensor_at("u", &[4], 0, 32)
            .bytes(),
        r#"the data of tensors "t" and "u" overlap at byte 128"#,
    );
    check(
        valid_gguf().tensor_at("again", &[1], 0, 0).bytes(),
        r#"the data of tensors "again" and "matrix" overlap at byte 672"#,
    );
    let expected = "expected a power of two of type u32";
    check(
        gguf().u32("general.alignment", 0).bytes(),
        &format!(r#"metadata "general.alignment" is the integer 0, {expected}"#),
    );
    check(
        gguf().u32("general.alignment", 48).bytes(),
        &format!(r#"metadata "general.alignment" is the integer 48, {expected}"#),
    );
    check(
        gguf().text("general.alignment", "32").bytes(),
        &format!(r#"metadata "general.alignment" is a text, {expected}"#),
    );
    check(
        gguf()
            .value("general.alignment", 10, &(1_u64 << 40).to_le_bytes())
            .bytes(),
        &format!(r#"metadata "general.alignment" is the integer 1099511627776, {expected}"#),
    );
}
