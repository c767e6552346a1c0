//! Where a block of text ends early. Knows bytes, not tokens; text may be cut within a character.

use super::settings::BlockEnd;

/// What ends a sentence, in UTF-8.
const SENTENCE_ENDS: [&[u8]; 8] = [
    b".",
    b"!",
    b"?",
    "…".as_bytes(),
    "。".as_bytes(),
    "！".as_bytes(),
    "？".as_bytes(),
    "।".as_bytes(),
];

/// What may follow the end of a sentence within it.
const CLOSERS: [&[u8]; 7] = [
    b"\"",
    b"'",
    b")",
    b"]",
    "”".as_bytes(),
    "’".as_bytes(),
    "」".as_bytes(),
];

/// Whether the newest token, `text[new_from..]`, ends a block.
pub(super) fn is_block_end(block_end: BlockEnd, text: &[u8], new_from: usize) -> bool {
    let has_newline = || text[new_from..].contains(&b'\n');
    match block_end {
        BlockEnd::Tokens => false,
        BlockEnd::Newline => has_newline(),
        BlockEnd::Sentence => has_newline() || ends_sentence(text, new_from),
    }
}

/// Whether a sentence ends in `text` and the newest token has the mark that ends it, or the last byte of it: a closing
/// quote in a token of its own ends no second block.
fn ends_sentence(text: &[u8], new_from: usize) -> bool {
    let mut kept = text.trim_ascii_end();
    while let Some(closer) = CLOSERS.iter().find(|closer| kept.ends_with(closer)) {
        kept = kept[..kept.len() - closer.len()].trim_ascii_end();
    }
    kept.len() > new_from && SENTENCE_ENDS.iter().any(|mark| kept.ends_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_where_asked() {
        let check = |block_end, old: &str, new: &str, expect: bool| {
            let text = format!("{old}{new}");
            assert_eq!(
                is_block_end(block_end, text.as_bytes(), old.len()),
                expect,
                "{old:?} {new:?}"
            );
        };
        check(BlockEnd::Tokens, "It is.", "\n", false);
        check(BlockEnd::Newline, "It is", ".", false);
        check(BlockEnd::Newline, "It is", ".\n\n", true);
        check(BlockEnd::Newline, "It is\n", "so", false);
        check(BlockEnd::Sentence, "It is", ".", true);
        check(BlockEnd::Sentence, "It is", "n't", false);
        check(BlockEnd::Sentence, "\"It is", "!\"", true);
        check(BlockEnd::Sentence, "(It is", "?) ", true);
        check(BlockEnd::Sentence, "It is", "...", true);
        check(BlockEnd::Sentence, "It is", "\n", true);
        check(BlockEnd::Sentence, "He said “no", ".”", true);
        check(BlockEnd::Sentence, "是", "。", true);
        // The mark was there before.
        check(BlockEnd::Sentence, "It is.", "\"", false);
        check(BlockEnd::Sentence, "It is.", " ", false);
        check(BlockEnd::Sentence, "It is.", "", false);
        check(BlockEnd::Sentence, "", "", false);
        check(BlockEnd::Sentence, "", "\"", false);
        // A decimal point is not the token's last mark.
        check(BlockEnd::Sentence, "3", ".14", false);
    }

    #[test]
    fn a_mark_split_between_tokens_ends_the_sentence_once() {
        let text = "是。".as_bytes();
        let ends: Vec<bool> = (1..text.len())
            .map(|len| is_block_end(BlockEnd::Sentence, &text[..=len], len))
            .collect();
        assert_eq!(ends, [false, false, false, false, true]);
    }
}
