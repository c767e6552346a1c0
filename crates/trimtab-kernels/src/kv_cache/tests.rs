use proptest::prelude::*;

use super::*;

fn layout(head_dim: usize, storage: KvStorage) -> KvLayout {
    KvLayout {
        num_layers: 3,
        num_kv_heads: 2,
        head_dim,
        storage,
    }
}

/// Key and value of a slot, different for each, exact in f16.
fn stored(layout: &KvLayout, layer: usize, block: u32, slot: usize) -> (Vec<f32>, Vec<f32>) {
    let seed = (layer * 5 + block as usize) * BLOCK_LEN + slot;
    let row = |part: usize| {
        (0..layout.num_kv_heads * layout.head_dim)
            .map(|i| ((seed * 31 + i * 7 + part * 1013) % 2001) as f32 - 1000.0)
            .collect()
    };
    (row(0), row(1))
}

/// Reads a slot back from the tiles.
fn read<T: Stored + Into<f32>>(kv: &KvCache, layer: usize, block: u32, slot: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let head_dim = kv.layout().head_dim;
    for kv_head in 0..kv.layout().num_kv_heads {
        let (keys, values) = kv.tile::<T>(layer, block, kv_head);
        key.extend((0..head_dim).map(|d| keys[d * BLOCK_LEN + slot].into()));
        let row = &values[slot * kv.layout().value_stride()..];
        value.extend(row[..head_dim].iter().map(|&value| value.into()));
        assert!(
            row[head_dim..kv.layout().value_stride()]
                .iter()
                .all(|&padding| padding.into() == 0.0)
        );
    }
    (key, value)
}

fn check_round_trip<T: Stored + Into<f32>>(layout: KvLayout) {
    let mut kv = KvCache::new(layout, 3);
    let slots = || {
        (0..3).flat_map(|layer| (0..3).flat_map(move |block| (0..BLOCK_LEN).map(move |s| (layer, block, s))))
    };
    for (layer, block, slot) in slots() {
        let (key, value) = stored(&layout, layer, block, slot);
        kv.write(layer, block, slot, &key, &value);
    }
    for (layer, block, slot) in slots() {
        assert_eq!(
            read::<T>(&kv, layer, block, slot),
            stored(&layout, layer, block, slot)
        );
    }
    kv.copy_block(0, 2);
    for (layer, block, slot) in slots() {
        let from = if block == 2 { 0 } else { block };
        assert_eq!(
            read::<T>(&kv, layer, block, slot),
            stored(&layout, layer, from, slot)
        );
    }
}

#[test]
fn slots_hold_what_was_written_and_blocks_are_copied_whole() {
    for head_dim in [1, 20, 64] {
        check_round_trip::<f32>(layout(head_dim, KvStorage::F32));
        check_round_trip::<f16>(layout(head_dim, KvStorage::F16));
    }
}

#[test]
fn a_block_takes_the_bytes_of_its_padded_tiles() {
    let check = |head_dim, storage, expect| assert_eq!(layout(head_dim, storage).block_bytes(), expect);
    check(64, KvStorage::F16, 3 * 2 * BLOCK_LEN * (64 + 64) * 2);
    check(64, KvStorage::F32, 3 * 2 * BLOCK_LEN * (64 + 64) * 4);
    check(20, KvStorage::F32, 3 * 2 * BLOCK_LEN * (20 + 32) * 4);
}

#[test]
fn a_store_of_nothing_and_one_of_which_little_is_used_can_be_had() {
    assert_eq!(KvCache::new(layout(64, KvStorage::F16), 0).num_blocks(), 0);
    // 8 GiB of address space, of which a single block is touched.
    let layout = layout(64, KvStorage::F16);
    let num_blocks = (8_usize << 30) / layout.block_bytes();
    let mut kv = KvCache::new(layout, num_blocks);
    let last = num_blocks as u32 - 1;
    let (key, value) = stored(&layout, 2, last, 3);
    kv.write(2, last, 3, &key, &value);
    assert_eq!(read::<f16>(&kv, 2, last, 3), (key, value));
}

#[test]
fn a_store_beyond_the_address_space_is_refused_with_its_size() {
    let layout = layout(64, KvStorage::F16);
    let check = |num_blocks: usize, expect: usize| {
        let error = KvCache::try_new(layout, num_blocks).expect_err("no machine has so much");
        assert_eq!(error.num_bytes, expect);
        assert!(error.to_string().contains(&expect.to_string()), "{error}");
    };
    // Half of all 64-bit addresses, and a product that overflows.
    let half = (isize::MAX as usize) / layout.block_bytes();
    check(half, half * layout.block_bytes());
    check(usize::MAX, usize::MAX);
}

#[test]
#[should_panic(expected = "expected a block below 2, got 2")]
fn copying_a_block_that_does_not_exist_is_refused() {
    KvCache::new(layout(4, KvStorage::F32), 2).copy_block(0, 2);
}

#[test]
#[should_panic(expected = "expected a layer, head and block of the store")]
fn writing_to_a_block_that_does_not_exist_is_refused() {
    KvCache::new(layout(4, KvStorage::F32), 2).write(0, 2, 0, &[0.0; 8], &[0.0; 8]);
}

proptest! {
    #[test]
    fn f16_rounds_to_the_nearest(values in prop::collection::vec(-70_000.0_f32..70_000.0, 8)) {
        let mut kv = KvCache::new(layout(4, KvStorage::F16), 1);
        kv.write(1, 0, 5, &values, &values);
        let expected: Vec<f32> = values.iter().map(|&value| f16::from_f32_const(value).to_f32()).collect();
        prop_assert_eq!(read::<f16>(&kv, 1, 0, 5), (expected.clone(), expected));
    }
}
