//! How SentencePiece writes spaces. Knows no vocabulary.
//!
//! Pieces hold `▁` (U+2581) where the text has a space. The published tokenizers therefore cannot tell a `▁` in a
//! text from a space; here it is cut out first and written as its three bytes, so that texts come back byte for byte.

/// What SentencePiece writes for a space.
pub(crate) const SPACE_MARK: &str = "▁";

/// Where a space is put before a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// Nowhere.
    Never,
    /// Before the text.
    First,
    /// Before the text and after each control token.
    Always,
}

/// A text in the pieces' characters, cut at each `▁` that the text itself has; nothing for an empty text.
pub(crate) fn mark_spaces(text: &str, prefix: bool) -> impl Iterator<Item = String> {
    let parts = (!text.is_empty()).then(|| text.split(SPACE_MARK).enumerate());
    parts.into_iter().flatten().map(move |(part_idx, part)| {
        let marked = part.replace(' ', SPACE_MARK);
        if prefix && part_idx == 0 {
            format!("{SPACE_MARK}{marked}")
        } else {
            marked
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_marked_and_marks_are_cut_out() {
        let check = |text: &str, prefix: bool, expect: &[&str]| {
            assert_eq!(mark_spaces(text, prefix).collect::<Vec<_>>(), expect, "{text:?}");
        };
        check("", true, &[]);
        check("a b", true, &["▁a▁b"]);
        check(" a", false, &["▁a"]);
        check("▁a b▁", true, &["▁", "a▁b", ""]);
    }
}
