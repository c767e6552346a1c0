//! Dequantised values, bit for bit those of llama.cpp's own Python implementation (`dev/dequantised.py`).

use std::collections::BTreeMap;

use trimtab_checkpoint::{Dtype, dequantise};

#[derive(serde::Deserialize)]
struct Case {
    bytes: String,
    values: String,
}

fn cases() -> BTreeMap<String, Case> {
    serde_json::from_str(include_str!("dequantised.json")).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

#[test]
fn values_equal_the_published_implementation_bit_for_bit() {
    let cases = cases();
    for dtype in Dtype::ALL {
        let case = &cases[dtype.name()];
        let expected: Vec<u32> = unhex(&case.values)
            .chunks_exact(4)
            .map(|value| u32::from_le_bytes(value.try_into().unwrap()))
            .collect();
        let mut got = vec![0.0; expected.len()];
        dequantise(dtype, &unhex(&case.bytes), &mut got);
        let got: Vec<u32> = got.into_iter().map(f32::to_bits).collect();
        assert_eq!(got, expected, "{dtype}");
    }
}

#[test]
fn scales_that_are_not_finite_stay_in_their_block() {
    for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.block_len() > 1) {
        let mut bytes = vec![0x11; 2 * dtype.block_bytes()];
        let scale_at = if dtype == Dtype::Q6K { 208 } else { 0 };
        bytes[scale_at..scale_at + 2].copy_from_slice(&[0x00, 0x7e]);
        let mut got = vec![0.0; 2 * dtype.block_len()];
        dequantise(dtype, &bytes, &mut got);
        let (first, second) = got.split_at(dtype.block_len());
        assert!(first.iter().all(|value| value.is_nan()), "{dtype}");
        assert!(second.iter().all(|value| value.is_finite()), "{dtype}");
    }
}
