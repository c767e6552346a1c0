//! Who holds which key/value block: reference counts and a free list. Knows no contents.

/// Counts holders of each block. Takes memory only for blocks that have been handed out.
#[derive(Debug)]
pub struct BlockManager {
    num_blocks: usize,
    /// Of each block ever handed out.
    holders: Vec<u32>,
    /// Of these, the free ones.
    free: Vec<u32>,
}

impl BlockManager {
    /// `num_blocks` free blocks, handed out from 0 upwards so that small runs touch little memory. Blocks have ids of
    /// 32 bits; what a store has beyond them is not used.
    pub fn new(num_blocks: usize) -> Self {
        Self {
            num_blocks: num_blocks.min(u32::MAX as usize),
            holders: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Blocks that nobody holds.
    pub fn num_free(&self) -> usize {
        self.num_blocks - self.holders.len() + self.free.len()
    }

    /// All blocks.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// A block with one holder, or `None` if all are held.
    pub fn allocate(&mut self) -> Option<u32> {
        if let Some(block) = self.free.pop() {
            self.holders[block as usize] = 1;
            return Some(block);
        }
        let fresh = self.holders.len();
        (fresh < self.num_blocks).then(|| {
            self.holders.push(1);
            fresh as u32
        })
    }

    /// One more holder of `block`.
    pub fn retain(&mut self, block: u32) {
        let holders = &mut self.holders[block as usize];
        assert!(*holders > 0, "block {block} is free and cannot be shared");
        *holders += 1;
    }

    /// One holder less; the block is free when none is left.
    pub fn release(&mut self, block: u32) {
        let holders = &mut self.holders[block as usize];
        assert!(*holders > 0, "block {block} released more often than held");
        *holders -= 1;
        if *holders == 0 {
            self.free.push(block);
        }
    }

    /// Whether more than one sequence holds `block`, so that writing needs a copy first.
    pub fn is_shared(&self, block: u32) -> bool {
        self.holders[block as usize] > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_free_when_its_last_holder_leaves() {
        let mut blocks = BlockManager::new(2);
        let first = blocks.allocate().unwrap();
        assert_eq!((first, blocks.num_free()), (0, 1));
        blocks.retain(first);
        assert!(blocks.is_shared(first));
        blocks.release(first);
        assert_eq!((blocks.is_shared(first), blocks.num_free()), (false, 1));
        blocks.release(first);
        assert_eq!(blocks.num_free(), 2);
    }

    #[test]
    fn a_large_store_costs_nothing_until_it_is_used() {
        let mut blocks = BlockManager::new(usize::MAX);
        assert_eq!(blocks.num_blocks(), u32::MAX as usize);
        assert_eq!((blocks.allocate(), blocks.allocate()), (Some(0), Some(1)));
        assert_eq!(blocks.num_free(), u32::MAX as usize - 2);
    }

    #[test]
    fn exhaustion_is_an_answer() {
        let mut blocks = BlockManager::new(1);
        assert_eq!(blocks.allocate(), Some(0));
        assert_eq!(blocks.allocate(), None);
    }
}
