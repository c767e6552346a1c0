//! Who holds which key/value block: reference counts and a free list. Knows no contents.

/// Counts holders of each block.
#[derive(Debug)]
pub struct BlockManager {
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl BlockManager {
    /// `num_blocks` free blocks, handed out from 0 upwards so that small runs touch little memory.
    pub fn new(num_blocks: usize) -> Self {
        Self {
            holders: vec![0; num_blocks],
            free: (0..num_blocks as u32).rev().collect(),
        }
    }

    /// Blocks that nobody holds.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// All blocks.
    pub fn num_blocks(&self) -> usize {
        self.holders.len()
    }

    /// A block with one holder, or `None` if all are held.
    pub fn allocate(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        self.holders[block as usize] = 1;
        Some(block)
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
    fn exhaustion_is_an_answer() {
        let mut blocks = BlockManager::new(1);
        assert_eq!(blocks.allocate(), Some(0));
        assert_eq!(blocks.allocate(), None);
    }
}
