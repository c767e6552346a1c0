//! Bytes of every token in one block of memory. Knows no algorithm.

/// A table from token id to the bytes that the token adds to a text.
#[derive(Debug, Clone, Default)]
pub(crate) struct PieceBytes {
    bytes: Vec<u8>,
    /// End of each token's bytes; the start is the end of the token before. `[vocab]`
    ends: Vec<usize>,
}

impl PieceBytes {
    /// Number of ids, also the ones that add nothing.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of token `id`, empty outside the vocabulary.
    pub(crate) fn get(&self, id: usize) -> &[u8] {
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }
}

impl<B: AsRef<[u8]>> FromIterator<B> for PieceBytes {
    fn from_iter<I: IntoIterator<Item = B>>(pieces: I) -> Self {
        let mut table = Self::default();
        for piece in pieces {
            table.bytes.extend_from_slice(piece.as_ref());
            table.ends.push(table.bytes.len());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back() {
        let table: PieceBytes = ["ab", "", "c"].into_iter().collect();
        assert_eq!(table.len(), 3);
        assert_eq!(
            [table.get(0), table.get(1), table.get(2), table.get(3)],
            [&b"ab"[..], b"", b"c", b""]
        );
    }
}
