//! Which rows of a task share which blocks of its span.

use std::ops::Range;

use crate::kv_cache::BLOCK_LEN;

/// A row with keys in the span.
#[derive(Debug, Clone)]
pub(super) struct SpanRow {
    /// Index into the rows of the call.
    pub(super) row: usize,
    /// Relative to the span's first position; not empty.
    pub(super) keys: Range<usize>,
}

/// Neighbouring rows that agree on some blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Indices into the task's rows.
    pub(super) rows: Range<usize>,
    /// Relative to the span's first block; one unless `keys` are all keys of a block.
    pub(super) blocks: Range<usize>,
    /// Keys of each block that count for all the rows.
    pub(super) keys: Range<usize>,
}

impl SpanRow {
    fn blocks(&self) -> Range<usize> {
        self.keys.start / BLOCK_LEN..self.keys.end.div_ceil(BLOCK_LEN)
    }
}

/// Segments of a task's rows, kept to reuse their memory.
#[derive(Debug, Default)]
pub(super) struct Segments {
    segments: Vec<Segment>,
    /// For each row the last segment that starts with it.
    last_from: Vec<usize>,
}

impl Segments {
    /// Cuts the blocks of `rows` into segments, each as large as its rows agree on `block_of` and `keys_of`; those of
    /// one row come in order of their blocks.
    pub(super) fn cut(
        &mut self,
        rows: &[SpanRow],
        block_of: impl Fn(&SpanRow, usize) -> u32,
        keys_of: impl Fn(&SpanRow, usize) -> Range<usize>,
    ) -> &[Segment] {
        self.segments.clear();
        self.last_from.clear();
        self.last_from.resize(rows.len(), usize::MAX);
        let first = rows.iter().map(|row| row.blocks().start).min().unwrap_or(0);
        let end = rows.iter().map(|row| row.blocks().end).max().unwrap_or(0);
        for block in first..end {
            let mut start = 0;
            while start < rows.len() {
                if !rows[start].blocks().contains(&block) {
                    start += 1;
                    continue;
                }
                let (id, keys) = (block_of(&rows[start], block), keys_of(&rows[start], block));
                let agrees = |row: &&SpanRow| {
                    row.blocks().contains(&block) && block_of(row, block) == id && keys_of(row, block) == keys
                };
                let end = start + 1 + rows[start + 1..].iter().take_while(agrees).count();
                self.extend_or_push(Segment {
                    rows: start..end,
                    blocks: block..block + 1,
                    keys,
                });
                start = end;
            }
        }
        &self.segments
    }

    /// Appends `segment` to the one of the same rows that ends where it starts, if both take whole blocks.
    fn extend_or_push(&mut self, segment: Segment) {
        let last = &mut self.last_from[segment.rows.start];
        match self.segments.get_mut(*last) {
            Some(earlier)
                if earlier.rows == segment.rows
                    && earlier.blocks.end == segment.blocks.start
                    && earlier.keys == (0..BLOCK_LEN)
                    && segment.keys == (0..BLOCK_LEN) =>
            {
                earlier.blocks.end = segment.blocks.end;
            }
            _ => {
                *last = self.segments.len();
                self.segments.push(segment);
            }
        }
    }
}
