//! Key/value blocks of earlier prompts, found again by their tokens. Knows tokens and block ids, no contents.
//!
//! Blocks are keyed by the chain of whole blocks before them and by their own tokens, compared exactly: a hash
//! collision must never hand one prompt the keys of another.

use std::collections::HashMap;

use trimtab_base::TokenId;

use crate::block_manager::BlockManager;

/// Chain of whole blocks ending in one block; 0 is the empty chain.
type ChainId = u64;

#[derive(Debug)]
struct Entry {
    parent: ChainId,
    tokens: Vec<TokenId>,
    block: u32,
    num_children: u32,
    last_used: u64,
}

/// Cached whole blocks of prompts.
#[derive(Debug)]
pub struct PrefixCache {
    max_blocks: usize,
    by_content: HashMap<(ChainId, Vec<TokenId>), ChainId>,
    entries: HashMap<ChainId, Entry>,
    next_id: ChainId,
    clock: u64,
}

impl PrefixCache {
    /// An empty cache of at most `max_blocks` blocks.
    pub fn new(max_blocks: usize) -> Self {
        Self {
            max_blocks,
            by_content: HashMap::new(),
            entries: HashMap::new(),
            next_id: 0,
            clock: 0,
        }
    }

    /// Blocks of the longest cached chain that `tokens` begins with, each retained for the caller.
    pub fn look_up(&mut self, tokens: &[TokenId], block_len: usize, blocks: &mut BlockManager) -> Vec<u32> {
        self.clock += 1;
        let mut chain = 0;
        let mut found = Vec::new();
        for chunk in tokens.chunks_exact(block_len) {
            let Some(&next) = self.by_content.get(&(chain, chunk.to_vec())) else {
                break;
            };
            let Some(entry) = self.entries.get_mut(&next) else {
                break;
            };
            entry.last_used = self.clock;
            blocks.retain(entry.block);
            found.push(entry.block);
            chain = next;
        }
        found
    }

    /// Remembers the whole blocks of a prompt that has been run; `held` are its blocks in order. A full cache lets
    /// unused blocks go for them; what finds no place is not remembered.
    pub fn insert(&mut self, tokens: &[TokenId], block_len: usize, held: &[u32], blocks: &mut BlockManager) {
        self.clock += 1;
        let clock = self.clock;
        let mut chain = 0;
        for (chunk, &block) in tokens.chunks_exact(block_len).zip(held) {
            let key = (chain, chunk.to_vec());
            chain = match self.by_content.get(&key).copied() {
                Some(known) => known,
                // What has been touched since the clock moved is this chain itself.
                None if self.entries.len() < self.max_blocks || self.evict(clock, blocks) => {
                    self.add(key, block, blocks)
                }
                None => return,
            };
            if let Some(entry) = self.entries.get_mut(&chain) {
                entry.last_used = self.clock;
            }
        }
    }

    /// Frees one block: of those that nobody else holds, the least recently used, ends of chains first. `false` if
    /// there is none, since letting go of a block that a running request holds frees nothing.
    pub fn evict_one(&mut self, blocks: &mut BlockManager) -> bool {
        self.evict(u64::MAX, blocks)
    }

    /// [`Self::evict_one`] of those last used before `before`.
    fn evict(&mut self, before: u64, blocks: &mut BlockManager) -> bool {
        let victim = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.last_used < before && !blocks.is_shared(entry.block))
            .min_by_key(|(id, entry)| (entry.num_children > 0, entry.last_used, **id))
            .map(|(&id, _)| id);
        let Some(victim) = victim else { return false };
        if let Some(parent) = self.entries.get(&victim).map(|entry| entry.parent)
            && let Some(parent) = self.entries.get_mut(&parent)
        {
            parent.num_children -= 1;
        }
        self.remove_with_children(victim, blocks);
        true
    }

    /// A chain without its beginning is never found again, so what continues `top` goes with it. Only blocks that
    /// others hold continue a victim: two requests ran the same prompt at once, and one of them is still running.
    fn remove_with_children(&mut self, top: ChainId, blocks: &mut BlockManager) {
        let mut going = vec![top];
        while let Some(id) = going.pop() {
            let Some(entry) = self.entries.remove(&id) else {
                continue;
            };
            if entry.num_children > 0 {
                let children = self.entries.iter().filter(|(_, child)| child.parent == id);
                going.extend(children.map(|(&child, _)| child));
            }
            blocks.release(entry.block);
            self.by_content.remove(&(entry.parent, entry.tokens));
        }
    }

    fn add(&mut self, key: (ChainId, Vec<TokenId>), block: u32, blocks: &mut BlockManager) -> ChainId {
        self.next_id += 1;
        let (parent, tokens) = key.clone();
        blocks.retain(block);
        if let Some(entry) = self.entries.get_mut(&parent) {
            entry.num_children += 1;
        }
        let entry = Entry {
            parent,
            tokens,
            block,
            num_children: 0,
            last_used: self.clock,
        };
        self.entries.insert(self.next_id, entry);
        self.by_content.insert(key, self.next_id);
        self.next_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().map(|&id| TokenId(id)).collect()
    }

    fn cached(prompt: &[u32], num_blocks: usize, max_blocks: usize) -> (PrefixCache, BlockManager, Vec<u32>) {
        let mut blocks = BlockManager::new(num_blocks);
        let held: Vec<u32> = (0..prompt.len().div_ceil(2))
            .map(|_| blocks.allocate().unwrap())
            .collect();
        let mut cache = PrefixCache::new(max_blocks);
        cache.insert(&tokens(prompt), 2, &held, &mut blocks);
        (cache, blocks, held)
    }

    #[test]
    fn only_whole_equal_blocks_are_found() {
        let (mut cache, mut blocks, held) = cached(&[1, 2, 3, 4, 5], 8, 8);
        let mut check = |prompt: &[u32], expect: &[u32]| {
            assert_eq!(
                cache.look_up(&tokens(prompt), 2, &mut blocks),
                expect,
                "{prompt:?}"
            );
        };
        check(&[1, 2, 3, 4, 9], &held[..2]);
        check(&[1, 2, 4, 3], &held[..1]);
        check(&[3, 4], &[]);
        check(&[1], &[]);
        check(&[1, 2, 3, 4, 5, 6], &held[..2]);
    }

    #[test]
    fn eviction_takes_leaves_first_and_frees_blocks() {
        let (mut cache, mut blocks, held) = cached(&[1, 2, 3, 4], 2, 2);
        for block in held {
            blocks.release(block);
        }
        assert_eq!(blocks.num_free(), 0);
        assert!(cache.evict_one(&mut blocks));
        assert_eq!(blocks.num_free(), 1);
        let kept = cache.look_up(&tokens(&[1, 2, 3, 4]), 2, &mut blocks);
        assert_eq!(kept.len(), 1, "the first block of the chain outlives the second");
        blocks.release(kept[0]);
        assert!(cache.evict_one(&mut blocks));
        assert!(!cache.evict_one(&mut blocks));
    }
    #[test]
    fn what_a_request_holds_is_not_evicted() {
        let (mut cache, mut blocks, held) = cached(&[1, 2, 3, 4], 2, 2);
        assert!(!cache.evict_one(&mut blocks), "both blocks are held");
        assert_eq!(cache.look_up(&tokens(&[1, 2, 3, 4]), 2, &mut blocks), held);
        for block in held {
            blocks.release(block);
            blocks.release(block);
        }
        assert!(cache.evict_one(&mut blocks) && cache.evict_one(&mut blocks));
        assert_eq!(blocks.num_free(), 2);
    }

    /// Two requests ran the prompt's first block at once: the cache has that of the first and the second's second.
    #[test]
    fn an_unheld_block_is_freed_even_if_a_held_one_continues_it() {
        let (mut cache, mut blocks, first) = cached(&[1, 2], 3, 3);
        let second = [blocks.allocate().unwrap(), blocks.allocate().unwrap()];
        cache.insert(&tokens(&[1, 2, 3, 4]), 2, &second, &mut blocks);
        blocks.release(first[0]);
        assert_eq!(blocks.num_free(), 0);
        assert!(cache.evict_one(&mut blocks));
        assert_eq!(blocks.num_free(), 1);
        assert!(!cache.evict_one(&mut blocks));
        for &block in &second {
            blocks.release(block);
        }
        assert_eq!(blocks.num_free(), 3, "nothing is left behind in the cache");
    }

    #[test]
    fn a_full_cache_replaces_what_is_unused_and_never_its_own_chain() {
        let (mut cache, mut blocks, held) = cached(&[1, 2, 3, 4], 9, 2);
        for &block in &held {
            blocks.release(block);
        }
        assert_eq!(blocks.num_free(), 7);
        let second: Vec<u32> = (0..3).map(|_| blocks.allocate().unwrap()).collect();
        cache.insert(&tokens(&[1, 2, 5, 6, 7, 8]), 2, &second, &mut blocks);
        for &block in &second {
            blocks.release(block);
        }
        assert_eq!(blocks.num_free(), 7, "two blocks are cached, as allowed");
        let found = cache.look_up(&tokens(&[1, 2, 5, 6, 7, 8]), 2, &mut blocks);
        assert_eq!(found, [held[0], second[1]]);
    }
}
