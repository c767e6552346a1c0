//! SentencePiece's byte-pair merging by scores. Knows no file format.
//!
//! Text is cut into characters; then, again and again, the two neighbours that make the piece with the highest
//! score are joined, the leftmost on a tie; what is left without a piece is written as bytes. This is llama2.c's
//! `encode()` and SentencePiece's BPE (Kudo and Richardson 2018, arXiv 1808.06226), with a heap in place of
//! llama2.c's search of all pairs for each join: O(n log n) instead of O(n^2), the same joins in the same order.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use aho_corasick::{AhoCorasick, MatchKind};
use trimtab_base::TokenId;

use crate::error::TokenizerError;
use crate::space_mark::{SPACE_MARK, mark_spaces};
use crate::tokenizer::SpecialTokens;

/// What the algorithm needs of a vocabulary.
pub(crate) struct ScoreParts {
    /// Pieces that joins may make, with their scores.
    pub(crate) joinable: HashMap<Box<[u8]>, (TokenId, f32)>,
    /// Pieces that are found in the text before any join and never joined.
    pub(crate) user_defined: Vec<(String, TokenId)>,
    /// Pieces that cut a text in two where they are parsed.
    pub(crate) control: Vec<(String, TokenId)>,
    /// Token of each byte.
    pub(crate) byte_ids: [Option<TokenId>; 256],
    /// Whether pieces hold `▁` for a space.
    pub(crate) marks_spaces: bool,
    /// Whether a space is put before a text.
    pub(crate) add_space_prefix: bool,
}

/// A tokenizer that merges by scores.
pub(crate) struct ScoreMerge {
    parts: ScoreParts,
    user_defined: AhoCorasick,
    control: AhoCorasick,
}

/// A span of the text that is one symbol so far; joined symbols form a linked list.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    /// Zero once the symbol was joined to the one on its left.
    len: usize,
    prev: Option<usize>,
    next: Option<usize>,
    /// Found as a whole; takes part in no join.
    fixed: Option<TokenId>,
}

/// A possible join of the symbol `left_idx` with its right neighbour.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Join {
    score: f32,
    left_idx: usize,
    /// Length of the result, which tells a join that has been overtaken.
    joined_len: usize,
}

impl Eq for Join {}

impl Ord for Join {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |join: &Self| (Reverse(join.left_idx), join.joined_len);
        // Scores were checked to be finite, so the total order is the usual one; -0 was made 0 when loading.
        self.score
            .total_cmp(&other.score)
            .then_with(|| key(self).cmp(&key(other)))
    }
}

impl PartialOrd for Join {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ScoreMerge {
    pub(crate) fn new(mut parts: ScoreParts) -> Result<Self, TokenizerError> {
        for (id, score) in parts.joinable.values_mut() {
            if !score.is_finite() {
                return Err(TokenizerError::BadScore {
                    id: id.0,
                    score: *score,
                });
            }
            // Adding zero turns -0 into 0, which the total order would rank lower.
            *score += 0.0;
        }
        if parts.marks_spaces && !parts.joinable.contains_key(SPACE_MARK.as_bytes()) {
            return Err(TokenizerError::Missing {
                field: "the token for a space, \"▁\",",
            });
        }
        let user_defined = longest_first(&parts.user_defined)?;
        let control = longest_first(&parts.control)?;
        Ok(Self {
            parts,
            user_defined,
            control,
        })
    }

    pub(crate) fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<TokenId>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut start = 0;
        if special == SpecialTokens::Parse {
            for found in self.control.find_iter(text) {
                self.encode_plain(&text[start..found.start()], &mut ids)?;
                ids.push(self.parts.control[found.pattern().as_usize()].1);
                start = found.end();
            }
        }
        self.encode_plain(&text[start..], &mut ids)?;
        Ok(ids)
    }

    pub(crate) fn token_id(&self, piece: &str) -> Option<TokenId> {
        let named = self.parts.control.iter().chain(&self.parts.user_defined);
        let joinable = self.parts.joinable.get(piece.as_bytes()).map(|(id, _)| *id);
        joinable.or_else(|| {
            named
                .into_iter()
                .find(|(text, _)| text == piece)
                .map(|(_, id)| *id)
        })
    }

    /// Tokens of a text without control tokens.
    fn encode_plain(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        let prefix = self.parts.add_space_prefix;
        if self.parts.marks_spaces {
            for (part_idx, part) in mark_spaces(text, prefix).enumerate() {
                if part_idx > 0 {
                    self.push_bytes(SPACE_MARK.as_bytes(), ids)?;
                }
                self.encode_marked(&part, ids)?;
            }
            Ok(())
        } else {
            let prefix = if prefix { " " } else { "" };
            self.encode_marked(&format!("{prefix}{text}"), ids)
        }
    }

    /// Tokens of a text in the pieces' characters.
    fn encode_marked(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), TokenizerError> {
        let mut symbols = self.symbols(text);
        self.join_all(text.as_bytes(), &mut symbols);
        for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
            let bytes = &text.as_bytes()[symbol.start..symbol.start + symbol.len];
            let joined = || self.parts.joinable.get(bytes).map(|(id, _)| *id);
            match symbol.fixed.or_else(joined) {
                Some(id) => ids.push(id),
                None => self.push_bytes(bytes, ids)?,
            }
        }
        Ok(())
    }

    /// Characters and user-defined pieces of a text, in order.
    fn symbols(&self, text: &str) -> Vec<Symbol> {
        let mut spans: Vec<(usize, usize, Option<TokenId>)> = Vec::with_capacity(text.len());
        let push_chars = |spans: &mut Vec<_>, start: usize, end: usize| {
            let chars = text[start..end].char_indices();
            spans.extend(chars.map(|(at, ch)| (start + at, ch.len_utf8(), None)));
        };
        let mut start = 0;
        for found in self.user_defined.find_iter(text) {
            push_chars(&mut spans, start, found.start());
            let id = self.parts.user_defined[found.pattern().as_usize()].1;
            spans.push((found.start(), found.end() - found.start(), Some(id)));
            start = found.end();
        }
        push_chars(&mut spans, start, text.len());
        let last = spans.len().saturating_sub(1);
        let linked = spans
            .into_iter()
            .enumerate()
            .map(|(idx, (start, len, fixed))| Symbol {
                start,
                len,
                prev: idx.checked_sub(1),
                next: (idx < last).then_some(idx + 1),
                fixed,
            });
        linked.collect()
    }

    /// Joins neighbours, best score first, until no two of them make a piece.
    fn join_all(&self, text: &[u8], symbols: &mut [Symbol]) {
        let mut joins: BinaryHeap<Join> = (0..symbols.len())
            .filter_map(|left_idx| self.join_at(text, symbols, left_idx))
            .collect();
        while let Some(join) = joins.pop() {
            let left = symbols[join.left_idx];
            let Some(right_idx) = left.next else { continue };
            let right = symbols[right_idx];
            if left.len == 0 || left.len + right.len != join.joined_len {
                continue;
            }
            symbols[join.left_idx] = Symbol {
                len: join.joined_len,
                next: right.next,
                ..left
            };
            symbols[right_idx].len = 0;
            if let Some(after_idx) = right.next {
                symbols[after_idx].prev = Some(join.left_idx);
            }
            let around = left.prev.into_iter().chain([join.left_idx]);
            joins.extend(around.filter_map(|left_idx| self.join_at(text, symbols, left_idx)));
        }
    }

    /// The join of a symbol with its right neighbour, if that makes a piece.
    fn join_at(&self, text: &[u8], symbols: &[Symbol], left_idx: usize) -> Option<Join> {
        let left = symbols[left_idx];
        let right = symbols[left.next?];
        if left.fixed.is_some() || right.fixed.is_some() {
            return None;
        }
        let joined_len = left.len + right.len;
        let (_, score) = *self
            .parts
            .joinable
            .get(&text[left.start..left.start + joined_len])?;
        Some(Join {
            score,
            left_idx,
            joined_len,
        })
    }

    /// Writes text that has no token as bytes. A byte without a token is refused: the unknown token would lose it.
    fn push_bytes(&self, bytes: &[u8], ids: &mut Vec<TokenId>) -> Result<(), TokenizerError> {
        for &byte in bytes {
            let id = self.parts.byte_ids[usize::from(byte)];
            ids.push(id.ok_or(TokenizerError::MissingByte { byte })?);
        }
        Ok(())
    }
}

/// A searcher for the longest of the pieces at the leftmost place.
fn longest_first(pieces: &[(String, TokenId)]) -> Result<AhoCorasick, TokenizerError> {
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(pieces.iter().map(|(piece, _)| piece))
        .map_err(|error| TokenizerError::Library {
            stage: "special tokens",
            problem: error.to_string(),
        })
}
