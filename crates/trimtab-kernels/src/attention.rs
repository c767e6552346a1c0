//! Attention of rows over blocks of keys and values. Knows heads, blocks and positions, no sequences or models.

use half::f16;

use crate::kv_cache::{BLOCK_LEN, KvCache, KvStorage, Stored};
use crate::pool::{DisjointSlice, Pool};

/// The keys of one row of queries.
#[derive(Debug, Clone, Copy)]
pub struct AttentionRow<'a> {
    /// Blocks that hold the keys of positions from 0 on.
    pub blocks: &'a [u32],
    /// First position attended to.
    pub first_key: usize,
    /// Positions attended to end before this one.
    pub num_keys: usize,
}

/// Working memory of [`attend`], reused between calls.
#[derive(Debug, Default)]
pub struct AttentionScratch {}

/// Attends.
#[allow(clippy::too_many_arguments)]
pub fn attend(
    pool: &Pool,
    kv: &KvCache,
    layer_idx: usize,
    rows: &[AttentionRow<'_>],
    num_heads: usize,
    score_scale: f32,
    queries: &[f32],
    out: &mut [f32],
    _scratch: &mut AttentionScratch,
) {
    let dim = kv.layout().head_dim;
    let out = DisjointSlice::new(out);
    pool.run(rows.len(), &|r| {
        for head in 0..num_heads {
            let start = (r * num_heads + head) * dim;
            let query = &queries[start..start + dim];
            let kv_head = head / (num_heads / kv.layout().num_kv_heads);
            // SAFETY: one range per row and head.
            let out = unsafe { out.range(start..start + dim) };
            match kv.layout().storage {
                KvStorage::F32 => {
                    one::<f32>(kv, (layer_idx, kv_head), &rows[r], query, score_scale, out, |x| x)
                }
                KvStorage::F16 => one::<f16>(
                    kv,
                    (layer_idx, kv_head),
                    &rows[r],
                    query,
                    score_scale,
                    out,
                    f16::to_f32,
                ),
            }
        }
    });
}

fn one<T: Stored>(
    kv: &KvCache,
    (layer_idx, kv_head): (usize, usize),
    row: &AttentionRow<'_>,
    query: &[f32],
    score_scale: f32,
    out: &mut [f32],
    to_f32: impl Fn(T) -> f32,
) {
    let mut scores: Vec<f32> = (row.first_key..row.num_keys)
        .map(|key| {
            let (keys, _) = kv.tile::<T>(layer_idx, row.blocks[key / BLOCK_LEN], kv_head);
            query
                .iter()
                .enumerate()
                .map(|(d, q)| q * to_f32(keys[d * BLOCK_LEN + key % BLOCK_LEN]))
                .sum::<f32>()
                * score_scale
        })
        .collect();
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    let total: f32 = scores.iter().sum();
    out.fill(0.0);
    for (key, p) in (row.first_key..row.num_keys).zip(&scores) {
        let (_, values) = kv.tile::<T>(layer_idx, row.blocks[key / BLOCK_LEN], kv_head);
        let values = &values[key % BLOCK_LEN * kv.layout().value_stride()..];
        out.iter_mut()
            .zip(values)
            .for_each(|(o, &v)| *o += p / total * to_f32(v));
    }
}
