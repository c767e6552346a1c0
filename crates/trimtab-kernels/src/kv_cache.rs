//! Keys and values of all layers in blocks of positions. Knows slots, not sequences: who owns a block is the engine's.
//!
//! A block holds [`BLOCK_LEN`] positions of every layer in one run of memory, so that copying it is one copy and
//! memory is taken block by block. Within it each layer and key/value head has a tile: its keys transposed,
//! `[head_dim, BLOCK_LEN]`, so that one vector load fetches one dimension of all keys, then its values,
//! `[BLOCK_LEN, head_dim]` padded with zeros to whole vectors.

use std::io;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::{MmapMut, MmapOptions};
use thiserror::Error;

use crate::LANES;
use crate::aligned::Plain;

#[cfg(test)]
mod tests;

/// Positions per block. With 32 attention is as fast, and fewer positions can be shared.
pub const BLOCK_LEN: usize = 16;

/// What keys and values are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvStorage {
    /// Exactly as computed.
    F32,
    /// Rounded to nearest, ties to even, at half the memory; beyond 65504 they become infinite.
    F16,
}

impl KvStorage {
    /// Bytes of one stored value.
    fn value_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Shape of the keys and values of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayout {
    /// Decoder layers.
    pub num_layers: usize,
    /// Heads of keys and values.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Format of the values.
    pub storage: KvStorage,
}

impl KvLayout {
    /// Memory of one block of [`BLOCK_LEN`] positions, all layers.
    pub fn block_bytes(&self) -> usize {
        self.num_layers * self.num_kv_heads * self.tile_len() * self.storage.value_bytes()
    }

    /// Values of a row of values, padding included.
    pub(crate) fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Elements of one tile: keys, then values.
    fn tile_len(&self) -> usize {
        BLOCK_LEN * (self.head_dim + self.value_stride())
    }
}

/// Blocks of keys and values. Memory is taken from the system only as blocks are first written.
#[derive(Debug)]
pub struct KvCache {
    layout: KvLayout,
    num_blocks: usize,
    /// Anonymous pages: zero, and not in memory before they are written.
    memory: MmapMut,
}

/// The system has no address space for a store of keys and values.
#[derive(Debug, Error)]
#[error("no address space for {num_bytes} bytes of keys and values: {source}")]
pub struct KvCacheError {
    /// Bytes asked for; `usize::MAX` stands for that and more.
    pub num_bytes: usize,
    /// The system's reason.
    pub source: io::Error,
}

impl KvCache {
    /// [`Self::try_new`] where a refusal is a bug: small stores of known size.
    ///
    /// # Panics
    /// If the address space for them cannot be had.
    pub fn new(layout: KvLayout, num_blocks: usize) -> Self {
        Self::try_new(layout, num_blocks).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A store of `num_blocks` blocks, all zero.
    ///
    /// # Errors
    /// The address space for them cannot be had.
    pub fn try_new(layout: KvLayout, num_blocks: usize) -> Result<Self, KvCacheError> {
        // Nothing that overflows fits the address space either, so that the system refuses both alike.
        let num_bytes = layout.block_bytes().saturating_mul(num_blocks);
        let memory = MmapOptions::new()
            // A map of nothing is refused by some systems.
            .len(num_bytes.max(1))
            .no_reserve_swap()
            .map_anon()
            .map_err(|source| KvCacheError { num_bytes, source })?;
        // A layer's part of each block lies on pages of its own, so small pages cost a walk through the page table
        // per block. Best effort: blocks are used from the first on, so little more memory is taken.
        #[cfg(target_os = "linux")]
        let _ignored = memory.advise(memmap2::Advice::HugePage);
        Ok(Self {
            layout,
            num_blocks,
            memory,
        })
    }

    /// Number of blocks.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Shape of the keys and values.
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Copies all layers' keys and values of block `from` to block `to`.
    ///
    /// # Panics
    /// If a block does not exist.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let block_bytes = self.layout.block_bytes();
        for block in [from, to] {
            assert!(
                (block as usize) < self.num_blocks,
                "expected a block below {}, got {block}",
                self.num_blocks
            );
        }
        let start = from as usize * block_bytes;
        self.memory
            .copy_within(start..start + block_bytes, to as usize * block_bytes);
    }

    /// Stores the key and the value of one position of one layer.
    ///
    /// # Shapes
    /// `key`, `value`: `[num_kv_heads, head_dim]`.
    ///
    /// # Panics
    /// If the layer, block or slot does not exist or a length is not that of the layout.
    pub fn write(&mut self, layer: usize, block: u32, slot: usize, key: &[f32], value: &[f32]) {
        let KvLayout {
            num_kv_heads,
            head_dim,
            storage,
            ..
        } = self.layout;
        assert_eq!(key.len(), num_kv_heads * head_dim, "expected a key per head");
        assert_eq!(value.len(), key.len(), "expected a value per head");
        assert!(slot < BLOCK_LEN, "expected a slot below {BLOCK_LEN}, got {slot}");
        let heads = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim));
        for (kv_head, (key, value)) in heads.enumerate() {
            match storage {
                KvStorage::F32 => self
                    .tile_mut::<f32>(layer, block, kv_head)
                    .write(slot, key, value),
                KvStorage::F16 => self
                    .tile_mut::<f16>(layer, block, kv_head)
                    .write(slot, key, value),
            }
        }
    }

    /// Keys `[head_dim, BLOCK_LEN]` and values `[BLOCK_LEN, value_stride]` of one layer and head of a block.
    ///
    /// # Panics
    /// If there is no such tile or `T` is not the stored format.
    #[inline]
    pub(crate) fn tile<T: Stored>(&self, layer: usize, block: u32, kv_head: usize) -> (&[T], &[T]) {
        let start = self.tile_start::<T>(layer, block, kv_head);
        // SAFETY: `tile_start` has checked that the tile lies within the map, which is initialised (zero) memory
        // aligned to a page; tiles start at multiples of their elements' size; any bits are a value of `T`.
        let tile = unsafe {
            std::slice::from_raw_parts(
                self.memory.as_ptr().add(start).cast::<T>(),
                self.layout.tile_len(),
            )
        };
        tile.split_at(BLOCK_LEN * self.layout.head_dim)
    }

    fn tile_mut<T: Stored>(&mut self, layer: usize, block: u32, kv_head: usize) -> TileMut<'_, T> {
        let start = self.tile_start::<T>(layer, block, kv_head);
        // SAFETY: as in `tile`, and the borrow is exclusive.
        let tile = unsafe {
            let start = self.memory.as_mut_ptr().add(start).cast::<T>();
            std::slice::from_raw_parts_mut(start, self.layout.tile_len())
        };
        let (keys, values) = tile.split_at_mut(BLOCK_LEN * self.layout.head_dim);
        TileMut {
            keys,
            values,
            value_stride: self.layout.value_stride(),
        }
    }

    /// Offset of a tile in bytes.
    #[inline]
    fn tile_start<T: Stored>(&self, layer: usize, block: u32, kv_head: usize) -> usize {
        let layout = &self.layout;
        assert!(T::STORAGE == layout.storage, "expected the stored format");
        assert!(
            layer < layout.num_layers && kv_head < layout.num_kv_heads && (block as usize) < self.num_blocks,
            "expected a layer, head and block of the store, got {layer}, {kv_head} and {block}"
        );
        let tile_idx = (block as usize * layout.num_layers + layer) * layout.num_kv_heads + kv_head;
        tile_idx * layout.tile_len() * size_of::<T>()
    }
}

/// A format of [`KvStorage`].
pub(crate) trait Stored: Plain {
    const STORAGE: KvStorage;
    fn from_f32s(values: &[f32], stored: &mut [Self]);
}

impl Stored for f32 {
    const STORAGE: KvStorage = KvStorage::F32;

    fn from_f32s(values: &[f32], stored: &mut [Self]) {
        stored.copy_from_slice(values);
    }
}

impl Stored for f16 {
    const STORAGE: KvStorage = KvStorage::F16;

    fn from_f32s(values: &[f32], stored: &mut [Self]) {
        stored.convert_from_f32_slice(values);
    }
}

struct TileMut<'a, T> {
    keys: &'a mut [T],
    values: &'a mut [T],
    value_stride: usize,
}

impl<T: Stored> TileMut<'_, T> {
    fn write(self, slot: usize, key: &[f32], value: &[f32]) {
        // The row of values first holds the key in the stored format, to convert whole rows at a time.
        let row = &mut self.values[slot * self.value_stride..][..value.len()];
        T::from_f32s(key, row);
        for (keys, &key) in self.keys.chunks_exact_mut(BLOCK_LEN).zip(&*row) {
            keys[slot] = key;
        }
        T::from_f32s(value, row);
    }
}
