use proptest::prelude::*;

use super::*;

/// Token `i` has the `i`-th piece; token 0 is a control token.
struct Pieces(Vec<&'static [u8]>);

impl TokenBytes for Pieces {
    fn bytes_of(&self, token: TokenId) -> &[u8] {
        self.0.get(token.index()).copied().unwrap_or(&[])
    }
}

fn rules(stop_strings: &[&str], max_new_tokens: usize) -> StopRules {
    StopRules {
        stop_tokens: vec![TokenId(0), TokenId(9)],
        stop_strings: stop_strings.iter().map(|&stop| stop.to_owned()).collect(),
        max_new_tokens,
    }
}

/// Feeds tokens until the response ends.
fn respond(pieces: &Pieces, tokens: &[u32], rules: &StopRules) -> Option<Candidate> {
    let mut response = Response::default();
    for &token in tokens {
        let sampled = SampledToken {
            token: TokenId(token),
            log_prob: -1.0,
            reference_log_prob: -2.0,
            kl_nats: 0.5,
        };
        let foreseen = response.would_end(sampled.token, rules, pieces);
        let has_ended = response.push(&sampled, rules, pieces);
        assert_eq!(foreseen, has_ended, "{tokens:?} at {token} with {rules:?}");
        if has_ended {
            break;
        }
    }
    response.into_candidate(3)
}

#[test]
fn responses_end_where_the_rules_say() {
    use FinishReason::{Length, StopString, StopToken};

    let pieces = Pieces(vec![
        b"", b"Hello", b" wor", b"ld", b"\n", b"\nQ", b": x", b"\xc3", b"\xa9", b"END", b"a", b"b",
    ]);
    let check = |tokens: &[u32], stop_strings: &[&str], expect: Option<(&str, FinishReason, usize)>| {
        let candidate = respond(&pieces, tokens, &rules(stop_strings, 6));
        let got = candidate
            .as_ref()
            .map(|c| (c.text.as_str(), c.finish, c.token_ids.len()));
        assert_eq!(got, expect, "{tokens:?} with {stop_strings:?}");
    };
    check(&[1, 2, 3, 0, 1], &[], Some(("Hello world", StopToken, 4)));
    // A stop token with bytes of its own ends the text before them.
    check(&[1, 9], &[], Some(("Hello", StopToken, 2)));
    check(&[1, 2], &[], None);
    check(
        &[1, 1, 1, 1, 1, 1, 1],
        &[],
        Some(("HelloHelloHelloHelloHelloHello", Length, 6)),
    );
    // Within a token, at its end, across two and across three tokens.
    check(&[1, 2], &["ell"], Some(("H", StopString, 1)));
    check(&[1, 2, 3, 4], &["\n"], Some(("Hello world", StopString, 4)));
    check(&[1, 5, 6, 0], &["\nQ:"], Some(("Hello", StopString, 3)));
    check(&[1, 2, 3, 1], &["lo worl"], Some(("Hel", StopString, 3)));
    check(&[1], &["Hello"], Some(("", StopString, 1)));
    // The earliest of several wins, wherever it stands in the list.
    check(&[1], &["lo", "el"], Some(("H", StopString, 1)));
    check(&[1], &["el", "lo"], Some(("H", StopString, 1)));
    // A false start does not hide the true one.
    check(&[10, 10, 11], &["ab"], Some(("a", StopString, 3)));
    // Half a character is not text of its own.
    check(&[7, 8, 0], &[], Some(("\u{e9}", StopToken, 3)));
    check(&[7, 8, 1], &["\u{e9}H"], Some(("", StopString, 3)));
    check(&[7, 0], &[], Some(("\u{fffd}", StopToken, 2)));
    // At the limit a stop is still a stop.
    check(
        &[1, 1, 1, 1, 1, 0],
        &[],
        Some(("HelloHelloHelloHelloHello", StopToken, 6)),
    );
    check(&[10, 10, 10, 10, 10, 11], &["ab"], Some(("aaaa", StopString, 6)));
}

#[test]
fn sums_cover_every_token() {
    let candidate = respond(&Pieces(vec![b""]), &[1, 2, 0], &rules(&[], 9)).expect("ended by its stop token");
    assert_eq!(
        (
            candidate.log_prob,
            candidate.reference_log_prob,
            candidate.kl_nats
        ),
        (-3.0, -6.0, 1.5)
    );
    assert_eq!((candidate.candidate_idx, candidate.reward), (3, None));
}

#[test]
fn rules_that_cannot_work_are_refused() {
    assert!(rules(&["x"], 1).validate().is_ok());
    let message = |rules: StopRules| rules.validate().expect_err("must be refused").to_string();
    assert!(message(rules(&[], 0)).starts_with("max_new_tokens: expected"));
    assert!(message(rules(&["x", ""], 5)).starts_with("stop_strings: expected"));
}

proptest! {
    /// Cutting a text into tokens anywhere gives the text before the first stop string.
    #[test]
    fn token_boundaries_do_not_matter(
        pieces in prop::collection::vec(1_u32..5, 1..30),
        stop in prop::sample::select(vec!["ab", "ba", "aab", "abab", "bb", "aaaa"]),
    ) {
        let table = Pieces(vec![b"", b"a", b"b", b"ab", b"bba"]);
        let tokens: Vec<u32> = pieces.iter().copied().chain([0]).collect();
        let whole = table.text_of(&tokens.iter().map(|&id| TokenId(id)).collect::<Vec<_>>());
        let candidate = respond(&table, &tokens, &rules(&[stop], 99)).expect("ended by its stop token at the latest");
        let expected = whole.split_once(stop).map_or(whole.as_str(), |(before, _)| before);
        prop_assert_eq!(candidate.text.as_str(), expected);
        prop_assert_eq!(candidate.finish == FinishReason::StopString, whole.contains(stop));
    }
}

/// Bytes of a token's own number.
struct ByteTokens;

impl TokenBytes for ByteTokens {
    fn bytes_of(&self, token: TokenId) -> &[u8] {
        const BYTES: [[u8; 1]; 256] = {
            let mut bytes = [[0]; 256];
            let mut byte = 0;
            while byte < 256 {
                bytes[byte] = [byte as u8];
                byte += 1;
            }
            bytes
        };
        BYTES.get(token.index()).map_or(&[], |byte| byte.as_slice())
    }
}

#[test]
fn a_prefix_has_whole_characters_until_it_has_ended() {
    let rules = StopRules {
        stop_tokens: vec![TokenId(0)],
        stop_strings: vec!["END".to_owned()],
        max_new_tokens: 40,
    };
    let check = |bytes: &[u8], expect: (&str, bool)| {
        let mut response = Response::default();
        for &byte in bytes {
            let sampled = SampledToken {
                token: TokenId(u32::from(byte)),
                log_prob: 0.0,
                reference_log_prob: 0.0,
                kl_nats: 0.0,
            };
            response.push(&sampled, &rules, &ByteTokens);
        }
        let prefix = response.prefix();
        assert_eq!((prefix.text.as_str(), prefix.is_finished), expect, "{bytes:?}");
        assert_eq!(prefix.token_ids.len(), bytes.len());
    };
    check(b"", ("", false));
    check("né".as_bytes(), ("né", false));
    check(b"n\xc3", ("n", false));
    check(b"n\xe2\x82", ("n", false));
    // What can become no character is not waited for.
    check(b"n\xff", ("n\u{fffd}", false));
    check(b"\xffn\xc3", ("\u{fffd}n", false));
    check(b"so END", ("so ", true));
    // A response that ended amidst a character has the text of its candidate; the end token adds nothing.
    check(b"n\xc3\x00", ("n\u{fffd}", true));
}
