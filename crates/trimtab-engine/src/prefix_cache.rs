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
#[derive(Debug, Default)]
pub struct PrefixCache {
    by_content: HashMap<(ChainId, Vec<TokenId>), ChainId>,
    entries: HashMap<ChainId, Entry>,
    next_id: ChainId,
    clock: u64,
}

impl PrefixCache {
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

    /// Remembers the whole blocks of a prompt that has been run; `held` are its blocks in order.
    pub fn insert(&mut self, tokens: &[TokenId], block_len: usize, held: &[u32], blocks: &mut BlockManager) {
        self.clock += 1;
        let mut chain = 0;
        for (chunk, &block) in tokens.chunks_exact(block_len).zip(held) {
            let key = (chain, chunk.to_vec());
            chain = match self.by_content.get(&key) {
                Some(&known) => known,
                None => self.add(key, block, blocks),
            };
        }
    }

    /// Lets go of the least recently used block that no longer chain needs. `false` if nothing is cached.
    pub fn evict_one(&mut self, blocks: &mut BlockManager) -> bool {
        // A block that a running request still holds would not become free; prefer those that would.
        let victim = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.num_children == 0)
            .min_by_key(|(id, entry)| (blocks.is_shared(entry.block), entry.last_used, **id))
            .map(|(&id, _)| id);
        let Some(entry) = victim.and_then(|id| self.entries.remove(&id)) else {
            return false;
        };
        if let Some(parent) = self.entries.get_mut(&entry.parent) {
            parent.num_children -= 1;
        }
        blocks.release(entry.block);
        self.by_content.remove(&(entry.parent, entry.tokens));
        true
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

    fn cached(prompt: &[u32], num_blocks: usize) -> (PrefixCache, BlockManager, Vec<u32>) {
        let mut blocks = BlockManager::new(num_blocks);
        let held: Vec<u32> = (0..prompt.len().div_ceil(2))
            .map(|_| blocks.allocate().unwrap())
            .collect();
        let mut cache = PrefixCache::default();
        cache.insert(&tokens(prompt), 2, &held, &mut blocks);
        (cache, blocks, held)
    }

    #[test]
    fn only_whole_equal_blocks_are_found() {
        let (mut cache, mut blocks, held) = cached(&[1, 2, 3, 4, 5], 8);
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
        let (mut cache, mut blocks, held) = cached(&[1, 2, 3, 4], 2);
        for block in held {
            blocks.release(block);
        }
        assert_eq!(blocks.num_free(), 0);
        assert!(cache.evict_one(&mut blocks));
        assert_eq!(blocks.num_free(), 1);
        let kept = cache.look_up(&tokens(&[1, 2, 3, 4]), 2, &mut blocks);
        assert_eq!(kept.len(), 1, "the first block of the chain outlives the second");
        assert!(cache.evict_one(&mut blocks));
        assert!(!cache.evict_one(&mut blocks));
    }
}
