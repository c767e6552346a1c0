//! llama2.c files that lie, and what is said about each.

use trimtab_checkpoint::{Checkpoint, parse_llama2c_tokenizer};

use crate::files::{LLAMA2C, LLAMA2C_FLOATS, check as check_result, llama2c};

fn check(bytes: Vec<u8>, expect: &str) {
    check_result(
        Checkpoint::from_llama2c_bytes(bytes),
        &format!("model.bin: {expect}"),
    );
}

/// The valid header with field `idx` replaced.
fn with(idx: usize, value: i32) -> Vec<u8> {
    let mut header = LLAMA2C;
    header[idx] = value;
    llama2c(header, LLAMA2C_FLOATS)
}

#[test]
fn headers() {
    check(
        vec![4, 0, 0, 0, 6],
        "hidden_dim at byte 4 needs 4 bytes, but the file has only 1 left",
    );
    check(with(0, 0), "dim is 0, expected a positive number");
    check(with(1, -6), "hidden_dim is -6, expected a positive number");
    check(
        with(2, i32::MIN),
        "n_layers is -2147483648, expected a positive number",
    );
    check(with(3, 3), "n_heads is 3, expected an even head width for dim 4");
    check(with(3, 4), "n_heads is 4, expected an even head width for dim 4");
    check(with(4, 3), "n_kv_heads is 3, expected a divisor of n_heads 2");
    check(with(5, 0), "vocab_size is 0, expected any other number");
    check(with(6, 0), "seq_len is 0, expected a positive number");
    check(
        b"24ka\x01\0\0\0".to_vec(),
        r#"magic is "ak42", expected a legacy file of llama2.c (version 0), which has none"#,
    );
}

#[test]
fn lengths() {
    let expect = "file length is 1171, expected 1172 bytes for Llama2cHeader { dim: 4, hidden_dim: 6, \
                  num_layers: 2, num_heads: 2, num_kv_heads: 1, vocab_len: 5, seq_len: 3, tied_head: true }";
    let mut short = llama2c(LLAMA2C, LLAMA2C_FLOATS);
    assert_eq!(short.len(), 1172);
    short.pop();
    check(short, expect);
    let largest = [i32::MAX - 1, i32::MAX, i32::MAX, 1, 1, i32::MIN, i32::MAX];
    let error = Checkpoint::from_llama2c_bytes(llama2c(largest, 1))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("model.bin: file length is 32, expected 277"),
        "{error}"
    );
}

#[test]
fn tokenizers() {
    let token = |len: u32, bytes: &[u8]| [&1.5_f32.to_le_bytes(), &len.to_le_bytes()[..], bytes].concat();
    let file = |tokens: &[Vec<u8>]| [&3_u32.to_le_bytes()[..], &tokens.concat()].concat();
    let check = |bytes: &[u8], vocab_len: usize, expect: &str| {
        assert_eq!(
            parse_llama2c_tokenizer(bytes, vocab_len).unwrap_err().to_string(),
            expect
        );
    };
    let two = file(&[token(1, b"a"), token(2, &[0xff, 0])]);
    assert_eq!(
        parse_llama2c_tokenizer(&two, 2).unwrap(),
        [(1.5, b"a".to_vec()), (1.5, vec![0xff, 0])]
    );
    check(
        &two[..3],
        2,
        "max_token_length at byte 0 needs 4 bytes, but the file has only 3 left",
    );
    check(
        &two,
        usize::MAX,
        "number of tokens is 18446744073709551615, but the 19 bytes left hold at most 2",
    );
    check(
        &two,
        1,
        "file length is 23, expected 13, the end of the last of 1 tokens",
    );
    check(
        &two[..22],
        2,
        "bytes of token 1 at byte 21 needs 2 bytes, but the file has only 1 left",
    );
    let long = file(&[token(4, b"abcd")]);
    check(
        &long,
        1,
        "length of token 0 is 4, expected at most max_token_length 3",
    );
    let huge = file(&[token(3, b"abc"), token(u32::MAX, b"")]);
    check(
        &huge,
        2,
        "length of token 1 is 4294967295, expected at most max_token_length 3",
    );
}
