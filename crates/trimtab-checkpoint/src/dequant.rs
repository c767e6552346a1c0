//! From stored blocks to `f32`, by llama.cpp's formulas in llama.cpp's order of operations.
//!
//! Every function works on whole blocks of fixed length, so that the inner loops have no bounds checks and vectorise.
//! Scales that are not finite give values that are not finite, as in llama.cpp. Knows no tensors and no files.

mod k_quants;
mod legacy;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::dtype::Dtype;

/// Writes the elements stored in `bytes` to `out`.
///
/// # Panics
/// If `out` is not whole blocks of `dtype`, or `bytes` not what they take.
pub fn dequantise(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % dtype.block_len(), 0, "whole blocks of {dtype}");
    assert_eq!(
        bytes.len(),
        dtype.row_bytes(out.len()),
        "bytes of {} {dtype}",
        out.len()
    );
    match dtype {
        Dtype::F32 => floats(bytes, out),
        Dtype::F16 => half_floats(bytes, out),
        Dtype::Bf16 => brain_floats(bytes, out),
        Dtype::Q4_0 => each_block(bytes, out, legacy::q4_0),
        Dtype::Q4_1 => each_block(bytes, out, legacy::q4_1),
        Dtype::Q5_0 => each_block(bytes, out, legacy::q5_0),
        Dtype::Q5_1 => each_block(bytes, out, legacy::q5_1),
        Dtype::Q8_0 => each_block(bytes, out, legacy::q8_0),
        Dtype::Q4K => each_block(bytes, out, k_quants::q4_k),
        Dtype::Q5K => each_block(bytes, out, k_quants::q5_k),
        Dtype::Q6K => each_block(bytes, out, k_quants::q6_k),
    }
}

/// Applies `convert` to each block of `BYTES` bytes and `LEN` elements.
fn each_block<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    convert: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, _) = bytes.as_chunks();
    let (targets, _) = out.as_chunks_mut();
    for (block, target) in blocks.iter().zip(targets) {
        convert(block, target);
    }
}

fn floats(bytes: &[u8], out: &mut [f32]) {
    for (stored, value) in bytes.as_chunks().0.iter().zip(out) {
        *value = f32::from_le_bytes(*stored);
    }
}

fn brain_floats(bytes: &[u8], out: &mut [f32]) {
    for (stored, value) in bytes.as_chunks().0.iter().zip(out) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*stored)) << 16);
    }
}

/// In groups, because the conversion looks up the machine's instructions once per call.
fn half_floats(bytes: &[u8], out: &mut [f32]) {
    const GROUP: usize = 64;
    let mut group = [f16::ZERO; GROUP];
    for (stored, values) in bytes.chunks(2 * GROUP).zip(out.chunks_mut(GROUP)) {
        let group = &mut group[..values.len()];
        for (stored, value) in stored.as_chunks().0.iter().zip(&mut *group) {
            *value = f16::from_le_bytes(*stored);
        }
        group.convert_to_f32_slice(values);
    }
}

/// The half-precision number at byte `at` of a block.
fn half_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
