//! llama.cpp's super-blocks of 256 elements, whose sub-blocks' scales are quantised too: `Q4_K`, `Q5_K`, `Q6_K`.
//! Knows one super-block at a time.

use super::half_at;

/// Elements per super-block.
const LEN: usize = 256;

/// `value = scale * s_j * q - min * m_j` for sub-block `j` of 32.
///
/// Block: scale f16, min f16, 12 bytes of 6-bit pairs `(s_j, m_j)`, 128 bytes of 4-bit pairs.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; LEN]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let scales = sub_scales(block[4..16].as_array().expect("12 bytes"));
    let (pairs, _) = block[16..].as_chunks::<32>();
    let (targets, _) = out.as_chunks_mut::<64>();
    for (j, (pairs, target)) in pairs.iter().zip(targets).enumerate() {
        let [(s0, m0), (s1, m1)] = [scales[2 * j], scales[2 * j + 1]].map(|(s, m)| (scale * s, min * m));
        let (low, high) = target.split_at_mut(32);
        for ((&pair, low), high) in pairs.iter().zip(low).zip(high) {
            *low = s0 * f32::from(pair & 0xf) - m0;
            *high = s1 * f32::from(pair >> 4) - m1;
        }
    }
}

/// As [`q4_k`] with fifth bits: bit `j` of byte `l` of 32 belongs to element `l` of sub-block `j`.
///
/// Block: scale f16, min f16, 12 bytes of 6-bit pairs, 32 bytes of fifth bits, 128 bytes of 4-bit pairs.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; LEN]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let scales = sub_scales(block[4..16].as_array().expect("12 bytes"));
    let fifth: &[u8; 32] = block[16..48].as_array().expect("32 bytes");
    let (pairs, _) = block[48..].as_chunks::<32>();
    let (targets, _) = out.as_chunks_mut::<64>();
    for (j, (pairs, target)) in pairs.iter().zip(targets).enumerate() {
        let [(s0, m0), (s1, m1)] = [scales[2 * j], scales[2 * j + 1]].map(|(s, m)| (scale * s, min * m));
        let (low, high) = target.split_at_mut(32);
        for (((&pair, &fifth), low), high) in pairs.iter().zip(fifth).zip(low).zip(high) {
            let bits = fifth >> (2 * j);
            *low = s0 * f32::from(pair & 0xf | (bits & 1) << 4) - m0;
            *high = s1 * f32::from(pair >> 4 | (bits & 2) << 3) - m1;
        }
    }
}

/// `value = scale * s_j * (q - 32)` for sub-block `j` of 16.
///
/// Block: 128 bytes of 4-bit pairs, 64 bytes of upper 2-bit quadruples, 16 signed bytes `s_j`, scale f16.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; LEN]) {
    let scale = half_at(block, 208);
    let (lower, _) = block[..128].as_chunks::<64>();
    let (upper, _) = block[128..192].as_chunks::<32>();
    let (scales, _) = block[192..208].as_chunks::<8>();
    let (targets, _) = out.as_chunks_mut::<128>();
    for (((lower, upper), scales), target) in lower.iter().zip(upper).zip(scales).zip(targets) {
        let scales = scales.map(|s| scale * f32::from(s.cast_signed()));
        // Sub-blocks of 16 within each quarter of 32 elements.
        for half in 0..2 {
            let at = 16 * half;
            for l in at..at + 16 {
                let (a, b, bits) = (lower[l], lower[l + 32], upper[l]);
                let value = |low: u8, high: u8| f32::from((low | (high & 3) << 4).cast_signed() - 32);
                target[l] = scales[half] * value(a & 0xf, bits);
                target[l + 32] = scales[half + 2] * value(b & 0xf, bits >> 2);
                target[l + 64] = scales[half + 4] * value(a >> 4, bits >> 4);
                target[l + 96] = scales[half + 6] * value(b >> 4, bits >> 6);
            }
        }
    }
}

/// The eight pairs of 6-bit scale and minimum: the first four lie in the low bits of bytes 0-3 and 4-7; the others
/// have their low four bits in bytes 8-11 and their upper two in the top bits of bytes 0-7.
fn sub_scales(packed: &[u8; 12]) -> [(f32, f32); 8] {
    std::array::from_fn(|j| {
        let (scale, min) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            let both = packed[j + 4];
            (
                both & 0xf | packed[j - 4] >> 6 << 4,
                both >> 4 | packed[j] >> 6 << 4,
            )
        };
        (f32::from(scale), f32::from(min))
    })
}
