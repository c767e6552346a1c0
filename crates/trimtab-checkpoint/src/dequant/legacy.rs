//! llama.cpp's blocks of 32 elements with one scale: `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0`. Knows one block at a time.
//!
//! Element `j` of the first half of a block lies in the low four bits of byte `j`, element `j` of the second half in
//! the high four; the fifth bits are the bits of one `u32` in order of element.

use super::half_at;

/// Elements per block.
const LEN: usize = 32;
const HALF: usize = LEN / 2;

/// `value = scale * (q - 8)`; block: scale f16, 16 bytes of 4-bit pairs.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; LEN]) {
    let scale = half_at(block, 0);
    let (low, high) = out.split_at_mut(HALF);
    for ((&pair, low), high) in block[2..].iter().zip(low).zip(high) {
        *low = (i32::from(pair & 0xf) - 8) as f32 * scale;
        *high = (i32::from(pair >> 4) - 8) as f32 * scale;
    }
}

/// `value = scale * q + min`; block: scale f16, min f16, 16 bytes of 4-bit pairs.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; LEN]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let (low, high) = out.split_at_mut(HALF);
    for ((&pair, low), high) in block[4..].iter().zip(low).zip(high) {
        *low = f32::from(pair & 0xf) * scale + min;
        *high = f32::from(pair >> 4) * scale + min;
    }
}

/// `value = scale * (q - 16)`; block: scale f16, 32 fifth bits, 16 bytes of 4-bit pairs.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; LEN]) {
    let scale = half_at(block, 0);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let (low, high) = out.split_at_mut(HALF);
    for (j, ((&pair, low), high)) in block[6..].iter().zip(low).zip(high).enumerate() {
        let (first, second) = five_bits(pair, fifth, j);
        *low = (first - 16) as f32 * scale;
        *high = (second - 16) as f32 * scale;
    }
}

/// `value = scale * q + min`; block: scale f16, min f16, 32 fifth bits, 16 bytes of 4-bit pairs.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; LEN]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    let (low, high) = out.split_at_mut(HALF);
    for (j, ((&pair, low), high)) in block[8..].iter().zip(low).zip(high).enumerate() {
        let (first, second) = five_bits(pair, fifth, j);
        *low = first as f32 * scale + min;
        *high = second as f32 * scale + min;
    }
}

/// Elements `j` and `j + 16` of a block, from their low bits and the word of fifth bits.
fn five_bits(pair: u8, fifth: u32, j: usize) -> (i32, i32) {
    let first = u32::from(pair & 0xf) | ((fifth >> j) & 1) << 4;
    let second = u32::from(pair >> 4) | ((fifth >> (j + HALF)) & 1) << 4;
    (first as i32, second as i32)
}

/// `value = scale * q`; block: scale f16, 32 signed bytes.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; LEN]) {
    let scale = half_at(block, 0);
    for (&stored, value) in block[2..].iter().zip(out) {
        *value = f32::from(stored.cast_signed()) * scale;
    }
}
