//! Products of query rows with blocks of keys or values, written once over sixteen lanes.
//!
//! A score is `fma(query[d], key[d], sum)` for `d` rising from 0; an output adds `fma(prob[j], value[j], sum)` for keys
//! `j` rising. Both hold in every shape of tile, so that which rows share a tile changes no result.

use half::f16;

use crate::LANES;
use crate::aligned::Plain;
use crate::isa::Isa;
use crate::kv_cache::{BLOCK_LEN, Stored};
use crate::lanes::{Lanes, portable::Array};

/// A stored format that kernels read.
pub(super) trait Element: Stored + Plain + Send + Sync + 'static {
    /// Sixteen values, widened.
    ///
    /// # Safety
    /// They are readable, and the instruction set of `L` is available.
    unsafe fn load<L: Lanes>(ptr: *const Self) -> L;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(ptr: *const Self) -> L {
        // SAFETY: passed on.
        unsafe { L::load_f32(ptr) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(ptr: *const Self) -> L {
        // SAFETY: passed on.
        unsafe { L::load_f16(ptr) }
    }
}

/// Operands of [`scores`].
pub(super) struct ScoreArgs<'a, T> {
    pub(super) head_dim: usize,
    /// `[num_queries, head_dim]`.
    pub(super) queries: &'a [f32],
    /// One per block, `[head_dim, BLOCK_LEN]`.
    pub(super) keys: &'a [&'a [T]],
    /// `[num_queries, score_stride]` from the first block's first score on; receives [`BLOCK_LEN`] per block.
    pub(super) scores: &'a mut [f32],
    pub(super) score_stride: usize,
}

/// Operands of [`add_values`].
pub(super) struct ValueArgs<'a, T> {
    /// `[num_queries, prob_stride]` from the first block's first key on.
    pub(super) probs: &'a [f32],
    pub(super) prob_stride: usize,
    /// One per block, `[num_keys, value_stride]`; [`BLOCK_LEN`] keys in each if there are several blocks.
    pub(super) values: &'a [&'a [T]],
    pub(super) num_keys: usize,
    pub(super) value_stride: usize,
    /// `[num_queries, value_stride]`, added to.
    pub(super) out: &'a mut [f32],
}

/// Scores of all queries with all keys of some blocks.
pub(super) fn scores<T: Element>(isa: Isa, args: &mut ScoreArgs<'_, T>) {
    let num_queries = args.num_queries();
    assert!(
        args.keys
            .iter()
            .all(|keys| keys.len() == args.head_dim * BLOCK_LEN),
        "expected whole blocks"
    );
    let needed = (num_queries - 1) * args.score_stride + args.keys.len() * BLOCK_LEN;
    assert!(args.scores.len() >= needed, "expected room for all scores");
    // SAFETY: the operands have the lengths that `scores_tiles` relies on, and `isa` is available.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => scores_avx512(args),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => scores_avx2(args),
            _ => scores_tiles::<Array, T, 6, 1, 1>(args),
        }
    }
}

/// Adds to the outputs of all queries the values of some blocks, times their probabilities.
pub(super) fn add_values<T: Element>(isa: Isa, args: &mut ValueArgs<'_, T>) {
    let num_queries = args.num_queries();
    assert!(
        args.value_stride.is_multiple_of(LANES),
        "expected values padded to whole lanes"
    );
    assert!(
        args.values
            .iter()
            .all(|values| values.len() == args.num_keys * args.value_stride)
    );
    assert!(
        args.values.len() <= 1 || args.num_keys == BLOCK_LEN,
        "expected one block or whole blocks"
    );
    let needed = (num_queries - 1) * args.prob_stride + args.values.len() * args.num_keys;
    assert!(args.probs.len() >= needed, "expected all probabilities");
    // SAFETY: the operands have the lengths that `value_tiles` relies on, and `isa` is available.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Amx => add_values_avx512(args),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => add_values_avx2(args),
            _ => value_tiles::<Array, T, 6, 1, 1>(args),
        }
    }
}

impl<T> ScoreArgs<'_, T> {
    fn num_queries(&self) -> usize {
        self.queries.len() / self.head_dim
    }
}

impl<T> ValueArgs<'_, T> {
    fn num_queries(&self) -> usize {
        self.out.len() / self.value_stride
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn scores_avx512<T: Element>(args: &mut ScoreArgs<'_, T>) {
    // SAFETY: the caller's contract. 24 sums and two vectors of keys fill the 32 registers.
    unsafe { scores_tiles::<std::arch::x86_64::__m512, T, 12, 2, 4>(args) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scores_avx2<T: Element>(args: &mut ScoreArgs<'_, T>) {
    // SAFETY: the caller's contract. Sixteen lanes are two of 16 registers.
    unsafe { scores_tiles::<crate::lanes::avx2::Pair, T, 6, 1, 1>(args) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn add_values_avx512<T: Element>(args: &mut ValueArgs<'_, T>) {
    // SAFETY: the caller's contract.
    unsafe { value_tiles::<std::arch::x86_64::__m512, T, 12, 2, 4>(args) };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_values_avx2<T: Element>(args: &mut ValueArgs<'_, T>) {
    // SAFETY: the caller's contract.
    unsafe { value_tiles::<crate::lanes::avx2::Pair, T, 6, 1, 1>(args) };
}

/// Cuts `$total` queries into tiles of `BIG`, then of what is left, and calls `$tile::<L, T, rows, $columns>`.
macro_rules! for_query_tiles {
    ($tile:ident, $columns:ident, $total:expr, $args:expr, $column:expr) => {{
        let (total, mut query) = ($total, 0);
        while query + BIG <= total {
            $tile::<L, T, BIG, $columns>($args, query, $column);
            query += BIG;
        }
        if query + 6 <= total {
            $tile::<L, T, 6, $columns>($args, query, $column);
            query += 6;
        }
        match total - query {
            5 => {
                $tile::<L, T, 3, $columns>($args, query, $column);
                $tile::<L, T, 2, $columns>($args, query + 3, $column);
            }
            4 => $tile::<L, T, 4, $columns>($args, query, $column),
            3 => $tile::<L, T, 3, $columns>($args, query, $column),
            2 => $tile::<L, T, 2, $columns>($args, query, $column),
            1 => $tile::<L, T, 1, $columns>($args, query, $column),
            _ => {}
        }
    }};
}

/// `BIG` queries times `NARROW` vectors of keys fill the registers, or up to six queries times `WIDE`.
///
/// # Safety
/// The instruction set of `L` is available, and the operands have the lengths described in [`ScoreArgs`].
#[inline(always)]
unsafe fn scores_tiles<L: Lanes, T: Element, const BIG: usize, const NARROW: usize, const WIDE: usize>(
    args: &mut ScoreArgs<'_, T>,
) {
    let num_vectors = args.keys.len() * BLOCK_LEN / LANES;
    let num_queries = args.num_queries();
    let mut vector = 0;
    // SAFETY: tiles cover queries and vectors of keys once each.
    unsafe {
        if num_queries <= 6 {
            while vector + WIDE <= num_vectors {
                for_query_tiles!(score_tile, WIDE, num_queries, args, vector);
                vector += WIDE;
            }
        }
        while vector + NARROW <= num_vectors {
            for_query_tiles!(score_tile, NARROW, num_queries, args, vector);
            vector += NARROW;
        }
        while vector < num_vectors {
            for_query_tiles!(score_tile, ONE, num_queries, args, vector);
            vector += 1;
        }
    }
}

const ONE: usize = 1;

/// `M` queries times `N` vectors of keys.
#[inline(always)]
unsafe fn score_tile<L: Lanes, T: Element, const M: usize, const N: usize>(
    args: &mut ScoreArgs<'_, T>,
    query: usize,
    vector: usize,
) {
    // SAFETY: the tile lies within the operands by the contract of `scores_tiles`.
    unsafe {
        let queries = args.queries.as_ptr().add(query * args.head_dim);
        let mut keys = [std::ptr::null::<T>(); N];
        for (n, keys) in keys.iter_mut().enumerate() {
            let key = (vector + n) * LANES;
            let block = args.keys.get_unchecked(key / BLOCK_LEN);
            *keys = block.as_ptr().add(key % BLOCK_LEN);
        }
        let mut sums = [[L::splat(0.0); N]; M];
        for d in 0..args.head_dim {
            let mut k = [L::splat(0.0); N];
            for (k, keys) in k.iter_mut().zip(keys) {
                *k = T::load(keys.add(d * BLOCK_LEN));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let q = L::splat(*queries.add(m * args.head_dim + d));
                for (sum, k) in sums.iter_mut().zip(k) {
                    *sum = sum.mul_add(q, k);
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            let row = args
                .scores
                .as_mut_ptr()
                .add((query + m) * args.score_stride + vector * LANES);
            for (n, sum) in sums.into_iter().enumerate() {
                sum.store(row.add(n * LANES));
            }
        }
    }
}

/// As [`scores_tiles`], with vectors of dimensions for vectors of keys.
///
/// # Safety
/// The instruction set of `L` is available, and the operands have the lengths described in [`ValueArgs`].
#[inline(always)]
unsafe fn value_tiles<L: Lanes, T: Element, const BIG: usize, const NARROW: usize, const WIDE: usize>(
    args: &mut ValueArgs<'_, T>,
) {
    let num_vectors = args.value_stride / LANES;
    let num_queries = args.num_queries();
    let mut vector = 0;
    // SAFETY: tiles cover queries and vectors of dimensions once each.
    unsafe {
        if num_queries <= 6 {
            while vector + WIDE <= num_vectors {
                for_query_tiles!(value_tile, WIDE, num_queries, args, vector);
                vector += WIDE;
            }
        }
        while vector + NARROW <= num_vectors {
            for_query_tiles!(value_tile, NARROW, num_queries, args, vector);
            vector += NARROW;
        }
        while vector < num_vectors {
            for_query_tiles!(value_tile, ONE, num_queries, args, vector);
            vector += 1;
        }
    }
}

/// `M` queries times `N` vectors of dimensions, over all keys.
#[inline(always)]
unsafe fn value_tile<L: Lanes, T: Element, const M: usize, const N: usize>(
    args: &mut ValueArgs<'_, T>,
    query: usize,
    vector: usize,
) {
    // SAFETY: the tile lies within the operands by the contract of `value_tiles`.
    unsafe {
        let out = args
            .out
            .as_mut_ptr()
            .add(query * args.value_stride + vector * LANES);
        let mut sums = [[L::splat(0.0); N]; M];
        for (m, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = L::load_f32(out.add(m * args.value_stride + n * LANES));
            }
        }
        for (block_idx, values) in args.values.iter().enumerate() {
            let probs = args
                .probs
                .as_ptr()
                .add(query * args.prob_stride + block_idx * BLOCK_LEN);
            let values = values.as_ptr().add(vector * LANES);
            for key in 0..args.num_keys {
                let mut v = [L::splat(0.0); N];
                for (n, v) in v.iter_mut().enumerate() {
                    *v = T::load(values.add(key * args.value_stride + n * LANES));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let p = L::splat(*probs.add(m * args.prob_stride + key));
                    for (sum, v) in sums.iter_mut().zip(v) {
                        *sum = sum.mul_add(p, v);
                    }
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                sum.store(out.add(m * args.value_stride + n * LANES));
            }
        }
    }
}
