use proptest::prelude::*;

use super::*;
use crate::kv_cache::KvLayout;

/// A number in `-1..1` that looks random.
fn noise(seed: usize) -> f32 {
    let mut bits = (seed as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits ^= bits >> 29;
    bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 32;
    (bits >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

fn noise_row(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| noise(seed * 65_536 + i)).collect()
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    storage: KvStorage,
}

/// A store whose every slot is filled, with layer 1 to be attended to.
struct Fixture {
    shape: Shape,
    kv: KvCache,
}

const LAYER: usize = 1;
const SCALE: f32 = 0.37;

impl Fixture {
    fn new(shape: Shape, num_blocks: u32) -> Self {
        let Shape {
            num_kv_heads,
            head_dim,
            storage,
            ..
        } = shape;
        let layout = KvLayout {
            num_layers: 2,
            num_kv_heads,
            head_dim,
            storage,
        };
        let mut kv = KvCache::new(layout, num_blocks as usize);
        for block in 0..num_blocks {
            for slot in 0..BLOCK_LEN {
                let (key, value) = Self::stored(shape, block, slot);
                kv.write(LAYER, block, slot, &key, &value);
            }
        }
        Self { shape, kv }
    }

    fn stored(shape: Shape, block: u32, slot: usize) -> (Vec<f32>, Vec<f32>) {
        let (seed, len) = (
            block as usize * BLOCK_LEN + slot,
            shape.num_kv_heads * shape.head_dim,
        );
        (noise_row(2 * seed, len), noise_row(2 * seed + 1, len))
    }

    fn query_len(&self) -> usize {
        self.shape.num_heads * self.shape.head_dim
    }

    /// The query of a row depends on its keys only, so that it is the same in any batch.
    fn query(&self, row: &AttentionRow<'_>) -> Vec<f32> {
        let seed = 1_000_000 + row.num_keys * 977 + row.blocks.iter().sum::<u32>() as usize;
        noise_row(seed, self.query_len())
            .into_iter()
            .map(|q| 3.0 * q)
            .collect()
    }

    fn attend(&self, isa: Isa, num_threads: usize, rows: &[AttentionRow<'_>]) -> Vec<Vec<f32>> {
        let queries = rows.iter().flat_map(|row| self.query(row)).collect::<Vec<_>>();
        let mut out = vec![f32::NAN; queries.len()];
        let call = Call {
            isa,
            kv: &self.kv,
            layer_idx: LAYER,
            rows,
            num_heads: self.shape.num_heads,
            score_scale: SCALE,
            queries: &queries,
        };
        call.check(out.len());
        call.run_stored(
            &Pool::new(num_threads),
            &mut out,
            &mut AttentionScratch::default(),
        );
        out.chunks_exact(self.query_len()).map(<[f32]>::to_vec).collect()
    }

    /// The formula in f64.
    fn expected(&self, row: &AttentionRow<'_>) -> Vec<f64> {
        let Shape {
            num_heads,
            num_kv_heads,
            head_dim,
            storage,
        } = self.shape;
        let round = |x: &f32| match storage {
            KvStorage::F32 => f64::from(*x),
            KvStorage::F16 => f16::from_f32(*x).to_f64(),
        };
        let stored: Vec<_> = (row.first_key..row.num_keys)
            .map(|key| Self::stored(self.shape, row.blocks[key / BLOCK_LEN], key % BLOCK_LEN))
            .map(|(key, value)| (key.iter().map(round).collect(), value.iter().map(round).collect()))
            .collect::<Vec<(Vec<f64>, Vec<f64>)>>();
        let query = self.query(row);
        let mut out = Vec::new();
        for (head, query) in query.chunks_exact(head_dim).enumerate() {
            let first = head / (num_heads / num_kv_heads) * head_dim;
            let score = |key: &[f64]| -> f64 {
                let products = query.iter().zip(&key[first..]).map(|(&q, k)| f64::from(q) * k);
                f64::from(SCALE) * products.sum::<f64>()
            };
            let weights: Vec<f64> = stored.iter().map(|(key, _)| score(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((first..first + head_dim).map(|d| {
                weights
                    .iter()
                    .zip(&stored)
                    .map(|(weight, (_, value))| weight / total * value[d])
                    .sum::<f64>()
            }));
        }
        out
    }

    fn check(&self, isa: Isa, rows: &[AttentionRow<'_>]) {
        for (row, got) in rows.iter().zip(self.attend(isa, 2, rows)) {
            for (got, expected) in got.into_iter().zip(self.expected(row)) {
                let error = (f64::from(got) - expected).abs();
                assert!(
                    error < 2e-6,
                    "{isa:?} {:?} {row:?}: {got}, expected {expected}",
                    self.shape
                );
            }
        }
    }
}

const SHAPES: [Shape; 7] = [
    Shape {
        num_heads: 9,
        num_kv_heads: 3,
        head_dim: 64,
        storage: KvStorage::F16,
    },
    Shape {
        num_heads: 9,
        num_kv_heads: 3,
        head_dim: 64,
        storage: KvStorage::F32,
    },
    Shape {
        num_heads: 2,
        num_kv_heads: 2,
        head_dim: 48,
        storage: KvStorage::F16,
    },
    Shape {
        num_heads: 14,
        num_kv_heads: 2,
        head_dim: 16,
        storage: KvStorage::F32,
    },
    Shape {
        num_heads: 4,
        num_kv_heads: 1,
        head_dim: 80,
        storage: KvStorage::F16,
    },
    Shape {
        num_heads: 5,
        num_kv_heads: 1,
        head_dim: 6,
        storage: KvStorage::F32,
    },
    Shape {
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 20,
        storage: KvStorage::F16,
    },
];

#[test]
fn results_are_near_the_formula_on_every_path() {
    let blocks: Vec<u32> = (0..40).map(|block| (block * 7) % 40).collect();
    let row = |first_key, num_keys| AttentionRow {
        blocks: &blocks,
        first_key,
        num_keys,
    };
    for shape in SHAPES {
        let fixture = Fixture::new(shape, 40);
        for isa in Isa::available() {
            for num_keys in [1, 15, 16, 17, 200, 256, 257, 600] {
                fixture.check(isa, &[row(0, num_keys)]);
                fixture.check(isa, &[row(num_keys / 2, num_keys), row(num_keys - 1, num_keys)]);
            }
            // A prefill, and candidates with a common prefix.
            fixture.check(
                isa,
                &(230..270).map(|num_keys| row(0, num_keys)).collect::<Vec<_>>(),
            );
            let tails: Vec<Vec<u32>> = (0..9)
                .map(|tail| [&blocks[..18], &[tail, 9 + tail]].concat())
                .collect();
            let candidates = tails.iter().map(|blocks| AttentionRow {
                blocks,
                first_key: 0,
                num_keys: 310,
            });
            fixture.check(isa, &candidates.collect::<Vec<_>>());
        }
    }
}

/// Block lists that share prefixes of different lengths, and what of them is attended to.
fn rows_strategy() -> impl Strategy<Value = Vec<(Vec<u32>, usize, usize)>> {
    let row = (
        0_usize..4,
        0_usize..22,
        0_u32..30,
        1_usize..=20 * BLOCK_LEN,
        0_usize..400,
    );
    prop::collection::vec(row, 1..24).prop_map(|rows| {
        let as_row = |(prompt, num_shared, tail, num_keys, window): (usize, usize, u32, usize, usize)| {
            let shared = (0..20).map(|i| (prompt * 5 + i) as u32 % 30).take(num_shared);
            let own = (0..20).map(|i| (tail * 11 + i) % 30);
            let blocks = shared.chain(own).take(20).collect();
            (
                blocks,
                if window < 200 {
                    num_keys.saturating_sub(window + 1)
                } else {
                    0
                },
                num_keys,
            )
        };
        rows.into_iter().map(as_row).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_row_does_not_depend_on_the_batch_around_it(
        rows in rows_strategy(), shape_idx in 0..SHAPES.len(), num_threads in 1_usize..4, keep in any::<u32>(),
    ) {
        let fixture = Fixture::new(SHAPES[shape_idx], 30);
        let rows: Vec<AttentionRow<'_>> = rows
            .iter()
            .map(|(blocks, first_key, num_keys)| AttentionRow { blocks, first_key: *first_key, num_keys: *num_keys })
            .collect();
        for isa in Isa::available() {
            let alone: Vec<_> = rows.iter().map(|&row| fixture.attend(isa, 1, &[row]).remove(0)).collect();
            prop_assert_eq!(&fixture.attend(isa, num_threads, &rows), &alone);
            let kept: Vec<usize> = (0..rows.len()).rev().filter(|i| keep >> i & 1 == 1).collect();
            let subset: Vec<_> = kept.iter().map(|&i| rows[i]).collect();
            let expected: Vec<_> = kept.iter().map(|&i| alone[i].clone()).collect();
            prop_assert_eq!(fixture.attend(isa, num_threads, &subset), expected);
        }
    }
}

#[test]
fn keys_outside_a_row_do_not_matter_even_if_they_are_nan() {
    for shape in SHAPES {
        let mut fixture = Fixture::new(shape, 3);
        let row = AttentionRow {
            blocks: &[0, 1, 2],
            first_key: 5,
            num_keys: 2 * BLOCK_LEN + 3,
        };
        let longer = AttentionRow {
            num_keys: 2 * BLOCK_LEN + 9,
            ..row
        };
        for isa in Isa::available() {
            let before = fixture.attend(isa, 2, &[row]).remove(0);
            let nan = vec![f32::NAN; shape.num_kv_heads * shape.head_dim];
            for (block, slot) in [(0, 4), (2, 3), (2, 8), (2, BLOCK_LEN - 1)] {
                fixture.kv.write(LAYER, block, slot, &nan, &nan);
            }
            let after = fixture.attend(isa, 2, &[longer, row, longer]);
            assert_eq!(after[1], before, "{isa:?} {shape:?}");
            assert!(
                after[0].iter().chain(&after[2]).all(|value| value.is_nan()),
                "{isa:?} {shape:?}"
            );
            fixture = Fixture::new(shape, 3);
        }
    }
}

#[test]
fn scores_of_any_size_give_finite_results() {
    let shape = SHAPES[0];
    let mut fixture = Fixture::new(shape, 20);
    let len = shape.num_kv_heads * shape.head_dim;
    for (slot, scale) in [(3, 3e4), (4, -3e4), (5, 2.9e4)] {
        fixture
            .kv
            .write(LAYER, 1, slot, &vec![scale; len], &vec![1.0; len]);
    }
    let blocks: Vec<u32> = (0..20).collect();
    let rows = [AttentionRow {
        blocks: &blocks,
        first_key: 0,
        num_keys: 320,
    }];
    let out = fixture.attend(Isa::detect(), 1, &rows).remove(0);
    // One key outweighs all others in every head, so its value of ones is the result.
    assert!(out.iter().all(|value| (value - 1.0).abs() < 1e-6), "{out:?}");
}

#[test]
#[should_panic(expected = "expected a row with keys")]
fn a_row_without_keys_is_refused() {
    let rows = [AttentionRow {
        blocks: &[0],
        first_key: 1,
        num_keys: 1,
    }];
    Fixture::new(SHAPES[0], 1).attend(Isa::Portable, 1, &rows);
}

#[test]
#[should_panic(expected = "expected blocks for all keys")]
fn a_row_without_blocks_is_refused() {
    let rows = [AttentionRow {
        blocks: &[0],
        first_key: 0,
        num_keys: BLOCK_LEN + 1,
    }];
    Fixture::new(SHAPES[0], 1).attend(Isa::Portable, 1, &rows);
}
